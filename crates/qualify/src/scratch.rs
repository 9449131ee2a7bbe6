//! Directories of this program's own, which are removed with all that is in them.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::QualifyError;

/// A directory that nobody else can look into; it goes when this is dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn make(what: &str) -> Result<Self, QualifyError> {
        let random = getrandom::u64()
            .map_err(|error| QualifyError::new(format!("no random numbers: {error}")))?;
        let path = std::env::temp_dir().join(format!("backstop-{what}-{random:016x}"));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| QualifyError::at(&path, error))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!("{} is left behind: {error}", self.0.display());
        }
    }
}
