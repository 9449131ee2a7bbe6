//! Manifests: what is known about a supported model before its weights are read.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use backstop_input::read_text_file;
use serde::{Deserialize, Serialize};

use crate::record::FileRecords;

/// Longest manifest; a canary of a few thousand tokens takes a tenth of it.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// One supported model.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The name users ask for; also the manifest's file name without `.toml`.
    pub name: String,
    /// The architecture, as `config.json` names it.
    pub architecture: String,
    /// The model type, as `config.json` names it: what decides whether this build computes it.
    pub model_type: Option<String>,
    /// Where the weights are published.
    pub repository: Option<String>,
    /// The pinned revision there.
    pub revision: Option<String>,
    /// Of a repository of GGUF files, which to take, such as `Q4_K_M`.
    pub quantization: Option<String>,
    /// The licence of the weights.
    pub licence: Option<String>,
    /// What the model is, in a sentence.
    pub description: String,
    /// The directory of the weights, absolute or relative to the manifest; the name if absent.
    pub path: Option<PathBuf>,
    /// A copy of the model's `config.json`, absolute or relative to the manifest: the shape of
    /// synthetic weights where the checkpoint is not there.
    pub shape: Option<PathBuf>,
    /// Longest sequence, prompt and answer together, that the vendor recommends.
    pub context_length: Option<u32>,
    /// How to serve it unless told otherwise.
    #[serde(default, skip_serializing_if = "ServingDefaults::is_empty")]
    pub serving: ServingDefaults,
    /// Bytes of the weights by number format, by arithmetic.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weight_bytes: BTreeMap<String, u64>,
    /// The least hardware it runs on.
    pub hardware: Option<HardwareFloor>,
    /// What the vendor says of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
    /// SHA-256 of each file, in hexadecimal, and its size.
    pub files: Option<FileRecords>,
    /// A short answer that a correct server must reproduce.
    pub canary: Option<Canary>,
}

/// Defaults of a server for one model.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServingDefaults {
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus size.
    pub top_p: Option<f64>,
    /// Longest sequence served.
    pub max_model_len: Option<u32>,
    /// How answers mark reasoning and tool calls, where the chat template does not show it.
    pub chat_format: Option<String>,
    /// The family in whose way it fills in the middle, where its tokens do not show it, or `none`.
    pub fill_in_the_middle: Option<String>,
}

impl ServingDefaults {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The least hardware a model runs on.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HardwareFloor {
    /// Memory of the device.
    pub device_memory_bytes: u64,
    /// What the number is made of.
    pub notes: Option<String>,
    /// Of a model that does not fit one H100: why, and what to run instead.
    pub instead: Option<String>,
}

/// Something the vendor says of a model.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// What was measured.
    pub name: String,
    /// The result. With a `benchmark`, a number is a percentage.
    pub value: ClaimValue,
    /// Where it is stated.
    pub source: String,
    /// How it was measured, if that is stated.
    pub method: Option<String>,
    /// The benchmark, by a name that programs compare: `humaneval`, `mbpp+`, `swe-bench-verified`.
    pub benchmark: Option<String>,
    /// What is counted: `pass@1`, `resolved`, `accuracy`.
    pub metric: Option<String>,
    /// What decides whether another result is comparable, as far as it is stated.
    #[serde(default, skip_serializing_if = "ClaimSettings::is_empty")]
    pub settings: ClaimSettings,
}

/// How a vendor measured.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimSettings {
    /// Tasks that the result is of.
    pub tasks: Option<u64>,
    /// Answers that were drawn for each task.
    pub samples: Option<u32>,
    /// Attempts at a task that were allowed, or how the best was chosen.
    pub attempts: Option<ClaimValue>,
    /// Examples in the prompt.
    pub shots: Option<u32>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus size.
    pub top_p: Option<f64>,
    /// The program or the scaffold around the model.
    pub harness: Option<String>,
    /// Tokens of prompt and answer together.
    pub context: Option<u64>,
    /// Tokens of an answer.
    pub max_tokens: Option<u64>,
    /// Whether and how much the model reasoned: `none`, `on`, `medium`.
    pub reasoning: Option<String>,
    /// The format of the weights.
    pub weights: Option<String>,
}

