//! Kimi K2 (`kimi_k2`): DeepSeek-V3 with other numbers.
//!
//! Its checkpoints bring code of their own, which is `models/deepseek_v3` of Hugging Face
//! transformers but for its name.

use serde_json::{Map, Value};

use crate::decoder::Decoder;
use crate::deepseek_v3::{self, Family};
use crate::registry::ArchError;

/// Reads the configuration and lays out the weights.
pub(crate) fn from_config(config: &Map<String, Value>) -> Result<Decoder, ArchError> {
    let family = Family {
        architecture: "kimi_k2",
        chat_format: "plain",
        rms_norm_epsilon: 1e-6,
        max_position_embeddings: 4096,
        read_dense: deepseek_v3::read_dense_prefix,
        read_indexers: None,
    };
    deepseek_v3::read(family, config)
}
