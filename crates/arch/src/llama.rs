//! Llama (`llama`): Llama 2 and 3.x with their RoPE scaling, SmolLM2 and many others.
//!
//! Reference implementation: `models/llama` of Hugging Face transformers 5.23.

use serde_json::{Map, Value};

use crate::config;
use crate::decoder::Decoder;
use crate::family::Family;
use crate::registry::ArchError;

const FAMILY: Family = Family {
    // How the training was cut between machines.
    inert: &["pretraining_tp", "rope_interleaved", "is_llama_config"],
    ..Family::new("llama")
};

/// Reads the configuration and lays out the weights.
pub(crate) fn from_config(config: &Map<String, Value>) -> Result<Decoder, ArchError> {
    FAMILY.read(config, |fields, _, heads| {
        fields.only("mlp_bias", &Value::from(false));
        fields.only("rope_interleaved", &Value::from(false));
        heads.set_biases(config::flag(fields, "attention_bias"));
    })
}
