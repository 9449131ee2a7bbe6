//! What is left to do, for several threads.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::journal::DoneFiles;
use crate::listing::RemoteFile;

/// A part of a file, from its first byte to before its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) number: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Part {
    pub(crate) fn bytes(&self) -> u64 {
        self.end - self.start
    }
}

/// How many bytes of all that is to be fetched are missing.
pub(crate) fn bytes_left(
    files: &BTreeMap<String, RemoteFile>,
    done: &DoneFiles,
    part_bytes: u64,
) -> u64 {
    let left = |(place, file): (&String, &RemoteFile)| match done.get(place) {
        Some(done) if done.sha256.is_some() => 0,
        Some(done) => {
            let length = |number: &u64| {
                let start = number.saturating_mul(part_bytes);
                file.bytes.saturating_sub(start).min(part_bytes)
            };
            let there = done.parts.iter().map(length).sum();
            file.bytes.saturating_sub(there)
        }
        None => file.bytes,
    };
    files.iter().map(left).sum()
}

/// The parts of a file of so many bytes.
fn parts(bytes: u64, part_bytes: u64) -> impl Iterator<Item = Part> {
    (0..bytes.div_ceil(part_bytes)).map(move |number| {
        let start = number * part_bytes;
        Part {
            number,
            start,
            end: bytes.min(start.saturating_add(part_bytes)),
        }
    })
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task<'a> {
    Fetch(&'a str, Part),
    /// All parts are there.
    Check(&'a str),
}

/// What is left to do.
#[derive(Debug)]
pub(crate) struct Tasks<'a> {
    queue: Mutex<VecDeque<Task<'a>>>,
    parts_left: Mutex<BTreeMap<&'a str, u64>>,
}

impl<'a> Tasks<'a> {
    pub(crate) fn new(
        files: &'a BTreeMap<String, RemoteFile>,
        done: &DoneFiles,
        part_bytes: u64,
    ) -> Self {
        let (mut queue, mut parts_left) = (VecDeque::new(), BTreeMap::new());
        for (place, file) in files {
            let done = done.get(place);
            if done.is_some_and(|done| done.sha256.is_some()) {
                continue;
            }
            let is_left = |part: &Part| !done.is_some_and(|done| done.parts.contains(&part.number));
            let left: Vec<Part> = parts(file.bytes, part_bytes).filter(is_left).collect();
            if left.is_empty() {
                queue.push_back(Task::Check(place));
            }
            parts_left.insert(place.as_str(), left.len() as u64);
            queue.extend(left.into_iter().map(|part| Task::Fetch(place, part)));
        }
        Self {
            queue: Mutex::new(queue),
            parts_left: Mutex::new(parts_left),
        }
    }

    pub(crate) fn take(&self) -> Option<Task<'a>> {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    /// A part is there; true if it was the last of its file.
    pub(crate) fn is_last(&self, place: &str) -> bool {
        let mut left = self
            .parts_left
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(count) = left.get_mut(place) else {
            return false;
        };
        *count = count.saturating_sub(1);
        *count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Done;
    use crate::listing::FileDigest;

    #[test]
    fn what_is_there_is_not_fetched_again_and_what_is_not_checked_is() {
        let file = |bytes| RemoteFile {
            name: String::new(),
            bytes,
            digest: FileDigest::Git(String::new()),
        };
        let files = [("a", 25), ("b", 20), ("c", 5), ("d", 0)];
        let files: BTreeMap<String, RemoteFile> = files
            .map(|(place, bytes)| (place.to_owned(), file(bytes)))
            .into();
        let done = |parts: &[u64], sha256: Option<&str>| Done {
            parts: parts.iter().copied().collect(),
            sha256: sha256.map(str::to_owned),
        };
        let done = [
            ("a", done(&[1], None)),
            ("b", done(&[0, 1], None)),
            ("c", done(&[0], Some("x"))),
        ];
        let done = done.map(|(place, done)| (place.to_owned(), done)).into();
        let tasks = Tasks::new(&files, &done, 10);
        assert_eq!(bytes_left(&files, &done, 10), 15);
        let part = |number, start, end| Part { number, start, end };
        let expected = [
            Task::Fetch("a", part(0, 0, 10)),
            Task::Fetch("a", part(2, 20, 25)),
            Task::Check("b"),
            Task::Check("d"),
        ];
        assert_eq!(
            std::iter::from_fn(|| tasks.take()).collect::<Vec<_>>(),
            expected
        );
        assert!(!tasks.is_last("a"));
        assert!(tasks.is_last("a"));
    }
}
