//! The answers that models without a recorded canary gave at their first good start.
//!
//! They lie beside the weights, or where the settings say, in a file of their own: manifests are for people to write. It is
//! opened before the process gives up writing files, and only ever added to.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use backstop_models::{Canary, ModelLocator};
use serde::{Deserialize, Serialize};

use crate::args::{LoadFormat, ServeArgs};
use crate::load::DEFAULT_MODEL;

/// Its name.
const FILE_NAME: &str = "backstop-canary.toml";
/// Bytes that are read of it: hundreds of answers.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// An open file of recorded answers.
#[derive(Debug)]
pub(crate) struct CanaryFile {
    path: PathBuf,
    file: File,
}

/// What an answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct CanaryKey {
    /// Digest of the weights.
    pub(crate) weights: String,
    /// Digest of the configuration, and of what overrides it.
    pub(crate) configuration: String,
    /// Number format of the KV cache.
    pub(crate) kv_cache: String,
    /// Where it is computed.
    pub(crate) device: String,
}

/// Where a model without a recorded canary keeps its own, for settings that do not say: beside its weights. There a signature
/// would no longer be one of all files.
fn directory(args: &ServeArgs) -> Option<PathBuf> {
    if args.model.load_format == Some(LoadFormat::Synthetic) {
        return None;
    }
    let wanted = match &args.model.model {
        Some(model) => model,
        None if args.encoders.are_named() => return None,
        None => DEFAULT_MODEL,
    };
    // Why it is not found, whoever loads it says.
    let located = ModelLocator::from_environment().locate(wanted).ok()?;
    let manifest = located.manifest.as_ref().map(|(_, manifest)| manifest);
    if manifest.is_some_and(|manifest| manifest.canary.is_some()) {
        return None;
    }
    match &args.standby.canary_directory {
        Some(directory) => Some(directory.clone()),
        None if args.model.integrity.require_signature.is_some() => None,
        None if located.directory.is_file() => located.directory.parent().map(Path::to_owned),
        None => Some(located.directory),
    }
}

/// The contents of a file.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Contents {
    #[serde(default)]
    canary: Vec<Entry>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Entry {
    of: CanaryKey,
    answer: Canary,
}

impl CanaryFile {
    /// The file of the model that is to be served, if it wants one.
    pub(crate) fn of(args: &ServeArgs) -> Option<Self> {
        Self::open(&directory(args)?)
    }

    /// The file of this directory, which is made if there is none. `None` if it cannot be written.
    fn open(directory: &Path) -> Option<Self> {
        let path = directory.join(FILE_NAME);
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path);
        match file {
            Ok(file) => Some(Self { path, file }),
            Err(error) => {
                tracing::info!(
                    "{}: {error}: the model's answer of this start is not kept for the next; --canary-directory names \
                     another place",
                    path.display()
                );
                None
            }
        }
    }

    /// The answer that was recorded for this model, if there is one.
    pub(crate) fn recorded(&mut self, key: &CanaryKey) -> Option<Canary> {
        match self.read() {
            Ok(contents) => {
                let mut entries = contents.canary.into_iter();
                let entry = entries.find(|entry| entry.of == *key)?;
                tracing::info!("comparing with the canary in {}", self.path.display());
                Some(entry.answer)
            }
            Err(reason) => {
                tracing::warn!(
                    "{}: {reason}: what it recorded is not compared with; delete it, and the next start records anew",
                    self.path.display()
                );
                None
            }
        }
    }

    fn read(&mut self) -> Result<Contents, String> {
        let mut text = String::new();
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| (&self.file).take(FILE_BYTES_MAX).read_to_string(&mut text))
            .map_err(|error| error.to_string())?;
        let contents: Contents = toml::from_str(&text).map_err(|error| error.to_string())?;
        for entry in &contents.canary {
            entry.answer.check()?;
        }
        Ok(contents)
    }

    /// Adds an answer.
    pub(crate) fn record(mut self, key: CanaryKey, canary: Canary) {
        let entry = Contents {
            canary: vec![Entry {
                of: key,
                answer: canary,
            }],
        };
        let written = toml::to_string(&entry)
            .map_err(|error| error.to_string())
            .and_then(|text| {
                let text = format!("{text}\n");
                let written = self.file.write_all(text.as_bytes());
                written
                    .and_then(|()| self.file.sync_all())
                    .map_err(|error| error.to_string())
            });
        match written {
            Ok(()) => tracing::info!(
                "recorded this start's answer in {}: later starts must give it too",
                self.path.display()
            ),
            Err(reason) => tracing::warn!("{}: {reason}", self.path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(weights: &str) -> CanaryKey {
        CanaryKey {
            weights: weights.to_owned(),
            configuration: "c".to_owned(),
            kv_cache: "BF16".to_owned(),
            device: "the CPU".to_owned(),
        }
    }

    fn canary(token: u32) -> Canary {
        Canary {
            prompt_tokens: vec![1, 2],
            tokens: vec![token],
            logprobs: vec![-0.5],
            tolerance: 0.05,
        }
    }

    #[test]
    fn a_recorded_answer_is_found_by_what_it_depends_on() {
        let directory =
            std::env::temp_dir().join(format!("backstop-canary-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let open = || CanaryFile::open(&directory).expect("a file");
        assert_eq!(open().recorded(&key("a")), None);
        open().record(key("a"), canary(7));
        open().record(key("b"), canary(8));
        let mut again = open();
        assert_eq!(again.recorded(&key("a")), Some(canary(7)));
        assert_eq!(again.recorded(&key("b")), Some(canary(8)));
        assert_eq!(again.recorded(&key("c")), None);
        std::fs::write(directory.join(FILE_NAME), "[[canary]]\nweights = 3\n").expect("written");
        assert_eq!(again.recorded(&key("a")), None, "damaged");
        std::fs::remove_dir_all(directory).expect("removed");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_no_error() {
        assert!(CanaryFile::open(Path::new("/proc/nowhere")).is_none());
    }
}
