//! The files of a model that are worth to be copied, and the copying.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use backstop_executor::format_bytes;

use crate::progress::bytes_bar;

/// Formats that are not served, however often repositories have them.
const NOT_SERVED: &[&str] = &[
    "bin", "h5", "lock", "md5", "msgpack", "mlmodel", "onnx", "ot", "pt", "pth", "tflite",
];
/// Directories below that of the model: sentence-transformers has modules in some, and their files.
const DEPTH_MAX: usize = 2;
/// More files are no model.
const FILES_MAX: usize = 10_000;
/// Room on the disk that is left to others.
const SPARE_BYTES: u64 = 64 << 20;

/// A file to be copied.
pub(super) struct File {
    /// Its path within the model's directory.
    pub(super) name: String,
    pub(super) from: PathBuf,
    pub(super) bytes: u64,
    /// The SHA-256 that it must have: a cache of the Hugging Face hub names large files by it.
    pub(super) sha256: Option<String>,
}

/// All files of a model, links to files among them.
pub(super) fn files_of(directory: &Path) -> Result<Vec<File>, String> {
    let mut files = Vec::new();
    if directory.is_file() {
        for file in backstop_models::files_of(directory) {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            add(&file, name.into_owned(), &mut files)?;
        }
    } else {
        collect(directory, "", DEPTH_MAX, &mut files)?;
    }
    match files.is_empty() {
        true => Err(format!("{} has no files", directory.display())),
        false => Ok(files),
    }
}

fn collect(
    directory: &Path,
    prefix: &str,
    depth: usize,
    files: &mut Vec<File>,
) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(failed)?;
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
        if name.starts_with('.') || NOT_SERVED.contains(&extension) {
            continue;
        }
        if path.is_dir() {
            if depth > 0 {
                collect(&path, &format!("{prefix}{name}/"), depth - 1, files)?;
            }
        } else {
            add(&path, format!("{prefix}{name}"), files)?;
        }
        if files.len() > FILES_MAX {
            return Err(format!(
                "{} has more than {FILES_MAX} files",
                directory.display()
            ));
        }
    }
    Ok(())
}

fn add(path: &Path, name: String, files: &mut Vec<File>) -> Result<(), String> {
    let failed = |reason: String| format!("{}: {reason}", path.display());
    let status = fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if !status.is_file() {
        return Err(failed("not a regular file".to_owned()));
    }
    files.push(File {
        name,
        from: path.to_owned(),
        bytes: status.len(),
        sha256: digest_in_name(path),
    });
    Ok(())
}

/// The SHA-256 that the name of a linked blob is. Small files are named by git's SHA-1, which has fewer digits.
fn digest_in_name(path: &Path) -> Option<String> {
    let blob = fs::read_link(path).ok()?;
    let name = blob.file_name()?.to_str()?;
    let is_digest = name.len() == 64 && name.bytes().all(|digit| digit.is_ascii_hexdigit());
    (is_digest && blob.parent()?.ends_with("blobs")).then(|| name.to_ascii_lowercase())
}

/// Copies them into a directory that is made anew. What is there of a copy that was cut short goes first.
pub(super) fn copy_all(files: &[File], to: &Path, bytes: u64) -> Result<(), String> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    if to.exists() {
        fs::remove_dir_all(to).map_err(|error| failed(to, error))?;
    }
    fs::create_dir_all(to).map_err(|error| failed(to, error))?;
    check_room(to, bytes)?;
    let bar = bytes_bar("copying", bytes);
    for file in files {
        let path = to.join(&file.name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
        }
        let copied = fs::copy(&file.from, &path).map_err(|error| failed(&path, error))?;
        let opened = fs::File::open(&path).and_then(|file| file.sync_all());
        opened.map_err(|error| failed(&path, error))?;
        if copied != file.bytes {
            return Err(format!(
                "{} changed while it was copied",
                file.from.display()
            ));
        }
        bar.inc(copied);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Says that the disk is too small before it is full.
fn check_room(directory: &Path, bytes: u64) -> Result<(), String> {
    let status = rustix::fs::statvfs(directory);
    let status = status.map_err(|error| format!("{}: {error}", directory.display()))?;
    let free = status.f_bavail.saturating_mul(status.f_frsize);
    match free < bytes.saturating_add(SPARE_BYTES) {
        true => Err(format!(
            "{} has {} free, and the model takes {}: make room, or set BACKSTOP_MODELS_DIR to another disk",
            directory.display(),
            format_bytes(free),
            format_bytes(bytes)
        )),
        false => Ok(()),
    }
}
