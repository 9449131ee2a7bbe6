//! The one list of architectures.

use backstop_kernels::backend::Backend;
use serde_json::{Map, Value};

use crate::{
    AnyModel, ModelSpec, cohere2_moe, deepseek_v3, glm_moe_dsa, glm4_moe_lite, gpt_oss, kimi_k2,
    llama, mistral, mixtral, qwen2, qwen3, qwen3_moe,
};

/// A model that computes on backend `B`.
pub trait Model<B: Backend>: Send {
    /// Its description.
    fn spec(&self) -> &ModelSpec;

    /// Computes the batch that `backend` holds, up to the logits of the rows that it samples.
    /// Returns the hidden states behind the final norm, of which the head makes the logits.
    fn forward(&self, backend: &mut B) -> B::Activation;
}

/// Why a configuration cannot be computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchError {
    /// No file here knows the model type.
    #[error("model_type {model_type:?} is not supported; supported are: {}", names().join(", "))]
    Unsupported {
        /// What `config.json` says.
        model_type: String,
    },
    /// No file here knows the model type of a draft head.
    #[error(
        "a draft head of model_type {model_type:?} is not supported; supported are: {}",
        supported.join(", ")
    )]
    UnsupportedHead {
        /// What `config.json` says.
        model_type: String,
        /// What it may say.
        supported: Vec<&'static str>,
    },
    /// `config.json` does not say what to compute, or asks for something that is not implemented.
    #[error("a {architecture} model cannot be computed as configured: {}", problems.join("; "))]
    Config {
        /// The architecture that read it.
        architecture: &'static str,
        /// Every problem found.
        problems: Vec<String>,
    },
}

macro_rules! architectures {
    ($($name:literal => $from_config:path),+ $(,)?) => {
        /// The model types that can be loaded.
        pub fn names() -> &'static [&'static str] {
            &[$($name),+]
        }

        /// Builds the model that `config` (the content of `config.json`) describes.
        pub fn build(config: &Map<String, Value>) -> Result<AnyModel, ArchError> {
            let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
            match model_type {
                $($name => Ok($from_config(config)?.into()),)+
                _ => Err(ArchError::Unsupported { model_type: model_type.chars().take(64).collect() }),
            }
        }
    };
}

architectures! {
    "cohere2_moe" => cohere2_moe::Cohere2Moe::from_config,
    "deepseek_v3" => deepseek_v3::from_config,
    "glm4_moe_lite" => glm4_moe_lite::from_config,
    "glm_moe_dsa" => glm_moe_dsa::from_config,
    "gpt_oss" => gpt_oss::from_config,
    "kimi_k2" => kimi_k2::from_config,
    "llama" => llama::from_config,
    "mistral" => mistral::from_config,
    "mixtral" => mixtral::from_config,
    "qwen2" => qwen2::from_config,
    "qwen3" => qwen3::from_config,
    "qwen3_moe" => qwen3_moe::from_config,
}
