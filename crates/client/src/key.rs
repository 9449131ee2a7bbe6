//! Keys in files, so that they stand in no command line.

use std::path::Path;

use crate::ClientError;

const KEY_BYTES_MAX: u64 = 64 << 10;

/// The key in a file, which is its first line.
///
/// # Errors
///
/// If the file cannot be read, or its first line is empty.
pub fn read_key(path: &Path) -> Result<String, ClientError> {
    let text = backstop_input::read_text_file(path, KEY_BYTES_MAX)
        .map_err(|error| ClientError::at(path, error))?;
    match text.lines().next().map(str::trim) {
        Some(key) if !key.is_empty() => Ok(key.to_owned()),
        _ => Err(ClientError::at(path, "its first line should be a key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_first_line() {
        let path = std::env::temp_dir().join(format!("backstop-key-{}", std::process::id()));
        for (text, expected) in [("key\n", Some("key")), (" key \nnote\n", Some("key"))] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_key(&path).ok().as_deref(), expected);
        }
        for text in ["", "\nkey\n"] {
            std::fs::write(&path, text).unwrap();
            assert!(read_key(&path).is_err(), "{text:?}");
        }
        std::fs::remove_file(path).unwrap();
    }
}
