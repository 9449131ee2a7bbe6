//! Llama (`llama`): Llama 2 and 3.x with their RoPE scaling, SmolLM2 and many others.
//!
//! Reference implementation: `models/llama` of Hugging Face transformers 5.23.

use backstop_weights::GgufConventions;
use serde_json::Value;

use crate::config::{self, UnreadFields};
use crate::family::Family;

pub(crate) const FAMILY: Family = Family {
    // How the training was cut between machines.
    unread: UnreadFields {
        inert: &["pretraining_tp", "is_llama_config"],
        ..UnreadFields::NONE
    },
    differ: |fields, _, heads| {
        fields.only("mlp_bias", &Value::from(false));
        fields.only("rope_interleaved", &Value::from(false));
        heads.set_biases(config::flag(fields, "attention_bias"));
    },
    gguf: Some(GgufConventions {
        pairs_together: true,
        ..GgufConventions::new("llama", "LlamaForCausalLM")
    }),
    ..Family::new("llama")
};
