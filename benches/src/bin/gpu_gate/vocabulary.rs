//! Checkpoints for the server that lack a vocabulary.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// A directory that is removed in the end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let name = format!("backstop-gate-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is in the directory for temporary files.
        let _ignored = fs::remove_dir_all(&self.0);
    }
}

/// Copies a checkpoint without its references and gives it a vocabulary.
pub(crate) fn copy_checkpoint(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name() != "expected.safetensors" {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    add_vocabulary(to)
}

/// Writes what other servers need of a model whose weights they make up.
pub(crate) fn write_shape(config: &Path, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut fields: Map<String, Value> = serde_json::from_slice(&fs::read(config)?)?;
    // Null stands for the default, which not everybody knows.
    fields.retain(|_, value| !value.is_null());
    fs::write(directory.join("config.json"), json!(fields).to_string())?;
    let class = json!({"tokenizer_class": "PreTrainedTokenizerFast"});
    fs::write(directory.join("tokenizer_config.json"), class.to_string())?;
    add_vocabulary(directory)
}

/// Writes a vocabulary of the size that the configuration beside it names.
fn add_vocabulary(directory: &Path) -> io::Result<()> {
    let config: Value = serde_json::from_slice(&fs::read(directory.join("config.json"))?)?;
    let tokens = config["vocab_size"].as_u64();
    let tokens = tokens.ok_or_else(|| io::Error::other("config.json has no vocab_size"))?;
    write_vocabulary(directory, tokens)
}

/// Writes a `tokenizer.json` in which every token is a text of its own, so that each token of an
/// answer is an event of its stream.
fn write_vocabulary(directory: &Path, tokens: u64) -> io::Result<()> {
    let text = |token: u64| format!("t{token} ");
    let vocabulary: Map<String, Value> = (0..tokens)
        .map(|token| (text(token), json!(token)))
        .collect();
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": text(0)},
    });
    fs::write(directory.join("tokenizer.json"), tokenizer.to_string())
}
