//! Why there is no load.

use std::path::Path;

/// Why there is no load, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(String);

impl LoadError {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// Of a line of a file.
    pub(crate) fn at_line(path: &Path, line: usize, reason: impl std::fmt::Display) -> Self {
        Self(format!("{}:{line}: {reason}", path.display()))
    }

    /// Of something on this machine's disk.
    pub(crate) fn at(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self(format!("{}: {reason}", path.display()))
    }
}
