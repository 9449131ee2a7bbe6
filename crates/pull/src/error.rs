//! Why a model was not fetched.

use std::path::Path;

/// Why a model was not fetched, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PullError(String);

impl PullError {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// Of something on this machine's disk.
    pub(crate) fn at(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self(format!("{}: {reason}", path.display()))
    }
}
