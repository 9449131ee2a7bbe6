//! The errors of opening a checkpoint and of copying its tensors.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::header::HeaderError;
use crate::quantization::QuantizationError;

/// How many names of one kind a message lists before it counts the rest.
pub(crate) const LISTED_MAX: usize = 20;

/// Why a checkpoint directory could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The operating system refused.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A text file is not what it should be.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A weight file's header is wrong.
    #[error("{path}: {source}")]
    Header {
        /// The weight file.
        path: PathBuf,
        /// What is wrong with it.
        source: HeaderError,
    },
    /// The files of a checkpoint disagree with each other.
    #[error("{path}: the weight files do not fit together: {}", Listing(problems))]
    Inconsistent {
        /// The checkpoint directory.
        path: PathBuf,
        /// Every disagreement.
        problems: Vec<String>,
    },
    /// The configuration overrides cannot be applied.
    #[error("configuration overrides: {0}")]
    Overrides(String),
    /// The checkpoint is quantised in a way that is not supported.
    #[error(transparent)]
    Quantization(#[from] QuantizationError),
}

impl WeightsError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn malformed(path: &Path, reason: impl Into<String>) -> Self {
        Self::Malformed {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

/// Every tensor that could not be copied, and why.
#[derive(Debug, thiserror::Error)]
#[error("{} of the tensors could not be loaded: {}", problems.len(), Listing(problems))]
pub struct LoadError {
    /// One entry per tensor, in the order of the files.
    pub problems: Vec<LoadProblem>,
}

/// Why one tensor could not be copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadProblem {
    /// The checkpoint has no tensor of this name.
    #[error("{name} is not in the checkpoint")]
    Unknown {
        /// The tensor.
        name: String,
    },
    /// The destination is not as long as the tensor.
    #[error("{name} has {tensor_bytes} bytes but its destination has {destination_bytes}")]
    Length {
        /// The tensor.
        name: String,
        /// Bytes in the file.
        tensor_bytes: u64,
        /// Bytes in the destination.
        destination_bytes: u64,
    },
    /// A value is NaN or infinite.
    #[error("{name} holds a NaN or an infinity, first at element {index}")]
    NotFinite {
        /// The tensor.
        name: String,
        /// The first such element.
        index: u64,
    },
    /// Scales cannot be divided by it.
    #[error("{name} must be a number above 0: scales are divided by it")]
    Divisor {
        /// The tensor.
        name: String,
    },
    /// The file could not be read, or became shorter since it was opened.
    #[error("{name} cannot be read from {path}: {source}")]
    Read {
        /// The tensor.
        name: String,
        /// The weight file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Shows the first few of a list and the number of the rest.
pub(crate) struct Listing<'a, T>(pub(crate) &'a [T]);

impl<T: fmt::Display> fmt::Display for Listing<'_, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, item) in self.0.iter().take(LISTED_MAX).enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(formatter, "{separator}{item}")?;
        }
        match self.0.len().saturating_sub(LISTED_MAX) {
            0 => Ok(()),
            rest => write!(formatter, "; and {rest} more"),
        }
    }
}
