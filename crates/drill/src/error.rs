//! Why a drill could not be held.

use std::path::Path;

/// Why a drill could not be held, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DrillError(String);

impl DrillError {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// Of something on this machine's disk.
    pub(crate) fn at(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self(format!("{}: {reason}", path.display()))
    }
}

impl From<backstop_client::ClientError> for DrillError {
    fn from(error: backstop_client::ClientError) -> Self {
        Self(error.to_string())
    }
}
