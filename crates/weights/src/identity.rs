//! Tells checkpoints apart without reading them as a whole.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use backstop_input::read_file;
use backstop_models::{FileRecords, hexadecimal};
use sha2::{Digest, Sha256};

use crate::chat_templates;
use crate::shard::Shard;
use crate::shards::file_name;
use crate::{Checkpoint, TokenizerSource, WeightsError};

/// Digits of a digest that are shown. Enough for people who compare, not against forgers.
const SHOWN_DIGITS: usize = 16;
/// A weight file is looked at in so many places, from its beginning to its end.
const SAMPLES: u64 = 16;
/// Bytes that are read there.
const SAMPLE_BYTES: u64 = 16 << 10;

/// Longest tokenizer, as for whoever loads it.
const TOKENIZER_BYTES_MAX: u64 = 64 << 20;

/// Files that may add to a vocabulary, or be a part of one.
const BESIDE_TOKENIZER: [&str; 4] = [
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// A digest over named parts.
#[derive(Clone, Debug, Default)]
pub struct Fingerprint(Sha256);

impl Fingerprint {
    /// Of no parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a part. What belongs to which part counts, not the bytes in a row alone.
    pub fn add(&mut self, name: &str, part: impl AsRef<[u8]>) {
        for bytes in [name.as_bytes(), part.as_ref()] {
            self.0.update((bytes.len() as u64).to_le_bytes());
            self.0.update(bytes);
        }
    }

    /// The first `digits` hexadecimal digits of the SHA-256, of which there are 64.
    pub fn digits(self, digits: usize) -> String {
        first_digits(&self.0.finalize(), digits)
    }
}

fn first_digits(digest: &[u8], digits: usize) -> String {
    let mut text = hexadecimal(digest);
    text.truncate(digits);
    text
}

impl Checkpoint {
    /// What the weights are, in 16 hexadecimal digits.
    ///
    /// If `recorded`, which has the SHA-256 of each file by its name, has those of all weight files,
    /// it is the SHA-256 of what `sha256sum` prints for them, in the order of their names. Files
    /// that were changed since are not noticed: that would mean to read them.
    ///
    /// Otherwise it is a digest of the files' names and lengths, of the list of their tensors, and
    /// of pieces in 16 places of each file.
    pub fn weights_digest(&self, recorded: Option<&FileRecords>) -> Result<String, WeightsError> {
        match recorded.and_then(|recorded| self.recorded_digest(recorded)) {
            Some(digest) => Ok(digest),
            None => self.sampled_digest(),
        }
    }

    fn recorded_digest(&self, recorded: &FileRecords) -> Option<String> {
        let mut lines = BTreeMap::new();
        for shard in &self.shards.files {
            let name = file_name(&shard.path).into_owned();
            let digest = recorded.get(&name)?.sha256.to_ascii_lowercase();
            lines.insert(name.clone(), format!("{digest}  {name}\n"));
        }
        let listing: String = lines.into_values().collect();
        let known = !listing.is_empty();
        known.then(|| first_digits(&Sha256::digest(listing), SHOWN_DIGITS))
    }

    /// When each weight file was last changed.
    pub fn modified(&self) -> std::io::Result<Vec<SystemTime>> {
        self.shards.files.iter().map(Shard::modified).collect()
    }

    fn sampled_digest(&self) -> Result<String, WeightsError> {
        let mut fingerprint = Fingerprint::new();
        let mut shards: Vec<&Shard> = self.shards.files.iter().collect();
        shards.sort_by(|a, b| a.path.cmp(&b.path));
        for shard in shards {
            let io_error = |source| WeightsError::io(&shard.path, source);
            let bytes = shard.bytes().map_err(io_error)?;
            fingerprint.add("file", file_name(&shard.path).as_bytes());
            fingerprint.add("bytes", bytes.to_le_bytes());
            let length = bytes.min(SAMPLE_BYTES);
            let mut sample = vec![0; length as usize];
            for place in 0..SAMPLES {
                // The last one ends with the file.
                let offset = u128::from(bytes - length) * u128::from(place);
                let offset = (offset / u128::from(SAMPLES - 1)) as u64;
                shard.read_at(&mut sample, offset).map_err(io_error)?;
                fingerprint.add("sample", &sample);
            }
        }
        for tensor in self.tensors() {
            let (element, shape) = (tensor.element_type, &tensor.shape);
            let place = tensor.position().1;
            fingerprint.add(&tensor.name, format!("{element:?} {shape:?} {place}"));
        }
        Ok(fingerprint.digits(SHOWN_DIGITS))
    }

    /// Takes in the text files that answers depend on: configuration, defaults, template, tokenizer.
    pub fn add_texts(&self, fingerprint: &mut Fingerprint) -> Result<(), WeightsError> {
        let config = serde_json::to_vec(self.config()).unwrap_or_default();
        fingerprint.add("config", config);
        fingerprint.add("generation", format!("{:?}", self.generation_config()));
        fingerprint.add("special tokens", format!("{:?}", self.special_tokens()));
        fingerprint.add("template", self.default_chat_template().unwrap_or_default());
        for (name, text) in self.chat_templates() {
            if name != chat_templates::DEFAULT {
                fingerprint.add(&format!("template {name}"), text);
            }
        }
        match self.tokenizer() {
            TokenizerSource::File(path) => {
                fingerprint.add("tokenizer", tokenizer_bytes(&path)?);
                for name in BESIDE_TOKENIZER {
                    let path = self.directory().join(name);
                    fingerprint.add(name, tokenizer_bytes(&path)?);
                }
            }
            TokenizerSource::Embedded(tokenizer) => {
                fingerprint.add("tokenizer", format!("{tokenizer:?}"));
            }
        }
        Ok(())
    }
}

/// The bytes of a file, none if there is no such file.
fn tokenizer_bytes(path: &Path) -> Result<Vec<u8>, WeightsError> {
    match read_file(path, TOKENIZER_BYTES_MAX) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(WeightsError::io(path, error)),
    }
}

#[cfg(test)]
mod tests;
