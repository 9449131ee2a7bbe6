//! The keys that clients present: read from a file, kept as digests, compared in constant time.

use std::fmt;
use std::path::{Path, PathBuf};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// Fewest characters of a key; shorter ones can be guessed.
const KEY_CHARS_MIN: usize = 8;
/// Most characters of a key that is looked at.
const KEY_CHARS_MAX: usize = 1024;
/// Most keys in a file; each costs every request a comparison.
const KEYS_MAX: usize = 10_000;

/// Why a key file was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file could not be read.
    #[error("cannot read the key file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A line is no key. The line itself is not repeated, for it may be most of a key.
    #[error("line {line} of the key file {}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file holds no key at all, which would lock everybody out.
    #[error("the key file {} holds no key", .0.display())]
    Empty(PathBuf),
    /// The file holds more keys than can be compared for each request.
    #[error("the key file {} holds more than {KEYS_MAX} keys", .0.display())]
    TooMany(PathBuf),
}

/// Digests of the accepted keys.
#[derive(Clone)]
pub struct KeySet {
    digests: Vec<[u8; 32]>,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeySet({} keys)", self.digests.len())
    }
}

impl KeySet {
    /// Keys given one by one.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            digests: keys.into_iter().map(digest).collect(),
        }
    }

    /// Reads a file with one key a line. Empty lines and lines that begin with `#` are skipped.
    pub fn from_file(path: &Path) -> Result<Self, KeyFileError> {
        let text = std::fs::read_to_string(path).map_err(|source| KeyFileError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::from_text(&text, path)
    }

    fn from_text(text: &str, path: &Path) -> Result<Self, KeyFileError> {
        let mut digests = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let key = line.trim();
            if key.is_empty() || key.starts_with('#') {
                continue;
            }
            if let Some(reason) = complaint(key) {
                return Err(KeyFileError::Line {
                    path: path.to_owned(),
                    line: index + 1,
                    reason,
                });
            }
            digests.push(digest(key));
        }
        match digests.len() {
            0 => Err(KeyFileError::Empty(path.to_owned())),
            1..=KEYS_MAX => Ok(Self { digests }),
            _ => Err(KeyFileError::TooMany(path.to_owned())),
        }
    }

    /// Whether a request's headers carry an accepted key, as `Authorization: Bearer` or as
    /// `x-api-key`.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        presented(headers).is_some_and(|key| self.contains(key))
    }

    /// Compares with every key, so that the time taken tells nothing about which one came close.
    fn contains(&self, key: &str) -> bool {
        let presented = digest(key);
        let found = self.digests.iter().fold(Choice::from(0), |found, known| {
            found | known.as_slice().ct_eq(&presented)
        });
        found.into()
    }
}

fn complaint(key: &str) -> Option<&'static str> {
    if key.len() < KEY_CHARS_MIN {
        Some("a key has at least 8 characters")
    } else if key.len() > KEY_CHARS_MAX {
        Some("a key has at most 1024 characters")
    } else if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        Some("a key consists of visible ASCII characters without spaces")
    } else {
        None
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    bearer(headers)
        .or_else(|| {
            headers
                .get("x-api-key")
                .and_then(|value| value.to_str().ok())
        })
        .map(str::trim)
        .filter(|key| !key.is_empty() && key.len() <= KEY_CHARS_MAX)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    fn parse(text: &str) -> Result<KeySet, KeyFileError> {
        KeySet::from_text(text, Path::new("keys"))
    }

    #[test]
    fn keys_are_found_in_either_header() {
        let keys = parse("# operators\n\nfirst-key-1\n second-key-2 \n").unwrap();
        assert!(keys.admits(&headers("authorization", "Bearer first-key-1")));
        assert!(keys.admits(&headers("authorization", "bearer second-key-2")));
        assert!(keys.admits(&headers("x-api-key", "second-key-2")));
        assert!(!keys.admits(&headers("x-api-key", "second-key-")));
        assert!(!keys.admits(&headers("authorization", "Basic first-key-1")));
        assert!(!keys.admits(&HeaderMap::new()));
    }

    #[test]
    fn bad_files_are_named_without_showing_keys() {
        assert!(matches!(parse("# nothing\n"), Err(KeyFileError::Empty(_))));
        let message = parse("good-key-1\nshort\n").unwrap_err().to_string();
        assert!(message.starts_with("line 2 "), "{message}");
        assert!(!message.contains("short"));
        assert!(parse("with some space").is_err());
        assert!(KeySet::from_file(Path::new("/nowhere/keys")).is_err());
    }

    #[test]
    fn debug_output_hides_everything_but_the_count() {
        assert_eq!(
            format!("{:?}", parse("first-key-1").unwrap()),
            "KeySet(1 keys)"
        );
    }
}
