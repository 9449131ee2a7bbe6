//! `quant_method` `mxfp4`: gpt-oss's experts. Which other modules are left alone shows in the tensors.

use serde_json::{Map, Value};

use super::QuantizationScheme;
use crate::StrictFields;

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
