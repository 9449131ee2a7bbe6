//! Lines: sealed with the hash that continues the chain, and read again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backstop_protocol::rfc3339;
use serde::{Deserialize, Serialize};

use crate::entry::Entry;
use crate::hash::Hash;

/// Longest line that is read. Writers stay far below: what grows in an entry, its texts, is bounded.
pub(crate) const LINE_BYTES_MAX: usize = 2 << 20;
/// What stands between a line's own text and its hash.
const BEFORE_HASH: &[u8] = b",\"hash\":\"";
/// The rest of a line: the hash's digits, and what closes the object.
const HASH_BYTES: usize = 64 + 2;

/// Where the chain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The number of the last line; 0 before the first.
    pub(crate) sequence: u64,
    /// The hash of the last line.
    pub(crate) hash: Hash,
}

#[derive(Serialize)]
struct Numbered<'a> {
    sequence: u64,
    time: String,
    #[serde(flatten)]
    entry: &'a Entry,
}

impl Chain {
    /// Before the first line of all.
    pub(crate) const BEGIN: Self = Self {
        sequence: 0,
        hash: Hash::NONE,
    };

    /// The number of the next line. Only a file that was made up comes to the largest.
    pub(crate) fn next(&self) -> u64 {
        self.sequence.saturating_add(1)
    }

    /// The line, without its line break, that says `entry` next, and where the chain is then.
    pub(crate) fn seal(
        &self,
        time: SystemTime,
        entry: &Entry,
    ) -> Result<(Vec<u8>, Self), serde_json::Error> {
        let sequence = self.next();
        let numbered = Numbered {
            sequence,
            time: moment(time),
            entry,
        };
        let mut line = serde_json::to_vec(&numbered)?;
        // The hash comes before what closes the object.
        line.pop();
        let hash = self.hash.then(&line);
        line.extend_from_slice(BEFORE_HASH);
        line.extend_from_slice(hash.to_string().as_bytes());
        line.extend_from_slice(b"\"}");
        Ok((line, Self { sequence, hash }))
    }
}

/// A time as RFC 3339 writes it in UTC, with milliseconds.
fn moment(time: SystemTime) -> String {
    let since_1970: Duration = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = rfc3339(since_1970.as_secs());
    let seconds = seconds.trim_end_matches('Z');
    format!("{seconds}.{:03}Z", since_1970.subsec_millis())
}

/// A line that was read: an entry by its form, whether or not it follows from the one before.
#[derive(Debug)]
pub(crate) struct ReadLine<'a> {
    /// What its hash vouches for.
    text: &'a [u8],
    pub(crate) fields: Fields,
}

/// What is read of lines.
#[derive(Debug, Deserialize)]
pub(crate) struct Fields {
    pub(crate) sequence: u64,
    pub(crate) time: String,
    pub(crate) kind: String,
    /// Of a `file`.
    pub(crate) previous: Option<Hash>,
    /// Of `lost` and `unsynced`.
    pub(crate) entries: Option<u64>,
    /// Of a `torn`.
    pub(crate) bytes: Option<u64>,
    /// Of a `torn`.
    pub(crate) sha256: Option<Hash>,
    pub(crate) hash: Hash,
}

impl<'a> ReadLine<'a> {
    /// Reads a line, without its line break; `None` if it is no entry.
    pub(crate) fn read(line: &'a [u8]) -> Option<Self> {
        let end = line.len().checked_sub(HASH_BYTES)?;
        let text = line[..end].strip_suffix(BEFORE_HASH)?;
        let fields = serde_json::from_slice(line).ok()?;
        Some(Self { text, fields })
    }

    /// Whether it follows from where the chain is.
    pub(crate) fn follows(&self, chain: &Chain) -> bool {
        self.fields.sequence == chain.next() && self.fields.hash == chain.hash.then(self.text)
    }

    /// Where the chain is after it, if it is right.
    pub(crate) fn chain(&self) -> Chain {
        Chain {
            sequence: self.fields.sequence,
            hash: self.fields.hash,
        }
    }
}
