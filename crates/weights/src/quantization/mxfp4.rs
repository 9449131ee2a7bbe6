//! `quant_method` `mxfp4`: gpt-oss's experts. Which other modules are left alone shows in the tensors.

use serde_json::{Map, Value};

use super::{Codes, QuantizationScheme, QuantizedMatrix, Scales, WeightQuantization};
use crate::{Checkpoint, ElementType, ExpectedTensor, StrictFields};

/// What is added to the name of a tensor of packed experts, for the tensor of their codes.
pub(super) const CODES: &str = "_blocks";
/// The same for their scales.
const SCALES: &str = "_scales";
/// Numbers that share a scale.
const GROUP: usize = 32;

pub(super) fn parse(section: &Map<String, Value>) -> Result<QuantizationScheme, Vec<String>> {
    let mut fields = StrictFields::new("quantization_config", section);
    fields.value("quant_method");
    fields.only("dequantize", &Value::from(false));
    let left_alone = fields.optional_string_list("modules_to_not_convert");
    for pattern in left_alone.unwrap_or_default() {
        if pattern.contains("experts") {
            fields.problem(format!("modules_to_not_convert has {pattern:?}"));
        }
    }
    fields.finish(&[])?;
    Ok(QuantizationScheme {
        mxfp4_experts: true,
        ..QuantizationScheme::default()
    })
}

impl QuantizedMatrix {
    /// The matrices `[rows, columns]` of so many experts, as one, that a checkpoint would hold as `packed` if they were
    /// not in MXFP4; `None` if they are not.
    pub fn packed(
        checkpoint: &Checkpoint,
        packed: &str,
        [experts, rows, columns]: [usize; 3],
    ) -> Option<Self> {
        let codes = format!("{packed}{CODES}");
        checkpoint.tensor(&codes)?;
        Some(Self {
            quantization: WeightQuantization {
                codes: Codes::Mxfp4,
                scales: Scales::Group(GROUP),
                quantises_tokens: false,
            },
            rows: experts * rows,
            columns,
            codes,
            scales: format!("{packed}{SCALES}"),
            divisor: None,
        })
    }
}

/// The tensors of experts that are expected packed as `[experts, columns, rows]`, if they are in MXFP4.
pub(super) fn expected(
    checkpoint: &Checkpoint,
    packed: &ExpectedTensor,
) -> Option<Vec<ExpectedTensor>> {
    let &[experts, columns, rows] = packed.shape.as_slice() else {
        return None;
    };
    let matrix = QuantizedMatrix::packed(checkpoint, &packed.name, [experts, rows, columns])?;
    let groups = columns.div_ceil(GROUP);
    let tensor = |name, shape| ExpectedTensor {
        name,
        shape,
        allowed: &[ElementType::U8],
        required: packed.required,
    };
    Some(vec![
        tensor(matrix.codes, vec![experts, rows, groups, GROUP / 2]),
        tensor(matrix.scales, vec![experts, rows, groups]),
    ])
}
