//! What `model.safetensors.index.json` says of the files beside it, and how far these bear it out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::shards::{Shards, file_name};
use crate::text_files::{INDEX_BYTES_MAX, read_object};
use crate::{TensorInfo, WeightsError};

pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";
pub(crate) const SINGLE_FILE: &str = "model.safetensors";

/// The file of each tensor.
pub(crate) struct Index(BTreeMap<String, String>);

/// Where an index and the files disagree. None of it matters unless a tensor that the model reads is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IndexGaps {
    absent_files: Vec<String>,
    /// Tensors that are in no file, with the one in which the index has them.
    lost: BTreeMap<String, String>,
    /// Tensors that it leaves out.
    unlisted: usize,
    /// Tensors that are in another file than it says.
    moved: usize,
}

impl Index {
    /// `None` if there is none.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>, WeightsError> {
        let path = &directory.join(INDEX_FILE);
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
        Ok(Some(Self(shard_of_tensor)))
    }

    /// The file in which it has a tensor.
    pub(crate) fn file_of(&self, tensor: &str) -> Option<&str> {
        self.0.get(tensor).map(String::as_str)
    }

    /// The files that are there of those that it names; the usual single one if none of them is.
    pub(crate) fn files(&self, directory: &Path) -> Result<Vec<PathBuf>, WeightsError> {
        let is_there = |name: &str| directory.join(name).is_file();
        let names = self.names();
        let mut there: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| is_there(name))
            .collect();
        let has_other_single = !names.contains(SINGLE_FILE) && is_there(SINGLE_FILE);
        let problems = match (there.is_empty(), has_other_single) {
            (true, true) => {
                there.push(SINGLE_FILE);
                Vec::new()
            }
            (true, false) => {
                let missing = |name| format!("{name}, which the index names, is missing");
                names.into_iter().map(missing).collect()
            }
            // Most likely half of another download: using either would be a guess.
            (false, true) => vec![format!(
                "{SINGLE_FILE} is present but the index does not name it, and other files that it names are: remove \
                 either"
            )],
            (false, false) => Vec::new(),
        };
        if problems.is_empty() {
            Ok(there.into_iter().map(|name| directory.join(name)).collect())
        } else {
            Err(WeightsError::Inconsistent {
                path: directory.to_owned(),
                problems,
            })
        }
    }

    /// Where it and the files that were opened disagree.
    pub(crate) fn gaps(&self, directory: &Path, shards: &Shards) -> IndexGaps {
        let file_of = |tensor: &TensorInfo| file_name(&shards.files[tensor.shard_index].path);
        let mut gaps = IndexGaps::default();
        for (tensor, file) in &self.0 {
            match shards.tensors.get(tensor) {
                None => _ = gaps.lost.insert(tensor.clone(), file.clone()),
                Some(found) => gaps.moved += usize::from(file_of(found) != file.as_str()),
            }
        }
        let listed = |tensor: &&String| self.0.contains_key(*tensor);
        gaps.unlisted = shards.tensors.keys().filter(|name| !listed(name)).count();
        let absent = self.names();
        let absent = absent.iter().filter(|name| !directory.join(name).is_file());
        gaps.absent_files = absent.map(|name| (*name).to_owned()).collect();
        gaps
    }

    fn names(&self) -> BTreeSet<&str> {
        self.0.values().map(String::as_str).collect()
    }
}

impl IndexGaps {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Where a tensor should be that is nowhere; if it is quantised, one of those that it is made up of.
    pub(crate) fn file_of_lost(&self, tensor: &str) -> Option<String> {
        let (name, file) = self.lost.range(tensor.to_owned()..).next()?;
        let absent = self.absent_files.contains(file);
        let how = if absent { "is absent" } else { "lacks it" };
        let rest = name.strip_prefix(tensor)?;
        (rest.is_empty() || rest.starts_with('_'))
            .then(|| format!("{file}, where {INDEX_FILE} has it, {how}"))
    }
}

impl fmt::Display for IndexGaps {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.absent_files.first().map_or("", String::as_str);
        let counted = [
            (self.absent_files.len(), "files that are absent", first),
            (self.lost.len(), "tensors that are in no file", ""),
            (self.moved, "tensors that are in other files", ""),
            (self.unlisted, "tensors of the files that are not in it", ""),
        ];
        let counted = counted.iter().filter(|(count, ..)| *count > 0);
        let counted = counted.map(|(count, what, first)| match *first {
            "" => format!("{what}: {count}"),
            first => format!("{what}: {count} ({first})"),
        });
        write!(
            formatter,
            "{INDEX_FILE} does not fit the files, which are read as they are ({})",
            counted.collect::<Vec<_>>().join("; ")
        )
    }
}
