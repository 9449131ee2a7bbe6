//! The key file: one key a line, as it is or as a digest, followed by its settings.
//!
//! ```text
//! # comment
//! a-key-in-plain-text
//! sha256:9f86d081…  name=gateway requests-per-minute=600 tokens-per-minute=200000
//! sha256:60303ae2…  name=nightly max-concurrent-requests=4 lane=batch
//! sha256:fd61a03a…  name=prometheus may-see-all-keys
//! ```
//!
//! Lines with the same name are keys of the same holder, whose limits they share: so a key can be
//! replaced by another one while both are in use.

use std::fmt;
use std::path::{Path, PathBuf};

use backstop_input::read_text_file;
use sha2::{Digest, Sha256};

use crate::lane::Lane;

/// Fewest characters of a key; shorter ones can be guessed.
const KEY_CHARS_MIN: usize = 8;
/// Most characters of a key that is looked at.
pub(super) const KEY_CHARS_MAX: usize = 1024;
/// Most characters of a name.
const NAME_CHARS_MAX: usize = 64;
/// Most keys in a file; each costs every request a comparison.
const KEYS_MAX: usize = 10_000;
/// Largest key file.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// What a digest begins with.
const DIGEST_MARK: &str = "sha256:";

/// Digest of a key.
pub(super) type KeyDigest = [u8; 32];

/// Why a key file was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file could not be read, or is no file that keys stand in.
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

/// What the holder of a key may do. A limit that is absent does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySettings {
    /// What logs and metrics call the holder.
    pub name: Option<String>,
    /// Requests in a minute, after a burst of as many.
    pub requests_per_minute: Option<u32>,
    /// Prompt and generated tokens in a minute, after a burst of as many.
    pub tokens_per_minute: Option<u32>,
    /// Requests at once.
    pub max_concurrent_requests: Option<u32>,
    /// The lane of requests that do not choose one.
    pub lane: Lane,
    /// Requests may choose their lane by `priority`.
    pub may_choose_priority: bool,
    /// Metrics show what all keys use, not this one alone.
    pub may_see_all_keys: bool,
}

impl KeySettings {
    /// Sets what one word of a line says.
    fn set(&mut self, word: &str) -> Result<(), &'static str> {
        let (setting, value) = word.split_once('=').unwrap_or((word, ""));
        match setting {
            "name" => self.name = Some(name(value)?),
            "requests-per-minute" => self.requests_per_minute = Some(limit(value)?),
            "tokens-per-minute" => self.tokens_per_minute = Some(limit(value)?),
            "max-concurrent-requests" => self.max_concurrent_requests = Some(limit(value)?),
            "lane" => self.lane = value.parse().map_err(|_| LANE)?,
            "may-choose-priority" if value.is_empty() => self.may_choose_priority = true,
            "may-see-all-keys" if value.is_empty() => self.may_see_all_keys = true,
            _ => return Err(SETTINGS),
        }
        Ok(())
    }

    /// Whether a line can say this.
    pub fn check(&self) -> Result<(), &'static str> {
        self.name
            .as_deref()
            .map_or(Ok(()), |text| name(text).map(drop))?;
        let limits = [
            self.requests_per_minute,
            self.tokens_per_minute,
            self.max_concurrent_requests,
        ];
        match limits.contains(&Some(0)) {
            true => Err(LIMIT),
            false => Ok(()),
        }
    }
}

const SETTINGS: &str = "after the key come name=…, requests-per-minute=…, tokens-per-minute=…, \
                        max-concurrent-requests=…, lane=…, may-choose-priority or \
                        may-see-all-keys";
const LANE: &str = "the lane must be interactive, standard or batch";
const LIMIT: &str = "a limit must be a whole number from 1 to 4294967295";

fn name(text: &str) -> Result<String, &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.len() > NAME_CHARS_MAX || !text.chars().all(allowed) {
        return Err("a name has 1 to 64 letters, digits, dots, hyphens and underscores");
    }
    Ok(text.to_owned())
}

fn limit(text: &str) -> Result<u32, &'static str> {
    match text.parse() {
        Ok(0) | Err(_) => Err(LIMIT),
        Ok(limit) => Ok(limit),
    }
}

