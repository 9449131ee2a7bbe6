//! From a configuration to a model, through the list of [`FAMILIES`].

use backstop_kernels::backend::Backend;
use backstop_weights::{GgufConventions, GgufFamily};
use serde_json::{Map, Value};

use crate::config::WithUnread;
use crate::families::FAMILIES;
use crate::{AnyModel, ModelSpec};

/// A model that computes on backend `B`.
pub trait Model<B: Backend>: Send {
    /// Its description.
    fn spec(&self) -> &ModelSpec;

    /// Computes the batch that `backend` holds, up to the logits of the rows that it samples.
    /// Returns the hidden states behind the final norm, of which the head makes the logits.
    fn forward(&self, backend: &mut B) -> B::Activation;
}

/// A family of models.
pub(crate) trait Architecture: Sync {
    /// Its name, as `model_type` has it.
    fn name(&self) -> &'static str;

    /// Reads the configuration and lays out the weights. Says which fields nobody reads.
    fn read(&self, config: &Map<String, Value>) -> Result<WithUnread<AnyModel>, ArchError>;

    /// How GGUF files write it, if they are understood.
    fn gguf(&self) -> Option<GgufConventions> {
        None
    }
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

/// The model types that can be loaded.
pub fn names() -> Vec<&'static str> {
    FAMILIES.iter().map(|family| family.name()).collect()
}

/// The families that may be in GGUF files, for [`backstop_weights::Checkpoint::open`].
pub fn gguf_families() -> Vec<GgufFamily> {
    let in_gguf = |family: &&dyn Architecture| {
        Some(GgufFamily {
            model_type: family.name(),
            conventions: family.gguf()?,
        })
    };
    FAMILIES.iter().filter_map(in_gguf).collect()
}

/// Builds the model that `config` (the content of `config.json`) describes.
pub fn build(config: &Map<String, Value>) -> Result<AnyModel, ArchError> {
    read(config).map(|(model, _)| model)
}

/// The fields of a configuration that [`build`] passes over: the reference implementation of the family does not read
/// them, so they cannot change what is computed. Those that are known to be of no interest are not among them.
pub fn unread_fields(config: &Map<String, Value>) -> Result<Vec<String>, ArchError> {
    read(config).map(|(_, unread)| unread)
}

fn read(config: &Map<String, Value>) -> Result<WithUnread<AnyModel>, ArchError> {
    let model_type = config.get("model_type").and_then(Value::as_str);
    let model_type = model_type.unwrap_or_default();
    match FAMILIES.iter().find(|family| family.name() == model_type) {
        Some(family) => family.read(config),
        None => Err(ArchError::Unsupported {
            model_type: model_type.chars().take(64).collect(),
        }),
    }
}
