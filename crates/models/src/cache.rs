//! Models in a cache of the Hugging Face hub: `models--ORGANISATION--NAME`, with links to blobs in
//! `snapshots/COMMIT`, and the commits of branches in `refs`.

use std::path::{Path, PathBuf};

use backstop_input::read_text_file;

use crate::checkpoint::is_checkpoint;

/// How the name of a cached model's directory begins, and what separates its parts.
const CACHED_MODEL: &str = "models--";
const SEPARATOR: &str = "--";
/// Where the commits are.
const SNAPSHOTS: &str = "snapshots";
/// Longest commit in a file.
const COMMIT_BYTES_MAX: u64 = 256;

/// Where a cached commit is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedAs {
    /// `ORGANISATION/NAME`.
    pub repository: String,
    /// The commit.
    pub revision: String,
}

impl CachedAs {
    /// Of the directory of a commit in a cache.
    pub fn of(directory: &Path) -> Option<Self> {
        let snapshots = directory.parent()?;
        let model = snapshots.parent()?.file_name()?.to_str()?;
        let repository = model.strip_prefix(CACHED_MODEL)?;
        let is_snapshot = snapshots.file_name()? == SNAPSHOTS;
        is_snapshot.then_some(Self {
            repository: repository.replacen(SEPARATOR, "/", 1),
            revision: directory.file_name()?.to_str()?.to_owned(),
        })
    }

    /// The repository's own name, without its organisation's.
    pub fn name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or_default()
    }
}

/// The commit of a cached model that `main` stands for, or the only one; `None` if this is no cached model, or which of
/// its commits is meant cannot be told.
pub fn cached_checkpoint(directory: &Path) -> Option<PathBuf> {
    if !is_cached_model(directory) {
        return None;
    }
    let snapshots = directory.join(SNAPSHOTS);
    if let Ok(commit) = read_text_file(&directory.join("refs/main"), COMMIT_BYTES_MAX) {
        let named = snapshots.join(commit.trim());
        if is_checkpoint(&named) {
            return Some(named);
        }
    }
    match checkpoints_in(&snapshots).as_slice() {
        [only] => Some(only.clone()),
        _ => None,
    }
}

/// Whether this is a model's directory in a cache.
pub(crate) fn is_cached_model(directory: &Path) -> bool {
    let name = directory.file_name().unwrap_or_default();
    name.to_string_lossy().starts_with(CACHED_MODEL) && directory.join(SNAPSHOTS).is_dir()
}

fn checkpoints_in(snapshots: &Path) -> Vec<PathBuf> {
    let entries = snapshots.read_dir().into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| is_checkpoint(path)).collect()
}
