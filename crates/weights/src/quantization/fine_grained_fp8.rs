//! `quant_method` `fp8`: E4M3 weights with a scale for each tile, as DeepSeek-V3 introduced them, or
//! for each tensor. The fields are those of transformers' `FineGrainedFP8Config` and of vLLM.

use serde_json::{Map, Value};

use super::{
    Codes, ModulePatterns, QuantizationScheme, QuantizedGroup, Scales, WeightQuantization,
};
use crate::StrictFields;

/// Which modules are quantised is said by their weights' type. That scales are powers of two is not
/// made use of.
const INERT: &[&str] = &[
    "modules_to_not_convert",
    "ignored_layers",
    "scale_fmt",
    "dequantize",
];

pub(super) fn parse(section: &Map<String, Value>) -> Result<QuantizationScheme, Vec<String>> {
    let mut fields = StrictFields::new("quantization_config", section);
    fields.value("quant_method");
    fields.only("fmt", &Value::from("e4m3"));
    fields.only("expert_dtype", &Value::from("fp8"));
    let dynamic = match fields.optional_string("activation_scheme").as_deref() {
        None | Some("dynamic") => true,
        Some("static") => false,
        Some(_) => {
            fields.problem("activation_scheme must be dynamic or static");
            false
        }
    };
    let scales = match fields.optional_u32_list("weight_block_size").as_deref() {
        None => Scales::Tensor,
        Some(&[rows, columns]) if rows > 0 && columns > 0 => {
            Scales::Block([rows as usize, columns as usize])
        }
        Some(_) => {
            fields.problem("weight_block_size must be two numbers above 0");
            Scales::Tensor
        }
    };
    fields.finish(INERT)?;
    let all = QuantizedGroup {
        targets: ModulePatterns::parse(&["re:".to_owned()]).map_err(|problem| vec![problem])?,
        weights: WeightQuantization {
            codes: Codes::F8E4M3,
            scales,
            quantises_tokens: dynamic && scales == Scales::Tensor,
        },
    };
    Ok(QuantizationScheme {
        groups: vec![all],
        ..QuantizationScheme::default()
    })
}
