//! Why something could not be qualified.

use std::path::Path;

/// Why something could not be qualified, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct QualifyError(String);

impl QualifyError {
    /// For people.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// Of something on this machine's disk.
    pub fn at(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self(format!("{}: {reason}", path.display()))
    }
}

impl From<backstop_client::ClientError> for QualifyError {
    fn from(error: backstop_client::ClientError) -> Self {
        Self(error.to_string())
    }
}
