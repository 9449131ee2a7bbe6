//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::QualifyError;

const JSON_BYTES_MAX: u64 = 64 << 20;

/// Writes JSON for people, under another name first.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), QualifyError> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|error| QualifyError::at(path, error))?;
    text.push(b'\n');
    create_parent(path)?;
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let write = || {
        let mut file = File::create(&unfinished)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().map_err(|error| QualifyError::at(path, error))
}

/// Reads JSON, or nothing where there is no such file.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, QualifyError> {
    let bytes = match backstop_input::read_file(path, JSON_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(QualifyError::at(path, error)),
    };
    let value = serde_json::from_slice(&bytes);
    value
        .map(Some)
        .map_err(|error| QualifyError::at(path, format!("it is not what a run left: {error}")))
}

pub(super) fn create_parent(path: &Path) -> Result<(), QualifyError> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(|error| QualifyError::at(parent, error)),
        None => Ok(()),
    }
}
