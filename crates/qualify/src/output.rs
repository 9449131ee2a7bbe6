//! Where results go: standard output, and files that are there whole or not at all.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::QualifyError;

/// Writes to standard output.
pub(crate) fn print(text: &str) -> Result<(), QualifyError> {
    let mut output = std::io::stdout().lock();
    let written = output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush());
    written.map_err(|error| QualifyError::new(format!("standard output: {error}")))
}

/// Writes JSON to a file, or to standard output for `-`.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), QualifyError> {
    let mut json = serde_json::to_string_pretty(value)
        .map_err(|error| QualifyError::new(error.to_string()))?;
    json.push('\n');
    if path == Path::new("-") {
        return print(&json);
    }
    write_file(path, json.as_bytes())
}

/// Writes a file beside its place, and puts it there when it is complete. Makes its folder.
pub(crate) fn write_file(path: &Path, content: &[u8]) -> Result<(), QualifyError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let written = folder
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(&part, content))
        .and_then(|()| std::fs::rename(&part, path));
    written.map_err(|error| {
        // What is there of it is of no use.
        let _ = std::fs::remove_file(&part);
        QualifyError::at(path, error)
    })
}
