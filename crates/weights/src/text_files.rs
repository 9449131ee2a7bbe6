//! Reads the small text files beside the weights, with a limit on each.

use std::io::ErrorKind;
use std::path::Path;

use backstop_input::{ValueAllowance, read_text_file};
use serde_json::{Map, Value};

use crate::WeightsError;

/// Longest file read whole, except the shard index, which grows with the number of tensors.
pub(crate) const TEXT_BYTES_MAX: u64 = 16 << 20;
/// Longest shard index.
pub(crate) const INDEX_BYTES_MAX: u64 = 128 << 20;
/// Values and keys of a JSON file. An index has two for each tensor.
const VALUES_MAX: usize = 4 << 20;

/// The text of a file, or `None` if there is no such file.
pub(crate) fn read_text(path: &Path, bytes_max: u64) -> Result<Option<String>, WeightsError> {
    match read_text_file(path, bytes_max) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            Err(WeightsError::malformed(path, error.to_string()))
        }
        Err(error) => Err(WeightsError::io(path, error)),
    }
}

/// The JSON object in a file, or `None` if there is no such file.
pub(crate) fn read_object(
    path: &Path,
    bytes_max: u64,
) -> Result<Option<Map<String, Value>>, WeightsError> {
    let Some(text) = read_text(path, bytes_max)? else {
        return Ok(None);
    };
    match ValueAllowance::new(VALUES_MAX).parse(text.as_bytes()) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(_) => Err(WeightsError::malformed(path, "not a JSON object")),
        Err(error) => Err(WeightsError::malformed(
            path,
            format!("not valid JSON: {error}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_cannot_take_much_memory() {
        let name = format!("backstop-values-{}.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, format!("{{\"a\":[{}0]}}", "0,".repeat(VALUES_MAX))).unwrap();
        let error = read_object(&path, TEXT_BYTES_MAX).unwrap_err().to_string();
        assert!(error.contains("too many values"), "{error}");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        let error = read_object(Path::new("/dev/zero"), TEXT_BYTES_MAX).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
        assert!(read_text(Path::new("/nowhere"), 1).unwrap().is_none());
    }
}
