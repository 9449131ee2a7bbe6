//! Why a server cannot be asked.

use std::path::Path;

/// Why a server cannot be asked, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ClientError(String);

impl ClientError {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// Of something on this machine's disk.
    pub(crate) fn at(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self(format!("{}: {reason}", path.display()))
    }
}
