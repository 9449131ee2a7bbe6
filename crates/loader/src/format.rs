//! Number formats: which one in memory a stored one becomes, and whether a device computes with it.

use backstop_card::staging::WeightRows;
use backstop_kernels::{
    Abilities, BlockFormat, Element, Refusal, ScaleFormat, WeightFormat, WeightUse,
};
use backstop_weights::{Checkpoint, Codes, ElementType, QuantizedMatrix, Scales};

use crate::LoadFailure;
use crate::source::{Source, Stored};

/// How a checkpoint stores some rows of a matrix, or matrices of experts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsedFormat<'a> {
    /// Of which weight.
    pub(crate) target: WeightRows,
    pub(crate) source: &'a Source,
}

impl UsedFormat<'_> {
    /// Compares it with those that a device computes with.
    pub(crate) fn check(&self, abilities: &Abilities) -> Result<(), Refusal> {
        let weight_use = match self.target {
            WeightRows::Matrix(_) => WeightUse::Matrix,
            WeightRows::GateUp(_) | WeightRows::Down(_) => WeightUse::Experts,
        };
        let format = self.source.format;
        abilities.check_weights(weight_use, format, || {
            let stored_as = match &self.source.stored {
                Stored::Codes(matrix) => described(matrix),
                _ => format.to_string(),
            };
            format!("{} in {stored_as}", self.source.name())
        })
    }
}

/// The format in memory of numbers and blocks that are stored as they are computed with.
pub(crate) fn of_element(element: ElementType) -> WeightFormat {
    WeightFormat::Blocks(match element {
        ElementType::F32 => return Element::F32.into(),
        ElementType::BF16 => return Element::BF16.into(),
        ElementType::F8E4M3 => return Element::F8E4M3.into(),
        ElementType::F16 => BlockFormat::F16,
        ElementType::Block(format) => format,
        _ => unreachable!("the census allows no other number format"),
    })
}

/// The blocks in which a quantised matrix lies in memory: the first that share a scale.
pub(crate) fn of_codes(
    checkpoint: &Checkpoint,
    matrix: &QuantizedMatrix,
) -> Result<BlockFormat, LoadFailure> {
    let (columns, tile) = (matrix.columns, matrix.scale_tile()[1]);
    let codes = matrix.quantization.codes;
    let scales = checkpoint.tensor(&matrix.scales);
    let scales = scales.map(|tensor| tensor.element_type);
    let fits = |format: &BlockFormat| {
        let facts = format.facts();
        let share =
            codes == Codes::PackedE2M1 || tile.is_multiple_of(facts.numbers) || tile >= columns;
        facts.name == codes.name()
            && columns.is_multiple_of(facts.numbers)
            && share
            && facts.separate.is_some_and(|separate| {
                separate.scale != ScaleFormat::BF16 || scales == Some(ElementType::BF16)
            })
    };
    let found = BlockFormat::ALL.iter().copied().find(fits);
    found.ok_or_else(|| LoadFailure::Blocks {
        name: matrix.codes.clone(),
        format: codes.name(),
        columns,
        tile,
        wanted: match codes {
            Codes::PackedE2M1 => "rows must be multiples of 64",
            _ => "both must be multiples of 32",
        },
    })
}

/// Whether experts are computed with as FP8 numbers with a scale for each row, and inputs that are
/// quantised as well.
pub(crate) fn has_row_scales(matrix: &QuantizedMatrix) -> bool {
    let quantization = matrix.quantization;
    quantization.codes == Codes::F8E4M3
        && quantization.quantises_tokens
        && matches!(quantization.scales, Scales::Row | Scales::Tensor)
}

/// A matrix's format in messages.
fn described(matrix: &QuantizedMatrix) -> String {
    let scales = match matrix.quantization.scales {
        Scales::Tensor => "a scale for the tensor".to_owned(),
        Scales::Row => "a scale for each row".to_owned(),
        Scales::Group(size) => format!("a scale for each {size} numbers"),
        Scales::Block([rows, columns]) => format!("a scale for each {rows} times {columns}"),
    };
    format!("{} with {scales}", matrix.quantization.codes.name())
}
