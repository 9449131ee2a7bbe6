//! Number formats: which one in memory a stored one becomes, and which ones a device computes with.

use backstop_card::staging::WeightRows;
use backstop_kernels::{BlockFormat, Element, ScaleFormat, WeightFormat};
use backstop_weights::{Checkpoint, Codes, ElementType, QuantizedMatrix, Scales};

use crate::LoadFailure;
use crate::source::{Source, Stored};

/// How a checkpoint stores some rows of a matrix, or matrices of experts.
#[derive(Clone, Copy, Debug)]
pub struct UsedFormat<'a> {
    /// Of which weight.
    pub target: WeightRows,
    pub(crate) source: &'a Source,
}

impl<'a> UsedFormat<'a> {
    /// The format in memory.
    pub fn format(&self) -> WeightFormat {
        self.source.format
    }

    /// The tensor.
    pub fn tensor(&self) -> &'a str {
        self.source.name()
    }

    /// How it is stored, for messages.
    pub fn stored_as(&self) -> String {
        match (&self.source.stored, self.source.format) {
            (Stored::Codes(matrix), _) => described(matrix),
            (_, WeightFormat::Blocks(format)) => format.facts().name.to_owned(),
            (_, WeightFormat::Numbers(element)) => format!("{element:?}"),
        }
    }
}

/// The formats with which a device computes.
#[derive(Clone, Copy, Debug)]
pub struct ComputedFormats {
    /// Of matrices.
    pub matrices: &'static [WeightFormat],
    /// Of experts.
    pub experts: &'static [WeightFormat],
}

impl ComputedFormats {
    /// Whether this is one of them.
    pub fn contain(&self, used: &UsedFormat<'_>) -> bool {
        let computed = match used.target {
            WeightRows::Matrix(_) => self.matrices,
            WeightRows::GateUp(_) | WeightRows::Down(_) => self.experts,
        };
        computed.contains(&used.format())
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
