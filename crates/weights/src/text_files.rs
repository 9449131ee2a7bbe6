//! Reads the small text files beside the weights, with a limit on each.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use crate::WeightsError;

/// Longest file read whole, except the shard index, which grows with the number of tensors.
pub(crate) const TEXT_BYTES_MAX: u64 = 64 << 20;
/// Longest shard index.
pub(crate) const INDEX_BYTES_MAX: u64 = 128 << 20;

/// The text of a file, or `None` if there is no such file.
pub(crate) fn read_text(path: &Path, bytes_max: u64) -> Result<Option<String>, WeightsError> {
    match std::fs::metadata(path) {
        Ok(status) if status.is_file() => {}
        Ok(_) => return Err(WeightsError::malformed(path, "not a regular file")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(WeightsError::io(path, error)),
    }
    let file = File::open(path).map_err(|source| WeightsError::io(path, source))?;
    let mut bytes = Vec::new();
    // One byte more than allowed, to notice a longer file.
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| WeightsError::io(path, source))?;
    if bytes.len() as u64 > bytes_max {
        return Err(WeightsError::malformed(
            path,
            format!("longer than {bytes_max} bytes"),
        ));
    }
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|error| WeightsError::malformed(path, format!("not UTF-8: {error}")))
}

/// The JSON object in a file, or `None` if there is no such file.
pub(crate) fn read_object(
    path: &Path,
    bytes_max: u64,
) -> Result<Option<Map<String, Value>>, WeightsError> {
    let Some(text) = read_text(path, bytes_max)? else {
        return Ok(None);
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(_) => Err(WeightsError::malformed(path, "not a JSON object")),
        Err(error) => Err(WeightsError::malformed(
            path,
            format!("not valid JSON: {error}"),
        )),
    }
}
