//! Why an encoder could not be opened.

use std::path::PathBuf;

use backstop_weights::WeightsError;

/// How many problems a message lists before it counts the rest.
const LISTED_MAX: usize = 20;

/// Why an encoder could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// The configuration or the headers of the weights are not what they should be.
    #[error(transparent)]
    Checkpoint(#[from] WeightsError),
    /// A file beside them is not what it should be.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What the checkpoint asks for is not there, or not supported.
    #[error("cannot use this encoder: {}", listing(.0))]
    Unsupported(Vec<String>),
    /// The device cannot be used.
    #[error("cannot use {device}: {reason}")]
    Device {
        /// Its name.
        device: &'static str,
        /// Why not.
        reason: String,
    },
    /// The weights could not be put where they are computed with.
    #[error("cannot prepare the weights: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl EncoderError {
    pub(crate) fn unsupported(reason: impl Into<String>) -> Self {
        Self::Unsupported(vec![reason.into()])
    }
}

fn listing(problems: &[String]) -> String {
    let listed = problems[..problems.len().min(LISTED_MAX)].join("; ");
    match problems.len().saturating_sub(LISTED_MAX) {
        0 => listed,
        rest => format!("{listed}; and {rest} more"),
    }
}
