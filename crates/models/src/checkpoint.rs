//! What a checkpoint looks like from outside.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Whether this is a checkpoint: a directory with a `config.json` or one GGUF file, or a GGUF file.
pub fn is_checkpoint(path: &Path) -> bool {
    path.join("config.json").is_file() || gguf_path(path).is_some()
}

/// The GGUF file that `path` is, or the only one in it if it is a directory without a `config.json`.
pub fn gguf_path(path: &Path) -> Option<PathBuf> {
    let is_gguf = |path: &Path| path.extension() == Some(OsStr::new("gguf")) && path.is_file();
    if is_gguf(path) {
        return Some(path.to_owned());
    }
    if path.join("config.json").exists() {
        return None;
    }
    let entries = path.read_dir().ok()?.flatten().map(|entry| entry.path());
    let mut files = entries.filter(|path| is_gguf(path));
    let only = files.next()?;
    files.next().is_none().then_some(only)
}
