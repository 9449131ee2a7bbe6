//! What exactly was qualified: digests, configuration, device.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use backstop_models::Manifest;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::args::InputArgs;
use crate::QualifyError;
use crate::record::Subject;

const PIECE_BYTES: usize = 1 << 20;

/// What was asked, as far as it or its operator says so.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Identity {
    #[serde(flatten)]
    pub(super) subject: Subject,
    /// What the operator says it ran on.
    pub(super) hardware: Option<String>,
    /// The format of the weights that were served.
    pub(super) weights_format: Option<String>,
    /// SHA-256 of files, by what they are and their names: weights, the server's program.
    pub(super) files: BTreeMap<String, String>,
}

impl Identity {
    pub(super) fn of(
        subject: Subject,
        manifest: Option<&Manifest>,
        inputs: &InputArgs,
    ) -> Result<Self, QualifyError> {
        let mut files = BTreeMap::new();
        let weights = inputs.weights.iter().map(|path| ("weights", path));
        let binary = inputs.binary.iter().map(|path| ("program", path));
        for (what, path) in weights.chain(binary) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            files.insert(format!("{what}: {name}"), sha256(path)?);
        }
        if inputs.weights.is_empty() {
            let records = manifest.and_then(|manifest| manifest.files.as_ref());
            for (name, record) in records.into_iter().flatten() {
                files.insert(format!("manifest: {name}"), record.sha256.to_lowercase());
            }
        }
        let from_manifest = manifest.and_then(|manifest| manifest.quantization.clone());
        Ok(Self {
            subject,
            hardware: inputs.hardware.clone(),
            weights_format: inputs.weights_format.clone().or(from_manifest),
            files,
        })
    }

    /// A text of the entry of `/v1/models`.
    pub(super) fn entry(&self, pointer: &str) -> Option<String> {
        text(self.subject.entry.as_ref()?.pointer(pointer)?)
    }

    /// A text of `/version`.
    pub(super) fn version(&self, pointer: &str) -> Option<String> {
        text(self.subject.version.as_ref()?.pointer(pointer)?)
    }

    /// Tokens of prompt and answer together.
    pub(super) fn context(&self) -> Option<u64> {
        let entry = self.subject.entry.as_ref()?;
        let names = ["max_model_len", "context_length", "context_window"];
        names.iter().find_map(|name| entry[*name].as_u64())
    }

    /// The digest that Backstop's answers carry: enough to compare, not against forgers.
    pub(super) fn served_weights(&self) -> Option<&str> {
        let (_, digest) = self.subject.backstop_model.as_deref()?.rsplit_once('@')?;
        Some(digest)
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Of a file of any size.
pub(super) fn sha256(path: &Path) -> Result<String, QualifyError> {
    let at = |error| QualifyError::at(path, error);
    let mut file = File::open(path).map_err(at)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = file.read(&mut piece).map_err(at)?;
        if read == 0 {
            return Ok(backstop_models::hexadecimal(&hash.finalize()));
        }
        hash.update(&piece[..read]);
    }
}
