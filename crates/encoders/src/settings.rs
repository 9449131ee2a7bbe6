//! The small files beside a checkpoint, read within limits.

use std::io::ErrorKind;
use std::path::{Component, Path};

use backstop_input::{ValueAllowance, read_file};
use serde_json::{Map, Value};

use crate::EncoderError;

/// Longest file.
const BYTES_MAX: u64 = 16 << 20;
/// Values and keys of a file; those with all added tokens have some thousand.
const VALUES_MAX: usize = 1 << 20;

pub(crate) fn file_error(path: &Path, reason: impl Into<String>) -> EncoderError {
    EncoderError::File {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

/// A file of JSON, if it is there.
pub(crate) fn read_json(path: &Path) -> Result<Option<Value>, EncoderError> {
    let bytes = match read_file(path, BYTES_MAX) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| file_error(path, error.to_string()))?,
    };
    let parsed = ValueAllowance::new(VALUES_MAX).parse(&bytes);
    let value = parsed.map_err(|error| file_error(path, format!("not valid JSON: {error}")))?;
    Ok(Some(value))
}

/// As [`read_json`], for files that hold an object. An absent one is empty.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>, EncoderError> {
    match read_json(path)? {
        None => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object),
        Some(_) => Err(file_error(path, "not a JSON object")),
    }
}

/// Whether a path that a file names stays within the checkpoint.
pub(crate) fn is_inside(path: &Path) -> bool {
    let mut parts = path.components();
    parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// A length that a file gives. The numbers that stand for "no limit" are beyond what an integer holds.
pub(crate) fn length(value: Option<&Value>) -> Option<usize> {
    let length = value?.as_u64()?;
    usize::try_from(length).ok().filter(|&length| length > 0)
}
