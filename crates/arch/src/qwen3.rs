//! Qwen3 (`qwen3`), dense: Llama with a norm of each head of queries and keys.
//!
//! Reference implementation: `models/qwen3` of Hugging Face transformers 5.23. Later layers may
//! slide; a window of `w` means `w` visible keys, the query's own among them.

use serde_json::{Map, Value};

use crate::config::{self, ShapeDefaults};
use crate::decoder::Decoder;
use crate::family::Family;
use crate::registry::ArchError;

const FAMILY: Family = Family {
    shape: ShapeDefaults {
        head_dim: Some(128),
        kv_heads: Some(32),
        max_position_embeddings: 32_768,
        tied: false,
    },
    ..Family::new("qwen3")
};

/// Reads the configuration and lays out the weights.
pub(crate) fn from_config(config: &Map<String, Value>) -> Result<Decoder, ArchError> {
    FAMILY.read(config, |fields, plan, heads| {
        heads.norm_epsilon = Some(plan.norm.epsilon());
        heads.set_biases(config::flag(fields, "attention_bias"));
        let windows = config::optional_windows(fields, &plan.shape);
        plan.set_windows(|layer| windows[layer]);
    })
}
