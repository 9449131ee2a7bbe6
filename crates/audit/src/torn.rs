//! Parts of entries: what a disk took of a line before it had no more room, or a process before it was killed.

use sha2::{Digest, Sha256};

use crate::entry::Entry;
use crate::hash::Hash;

/// Everything from the last good line on. It stays where it is; an entry says later how long it is, and its digest.
///
/// The line break at its end, if there is one, is not counted: it ends the line before the entry that tells of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Torn {
    bytes: u64,
    hasher: Sha256,
    /// There is a line break, which counts if anything follows it.
    pub(crate) ends_line: bool,
}

impl Torn {
    /// More of it.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if std::mem::take(&mut self.ends_line) {
            self.add(b"\n");
        }
        match bytes.strip_suffix(b"\n") {
            Some(bytes) => {
                self.ends_line = true;
                self.add(bytes);
            }
            None => self.add(bytes),
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hasher.update(bytes);
    }

    /// Its length and its digest.
    pub(crate) fn told(&self) -> (u64, Hash) {
        (self.bytes, Hash::finish(self.hasher.clone()))
    }

    /// What tells of it.
    pub(crate) fn entry(&self) -> Entry {
        let (bytes, sha256) = self.told();
        Entry::Torn { bytes, sha256 }
    }
}