impl fmt::Display for KeySettings {
    /// As a line says it, after the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        words.extend(self.name.as_ref().map(|name| format!("name={name}")));
        let limits = [
            ("requests-per-minute", self.requests_per_minute),
            ("tokens-per-minute", self.tokens_per_minute),
            ("max-concurrent-requests", self.max_concurrent_requests),
        ];
        for (setting, limit) in limits {
            words.extend(limit.map(|limit| format!("{setting}={limit}")));
        }
        if self.lane != Lane::default() {
            words.push(format!("lane={}", self.lane));
        }
        if self.may_choose_priority {
            words.push("may-choose-priority".to_owned());
        }
        if self.may_see_all_keys {
            words.push("may-see-all-keys".to_owned());
        }
        formatter.write_str(&words.join(" "))
    }
}

/// The line of a key file for `key`, which does not show the key.
pub fn key_line(key: &str, settings: &KeySettings) -> String {
    let digits: String = digest(key).iter().map(|b| format!("{b:02x}")).collect();
    format!("{DIGEST_MARK}{digits} {settings}")
        .trim_end()
        .to_owned()
}

/// A key's digest.
pub(super) fn digest(key: &str) -> KeyDigest {
    Sha256::digest(key.as_bytes()).into()
}

/// Reads a key file.
pub(super) fn read(path: &Path) -> Result<Vec<(KeyDigest, KeySettings)>, KeyFileError> {
    let failed = |source| KeyFileError::Read {
        path: path.to_owned(),
        source,
    };
    parse(&read_text_file(path, FILE_BYTES_MAX).map_err(failed)?, path)
}

/// What is wrong with a key file's permissions: whoever reads it has its keys, or can try guesses
/// at those that are kept as digests.
#[cfg(unix)]
pub fn key_file_complaint(path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        format!(
            "others than its owner can read it: permissions {mode:04o} are too open, 0600 would do"
        )
    })
}

/// What is wrong with a key file's permissions, which are not looked at here.
#[cfg(not(unix))]
pub fn key_file_complaint(_path: &Path) -> Option<String> {
    None
}

/// Keys with their settings, in order.
pub(super) fn parse(
    text: &str,
    path: &Path,
) -> Result<Vec<(KeyDigest, KeySettings)>, KeyFileError> {
    let mut keys: Vec<(KeyDigest, KeySettings)> = Vec::new();
    let mut named = std::collections::BTreeMap::<String, KeySettings>::new();
    for (index, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace().peekable();
        if words.peek().is_none_or(|word| word.starts_with('#')) {
            continue;
        }
        let wrong = |reason| KeyFileError::Line {
            path: path.to_owned(),
            line: index + 1,
            reason,
        };
        let digest = words.next().map_or(Err(SETTINGS), key_digest);
        let digest = digest.map_err(wrong)?;
        let mut settings = KeySettings::default();
        words
            .try_for_each(|word| settings.set(word))
            .map_err(wrong)?;
        if let Some(name) = &settings.name
            && *named.entry(name.clone()).or_insert(settings.clone()) != settings
        {
            return Err(wrong("all keys of one name must have the same settings"));
        }
        keys.push((digest, settings));
    }
    match keys.len() {
        0 => Err(KeyFileError::Empty(path.to_owned())),
        1..=KEYS_MAX => Ok(keys),
        _ => Err(KeyFileError::TooMany(path.to_owned())),
    }
}

/// The digest that the first word of a line is, or is the key of.
fn key_digest(word: &str) -> Result<KeyDigest, &'static str> {
    const BAD_DIGEST: &str = "a digest is sha256: and 64 hexadecimal digits";
    let Some(digits) = word.strip_prefix(DIGEST_MARK) else {
        return match complaint(word) {
            Some(reason) => Err(reason),
            None => Ok(digest(word)),
        };
    };
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(BAD_DIGEST);
    }
    for (byte, place) in bytes.iter_mut().zip(0..) {
        let pair = &digits[2 * place..2 * place + 2];
        *byte = u8::from_str_radix(pair, 16).map_err(|_| BAD_DIGEST)?;
    }
    Ok(bytes)
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

#[cfg(test)]
mod tests;
