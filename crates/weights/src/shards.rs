//! Finds a checkpoint's weight files and makes one list of their tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use backstop_models::pickled_weights;
use rayon::prelude::*;
use serde_json::Value;

use crate::header::HeaderEntry;
use crate::shard::Shard;
use crate::text_files::{INDEX_BYTES_MAX, read_object};
use crate::{TensorInfo, WeightsError};

pub(crate) const SINGLE_FILE: &str = "model.safetensors";
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";

/// The open weight files, if any, and every tensor in them, by name.
#[derive(Default)]
pub(crate) struct Shards {
    pub(crate) files: Vec<Shard>,
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
}

impl Shards {
    pub(crate) fn open(directory: &Path) -> Result<Self, WeightsError> {
        let index_path = directory.join(INDEX_FILE);
        match read_index(&index_path)? {
            Some(index) => Self::open_indexed(directory, &index),
            None => Self::open_files(directory, &[find_single(directory)?]),
        }
    }

    fn open_indexed(
        directory: &Path,
        index: &BTreeMap<String, String>,
    ) -> Result<Self, WeightsError> {
        let names: BTreeSet<&String> = index.values().collect();
        let mut problems: Vec<String> = names
            .iter()
            .filter(|name| !directory.join(name).is_file())
            .map(|name| format!("{name}, which the index names, is missing"))
            .collect();
        // A stray single file is most likely half of a re-download: using either would be a guess.
        if !names.iter().any(|name| name.as_str() == SINGLE_FILE)
            && directory.join(SINGLE_FILE).is_file()
        {
            problems.push(format!(
                "{SINGLE_FILE} is present but the index does not name it"
            ));
        }
        if !problems.is_empty() {
            return Err(WeightsError::Inconsistent {
                path: directory.to_owned(),
                problems,
            });
        }

        let paths: Vec<PathBuf> = names.into_iter().map(|name| directory.join(name)).collect();
        let shards = Self::open_files(directory, &paths)?;
        let problems = shards.disagreements(index);
        if problems.is_empty() {
            Ok(shards)
        } else {
            Err(WeightsError::Inconsistent {
                path: directory.to_owned(),
                problems,
            })
        }
    }

    fn open_files(directory: &Path, paths: &[PathBuf]) -> Result<Self, WeightsError> {
        let opened: Vec<(Shard, Vec<HeaderEntry>)> = paths
            .par_iter()
            .map(|path| Shard::open(path))
            .collect::<Result<_, _>>()?;
        let mut files = Vec::with_capacity(opened.len());
        let mut tensors: BTreeMap<String, TensorInfo> = BTreeMap::new();
        let mut problems = Vec::new();
        for (shard_index, (shard, entries)) in opened.into_iter().enumerate() {
            files.push(shard);
            for entry in entries {
                let info = TensorInfo::new(entry, shard_index);
                if let Some(earlier) = tensors.insert(info.name.clone(), info) {
                    let first = file_name(&files[earlier.shard_index].path);
                    let second = file_name(&files[shard_index].path);
                    problems.push(format!(
                        "{} is both in {first} and in {second}",
                        earlier.name
                    ));
                }
            }
        }
        if problems.is_empty() {
            Ok(Self { files, tensors })
        } else {
            Err(WeightsError::Inconsistent {
                path: directory.to_owned(),
                problems,
            })
        }
    }

    /// Where the files and the index disagree.
    fn disagreements(&self, index: &BTreeMap<String, String>) -> Vec<String> {
        let mut problems = Vec::new();
        for (tensor, shard) in index {
            match self.tensors.get(tensor) {
                None => problems.push(format!("{shard} lacks {tensor}, which the index names")),
                Some(info) => {
                    let actual = file_name(&self.files[info.shard_index].path);
                    if actual != shard.as_str() {
                        problems.push(format!("{tensor} is in {actual}, not in {shard}"));
                    }
                }
            }
        }
        for (tensor, info) in &self.tensors {
            if !index.contains_key(tensor) {
                let actual = file_name(&self.files[info.shard_index].path);
                problems.push(format!("{tensor} in {actual} is not in the index"));
            }
        }
        problems
    }
}

/// The index's map from tensor to file, or `None` if there is no index.
fn read_index(path: &Path) -> Result<Option<BTreeMap<String, String>>, WeightsError> {
    let Some(mut index) = read_object(path, INDEX_BYTES_MAX)? else {
        return Ok(None);
    };
    let Some(Value::Object(weight_map)) = index.remove("weight_map") else {
        return Err(WeightsError::malformed(path, "it has no weight_map object"));
    };
    let mut shard_of_tensor = BTreeMap::new();
    for (tensor, shard) in weight_map {
        let Value::String(shard) = shard else {
            return Err(WeightsError::malformed(
                path,
                format!("{tensor:?} has no file name"),
            ));
        };
        // A name with directories in it could make the server read files outside the checkpoint.
        let mut components = Path::new(&shard).components();
        let (Some(Component::Normal(_)), None) = (components.next(), components.next()) else {
            let reason = format!("{shard:?} is not the name of a file beside the index");
            return Err(WeightsError::malformed(path, reason));
        };
        shard_of_tensor.insert(tensor, shard);
    }
    if shard_of_tensor.is_empty() {
        return Err(WeightsError::malformed(path, "its weight_map is empty"));
    }
    Ok(Some(shard_of_tensor))
}

/// The weight file of a checkpoint without an index.
fn find_single(directory: &Path) -> Result<PathBuf, WeightsError> {
    let usual = directory.join(SINGLE_FILE);
    if usual.is_file() {
        return Ok(usual);
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
        1 => Ok(candidates.swap_remove(0)),
        0 => {
            let mut reason = format!("no weights: neither {SINGLE_FILE} nor {INDEX_FILE} is there");
            if let Some(advice) = pickled_weights(directory) {
                reason = format!("{reason}, and {advice}");
            }
            Err(WeightsError::malformed(directory, reason))
        }
        count => Err(WeightsError::malformed(
            directory,
            format!("{count} safetensors files but no {INDEX_FILE} to say which belong together"),
        )),
    }
}

pub(crate) fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}
