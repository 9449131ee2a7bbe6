//! Finds a checkpoint's weight files and makes one list of their tensors.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use backstop_models::{NumberedParts, pickled_weights};
use rayon::prelude::*;

use crate::header::HeaderEntry;
use crate::index::{INDEX_FILE, Index, IndexGaps, SINGLE_FILE};
use crate::shard::Shard;
use crate::{TensorInfo, WeightsError};

/// The open weight files, if any, and every tensor in them, by name.
#[derive(Default)]
pub(crate) struct Shards {
    pub(crate) files: Vec<Shard>,
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
    pub(crate) gaps: IndexGaps,
}

impl Shards {
    pub(crate) fn open(directory: &Path) -> Result<Self, WeightsError> {
        let Some(index) = Index::read(directory)? else {
            return Self::open_files(directory, &files_without_index(directory)?, None);
        };
        let files = index.files(directory)?;
        let shards = Self::open_files(directory, &files, Some(&index))?;
        let gaps = index.gaps(directory, &shards);
        Ok(Self { gaps, ..shards })
    }

    /// Of a tensor that is in several files, the index says which counts.
    fn open_files(
        directory: &Path,
        paths: &[PathBuf],
        index: Option<&Index>,
    ) -> Result<Self, WeightsError> {
        let opened: Vec<(Shard, Vec<HeaderEntry>)> = paths
            .par_iter()
            .map(|path| Shard::open(path))
            .collect::<Result<_, _>>()?;
        let mut shards = Self::default();
        // The files of each tensor that is in several.
        let mut repeated: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (shard_index, (shard, entries)) in opened.into_iter().enumerate() {
            let file = file_name(&shard.path).into_owned();
            shards.files.push(shard);
            for entry in entries {
                let name = entry.name.clone();
                let earlier = shards.tensors.get(&name).map(|info| info.shard_index);
                let is_meant = index.and_then(|index| index.file_of(&name)) == Some(&file);
                if earlier.is_none() || is_meant {
                    let info = TensorInfo::new(entry, shard_index);
                    shards.tensors.insert(name.clone(), info);
                }
                if let Some(earlier) = earlier {
                    let first = || vec![file_name(&shards.files[earlier].path).into_owned()];
                    repeated
                        .entry(name)
                        .or_insert_with(first)
                        .push(file.clone());
                }
            }
        }
        let is_told = |(name, files): &(&String, &Vec<String>)| {
            let meant = index.and_then(|index| index.file_of(name));
            meant.is_some_and(|meant| files.iter().any(|file| file == meant))
        };
        let untold = repeated.iter().filter(|repeated| !is_told(repeated));
        let problems: Vec<String> = untold
            .map(|(name, files)| format!("{name} is in {}", files.join(" and in ")))
            .collect();
        if problems.is_empty() {
            Ok(shards)
        } else {
            Err(WeightsError::Inconsistent {
                path: directory.to_owned(),
                problems,
            })
        }
    }
}

/// The weight files of a checkpoint without an index: the usual one, the only one, or all parts of one whole.
fn files_without_index(directory: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    let usual = directory.join(SINGLE_FILE);
    if usual.is_file() {
        return Ok(vec![usual]);
    }
    let entries = directory
        .read_dir()
        .map_err(|source| WeightsError::io(directory, source))?;
    let mut candidates = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|source| WeightsError::io(directory, source))?
            .path();
        if path.extension() == Some(OsStr::new("safetensors")) {
            candidates.push(path);
        }
    }
    match candidates.len() {
        1 => Ok(candidates),
        0 => {
            let mut reason = format!("no weights: neither {SINGLE_FILE} nor {INDEX_FILE} is there");
            if let Some(advice) = pickled_weights(directory) {
                reason = format!("{reason}, and {advice}");
            }
            Err(WeightsError::malformed(directory, reason))
        }
        _ => parts_of_one_whole(directory, &candidates),
    }
}

/// All files `NAME-00001-of-0000N.safetensors` of one name, if there is but one such, whatever lies beside them.
fn parts_of_one_whole(
    directory: &Path,
    candidates: &[PathBuf],
) -> Result<Vec<PathBuf>, WeightsError> {
    let mut wholes: Vec<NumberedParts> = candidates
        .iter()
        .filter_map(|path| NumberedParts::of(path))
        .collect();
    wholes.sort();
    wholes.dedup();
    // What Hugging Face's libraries write goes before what the model's makers had (`consolidated`).
    if wholes.len() > 1 {
        wholes.retain(|whole| whole.name() == "model");
    }
    let count = candidates.len();
    let [whole] = wholes.as_slice() else {
        return Err(WeightsError::malformed(
            directory,
            format!(
                "{count} safetensors files but no {INDEX_FILE} to say which belong together: fetch it, or leave only \
                 one model in the directory"
            ),
        ));
    };
    match whole.absent().as_slice() {
        [] => Ok(whole.paths()),
        absent => Err(WeightsError::malformed(
            directory,
            format!("parts of the weights are missing: {}", absent.join(", ")),
        )),
    }
}

pub(crate) fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

#[cfg(test)]
mod tests;
