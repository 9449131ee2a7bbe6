//! What a checkpoint looks like from outside.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::parts::NumberedParts;

/// Whether this is a checkpoint: a directory with a `config.json` or one GGUF file, or a GGUF file.
pub fn is_checkpoint(path: &Path) -> bool {
    path.join("config.json").is_file() || gguf_path(path).is_some()
}

/// The GGUF file that `path` is, or the only one in it if it is a directory without a `config.json`. Of a file in several
/// parts it is the first that is there; to open it finds what is missing.
pub fn gguf_path(path: &Path) -> Option<PathBuf> {
    let is_gguf = |path: &Path| path.extension() == Some(OsStr::new("gguf")) && path.is_file();
    if is_gguf(path) {
        return Some(first_part(path));
    }
    if path.join("config.json").exists() {
        return None;
    }
    let entries = path.read_dir().ok()?.flatten().map(|entry| entry.path());
    let mut files = entries.filter(|path| is_gguf(path));
    let only = first_part(&files.next()?);
    files.all(|file| first_part(&file) == only).then_some(only)
}

/// The first part that is there of what a file is a part of; the file itself if it is none.
fn first_part(file: &Path) -> PathBuf {
    let parts = NumberedParts::of(file).map(|parts| parts.paths());
    let mut parts = parts.into_iter().flatten();
    let first = parts.find(|part| part.is_file());
    first.unwrap_or_else(|| file.to_owned())
}

/// The files of a model that is a file: all parts, if it has several.
pub fn files_of(file: &Path) -> Vec<PathBuf> {
    let parts = NumberedParts::of(file).map(|parts| parts.paths());
    parts.unwrap_or_else(|| vec![file.to_owned()])
}
