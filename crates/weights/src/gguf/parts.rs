//! The parts into which `llama-gguf-split` cuts a GGUF file: the first has the metadata, each has some of the tensors.

use std::collections::BTreeMap;
use std::path::Path;

use backstop_models::NumberedParts;

use super::reader::{Header, MetadataValue};
use crate::WeightsError;
use crate::header::HeaderEntry;
use crate::shard::Shard;
use crate::shards::file_name;

/// Number of a part, from 0.
const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
/// Tensors of all parts together.
const TENSORS: &str = "split.tensors.count";

/// What a file or all its parts hold.
pub(super) struct Parts {
    pub(super) files: Vec<Shard>,
    pub(super) metadata: BTreeMap<String, MetadataValue>,
    /// Each with the number of its file.
    pub(super) tensors: Vec<(usize, HeaderEntry)>,
}

impl Parts {
    /// Opens a file, and if it is a part all the others, which lie beside it.
    pub(super) fn open(path: &Path) -> Result<Self, WeightsError> {
        let malformed = |reason: String| WeightsError::malformed(path, reason);
        let (file, header) = Shard::open_gguf(path)?;
        let count = integer(&header.metadata, COUNT).unwrap_or(1);
        if count <= 1 {
            return Ok(Self::whole(file, header));
        }
        let named = NumberedParts::of(path).ok_or_else(|| {
            malformed(format!(
                "it is one of {count} parts, which are found by their names: NAME-00001-of-0000N.gguf"
            ))
        })?;
        match named.absent().as_slice() {
            [] => {}
            absent => {
                let absent = absent.join(", ");
                return Err(malformed(format!("parts of it are missing: {absent}")));
            }
        }
        let mut parts = Self::whole(file, header);
        let paths = named.paths();
        for (number, part) in paths.iter().enumerate() {
            if number > 0 {
                let (file, header) = Shard::open_gguf(part)?;
                parts
                    .add(file, header, number)
                    .map_err(|reason| malformed(format!("{} {reason}", file_name(part))))?;
            }
        }
        parts.check(paths.len()).map_err(malformed)?;
        Ok(parts)
    }

    fn whole(file: Shard, header: Header) -> Self {
        Self {
            files: vec![file],
            metadata: header.metadata,
            tensors: header.tensors.into_iter().map(|entry| (0, entry)).collect(),
        }
    }

    /// Adds a part after the first. What it says of the model must be what the first says.
    fn add(&mut self, file: Shard, header: Header, number: usize) -> Result<(), String> {
        let stated = integer(&header.metadata, NUMBER);
        if stated != Some(number as i128) {
            return Err(format!("is not part {}, going by its {NUMBER}", number + 1));
        }
        for key in [COUNT, TENSORS] {
            if !header.metadata.contains_key(key) {
                return Err(format!("lacks {key}"));
            }
        }
        let shared = header.metadata.iter().filter(|(key, _)| *key != NUMBER);
        for (key, value) in shared {
            if self.metadata.get(key).is_some_and(|first| first != value) {
                return Err(format!("is a part of another model: its {key} is another"));
            }
        }
        self.files.push(file);
        let tensors = header.tensors.into_iter();
        self.tensors.extend(tensors.map(|entry| (number, entry)));
        Ok(())
    }

    /// Checks that these are all parts and all tensors, and that the first is the first.
    fn check(&self, parts: usize) -> Result<(), String> {
        let stated = |key| integer(&self.metadata, key);
        if stated(NUMBER) != Some(0) {
            return Err(format!("it is not the first part, going by its {NUMBER}"));
        }
        if stated(COUNT) != Some(parts as i128) {
            return Err(format!(
                "its name and its {COUNT} are of different numbers of parts"
            ));
        }
        let tensors = self.tensors.len();
        match stated(TENSORS) {
            Some(all) if all == tensors as i128 => Ok(()),
            Some(all) => Err(format!(
                "its parts have {tensors} tensors, and {TENSORS} is {all}"
            )),
            None => Err(format!("{TENSORS} is missing")),
        }
    }
}

fn integer(metadata: &BTreeMap<String, MetadataValue>, key: &str) -> Option<i128> {
    match metadata.get(key) {
        Some(MetadataValue::Integer(number)) => Some(*number),
        _ => None,
    }
}
