//! Mistral (`mistral`): Llama with a sliding window in all layers, or in none.
//!
//! Reference implementation: `models/mistral` of Hugging Face transformers 5.23. A window of `w`
//! means `w` visible keys, the query's own among them.

use serde_json::{Map, Value};

use crate::config::{self, ShapeDefaults};
use crate::decoder::Decoder;
use crate::family::Family;
use crate::registry::ArchError;

const FAMILY: Family = Family {
    shape: ShapeDefaults {
        head_dim: None,
        kv_heads: Some(8),
        max_position_embeddings: 131_072,
        tied: false,
    },
    ..Family::new("mistral")
};

/// Reads the configuration and lays out the weights.
pub(crate) fn from_config(config: &Map<String, Value>) -> Result<Decoder, ArchError> {
    FAMILY.read(config, |fields, plan, _| {
        let visible_keys = config::common_window(fields, config, Some(4096));
        plan.set_windows(|_| visible_keys);
    })
}
