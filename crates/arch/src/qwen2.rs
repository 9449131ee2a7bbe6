//! Qwen2 (`qwen2`): Qwen2, Qwen2.5 and Qwen2.5-Coder. Llama with biases on queries, keys and values.
//!
//! Reference implementation: `models/qwen2` of Hugging Face transformers 5.23. Later layers may
//! slide; a window of `w` means `w` visible keys, the query's own among them.

use serde_json::{Map, Value};

use crate::config::{self, ShapeDefaults};
use crate::decoder::Decoder;
use crate::family::Family;
use crate::registry::ArchError;

const FAMILY: Family = Family {
    inert: &["use_mrope"],
    shape: ShapeDefaults {
        head_dim: None,
        kv_heads: Some(32),
        max_position_embeddings: 32_768,
        tied: false,
    },
    ..Family::new("qwen2")
};

/// Reads the configuration and lays out the weights.
pub(crate) fn from_config(config: &Map<String, Value>) -> Result<Decoder, ArchError> {
    FAMILY.read(config, |fields, plan, heads| {
        fields.only("use_mrope", &Value::from(false));
        heads.qkv_bias = true;
        let windows = config::optional_windows(fields, &plan.shape);
        plan.set_windows(|layer| windows[layer]);
    })
}