impl ClaimSettings {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A claimed result.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum ClaimValue {
    /// A number.
    Number(f64),
    /// Anything else.
    Text(String),
}

/// A prompt and the greedy answer to it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// The prompt.
    pub prompt_tokens: Vec<u32>,
    /// The answer.
    pub tokens: Vec<u32>,
    /// The log-probability of each token of the answer.
    pub logprobs: Vec<f32>,
    /// How far a log-probability may be off.
    pub tolerance: f32,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ManifestError {
    /// The manifest.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl Manifest {
    /// Reads and checks the manifest at `path`.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let error = |reason: String| ManifestError {
            path: path.to_owned(),
            reason,
        };
        let text = read_text_file(path, MANIFEST_BYTES_MAX);
        let text = text.map_err(|source| error(format!("cannot be read: {source}")))?;
        let manifest = Self::parse(&text).map_err(error)?;
        if path.file_stem().and_then(|stem| stem.to_str()) != Some(manifest.name.as_str()) {
            return Err(error(format!("it must be called {}.toml", manifest.name)));
        }
        Ok(manifest)
    }

    /// Parses and checks the text of a manifest.
    pub fn parse(text: &str) -> Result<Self, String> {
        let manifest: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        manifest.check()?;
        Ok(manifest)
    }

    /// A manifest of which no more than this is known.
    pub fn new(name: &str, architecture: &str, description: &str) -> Self {
        Self {
            name: name.to_owned(),
            architecture: architecture.to_owned(),
            model_type: None,
            repository: None,
            revision: None,
            quantization: None,
            licence: None,
            description: description.to_owned(),
            path: None,
            shape: None,
            context_length: None,
            serving: ServingDefaults::default(),
            weight_bytes: BTreeMap::new(),
            hardware: None,
            claims: Vec::new(),
            files: None,
            canary: None,
        }
    }

    /// Its text, from which [`parse`](Self::parse) makes the same again. What would not be read is refused.
    pub fn text(&self) -> Result<String, String> {
        self.check()?;
        toml::to_string(self).map_err(|error| error.to_string())
    }

    /// Where the weights are, for a manifest read from `manifest_path`.
    pub fn directory(&self, manifest_path: &Path) -> PathBuf {
        let beside = manifest_path.parent().unwrap_or_else(|| Path::new(""));
        // To join an absolute path gives that path.
        beside.join(
            self.path
                .as_deref()
                .unwrap_or_else(|| Path::new(&self.name)),
        )
    }

    /// Where the copy of the configuration is, for a manifest read from `manifest_path`.
    pub fn shape_path(&self, manifest_path: &Path) -> Option<PathBuf> {
        let beside = manifest_path.parent().unwrap_or_else(|| Path::new(""));
        self.shape.as_deref().map(|shape| beside.join(shape))
    }

    fn check(&self) -> Result<(), String> {
        if !is_model_name(&self.name) {
            let name = &self.name;
            return Err(format!(
                "the name {name:?} may have letters, digits, '.', '_' and '-'"
            ));
        }
        for (file, record) in self.files.iter().flatten() {
            let digest = &record.sha256;
            let mut components = Path::new(file).components();
            let is_plain = !file.is_empty()
                && components.all(|component| matches!(component, Component::Normal(_)));
            if !is_plain {
                return Err(format!(
                    "files: {file:?} is not a path inside the model's directory"
                ));
            }
            if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(format!(
                    "files: {file:?} needs a SHA-256 digest in hexadecimal"
                ));
            }
        }
        check_serving(&self.serving)?;
        self.claims.iter().try_for_each(Claim::check)?;
        match &self.canary {
            Some(canary) => canary.check(),
            None => Ok(()),
        }
    }
}

impl Claim {
    fn check(&self) -> Result<(), String> {
        let name = &self.name;
        let is_percentage = match self.value {
            ClaimValue::Number(value) => (0.0..=100.0).contains(&value),
            ClaimValue::Text(_) => false,
        };
        match (&self.benchmark, &self.metric) {
            (None, Some(_)) => Err(format!("claims: {name:?} has a metric and no benchmark")),
            (None, None) if !self.settings.is_empty() => {
                Err(format!("claims: {name:?} has settings and no benchmark"))
            }
            (Some(_), _) if !is_percentage => Err(format!(
                "claims: {name:?} has a benchmark, so its value must be a percentage"
            )),
            _ => Ok(()),
        }
    }
}

/// Whether a text can be a model's name: it becomes a file name and a part of addresses.
pub fn is_model_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(is_allowed)
}

/// Whether this is ORG/REPO, a repository of a hub, which becomes a part of addresses.
pub fn is_repository(text: &str) -> bool {
    const PART_BYTES_MAX: usize = 96;
    let is_part = |part: &str| is_model_name(part) && part.len() <= PART_BYTES_MAX;
    text.split_once('/')
        .is_some_and(|(organisation, name)| is_part(organisation) && is_part(name))
}

fn check_serving(serving: &ServingDefaults) -> Result<(), String> {
    if serving
        .temperature
        .is_some_and(|temperature| !(0.0..=10.0).contains(&temperature))
    {
        return Err("serving: temperature must be from 0 to 10".to_owned());
    }
    if serving
        .top_p
        .is_some_and(|top_p| !(top_p > 0.0 && top_p <= 1.0))
    {
        return Err("serving: top_p must be above 0 and at most 1".to_owned());
    }
    if serving.max_model_len == Some(0) {
        return Err("serving: max_model_len must be at least 1".to_owned());
    }
    Ok(())
}

impl Canary {
    /// Whether it can be compared with; the error says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.prompt_tokens.is_empty() || self.tokens.is_empty() {
            return Err("canary: it needs a prompt and an answer".to_owned());
        }
        if self.tokens.len() != self.logprobs.len() {
            return Err("canary: each token needs its log-probability".to_owned());
        }
        if !self
            .logprobs
            .iter()
            .all(|logprob| logprob.is_finite() && *logprob <= 0.0)
        {
            return Err("canary: a log-probability must be finite and not positive".to_owned());
        }
        if !(self.tolerance.is_finite() && self.tolerance > 0.0) {
            return Err("canary: the tolerance must be positive".to_owned());
        }
        Ok(())
    }
}
