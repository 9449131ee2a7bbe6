//! The answers of `/api/tags`, `/api/ps` and `/api/show`.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::models::rfc3339;

/// All models in one of the lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelEntryList<T> {
    /// One for each served name.
    pub models: Vec<T>,
}

/// What a model is made of. Empty texts are what is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ModelDetails {
    /// The model that it was made from.
    pub parent_model: String,
    /// The files' format: `gguf` or `safetensors`.
    pub format: String,
    /// The architecture.
    pub family: String,
    /// The architecture again.
    pub families: Vec<String>,
    /// The number of parameters, as text.
    pub parameter_size: String,
    /// The number format that most bytes of the weights have.
    pub quantization_level: String,
}

/// A model in the list of those that can be served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelEntry {
    /// Its name.
    pub name: String,
    /// Its name again.
    pub model: String,
    /// When it was loaded, in seconds since 1970.
    #[serde(rename = "modified_at", serialize_with = "serialize_moment")]
    pub created_s: u64,
    /// Bytes of its files.
    pub size: u64,
    /// Identifies it, in 64 hexadecimal digits.
    pub digest: String,
    /// What it is made of.
    pub details: ModelDetails,
    /// What it can do.
    pub capabilities: Vec<&'static str>,
}

/// A model in the list of those that are in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunningModel {
    /// Its name.
    pub name: String,
    /// Its name again.
    pub model: String,
    /// Bytes of memory for its weights.
    pub size: u64,
    /// How many of them are a GPU's.
    pub size_vram: u64,
    /// As in the other list.
    pub digest: String,
    /// What it is made of.
    pub details: ModelDetails,
    /// Tokens of prompt and answer together.
    pub context_length: u32,
    /// When it will be let go of.
    pub expires_at: Never,
}

/// The moment at which a model that stays is let go of: so far away that Ollama's own client says
/// "Forever".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Never;

impl Serialize for Never {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str("9999-12-31T23:59:59Z")
    }
}

/// What is known of one model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownModel {
    /// Empty: there is none.
    pub modelfile: &'static str,
    /// The options that requests get which do not say, one a line.
    pub parameters: String,
    /// The source of the chat template.
    pub template: String,
    /// What it is made of.
    pub details: ModelDetails,
    /// Numbers by name, as a GGUF file would have them.
    pub model_info: Map<String, Value>,
    /// What it can do.
    pub capabilities: Vec<&'static str>,
    /// When it was loaded, in seconds since 1970.
    #[serde(rename = "modified_at", serialize_with = "serialize_moment")]
    pub created_s: u64,
}

fn serialize_moment<S: Serializer>(seconds: &u64, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&rfc3339(*seconds))
}
