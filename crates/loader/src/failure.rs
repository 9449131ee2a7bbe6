//! Why weights are not loaded.

use backstop_arch::ArchError;
use backstop_kernels::Refusal;
use backstop_weights::{CensusError, LoadError, LoadProblem, QuantizationError, WeightsError};

/// Why a checkpoint could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadFailure {
    /// Its configuration describes no model that is computed here.
    #[error(transparent)]
    Model(#[from] ArchError),
    /// Its tensors are not those of the model.
    #[error(transparent)]
    Census(#[from] CensusError),
    /// A tensor could not be read, or holds something that cannot be computed with.
    #[error(transparent)]
    Read(#[from] LoadError),
    /// The same of one tensor.
    #[error(transparent)]
    ReadOne(#[from] LoadProblem),
    /// Its quantisation is not understood.
    #[error(transparent)]
    Checkpoint(#[from] WeightsError),
    /// Weights and scales do not belong together.
    #[error(transparent)]
    Quantization(#[from] QuantizationError),
    /// Tensors that are computed as one are stored in different number formats.
    #[error(
        "{0} and other tensors that are computed with it are stored in too many different number \
         formats"
    )]
    MixedFormats(String),
    /// The rows of a quantised matrix are not whole blocks.
    #[error("{name} is {format} with {columns} columns and {tile} of them to a scale: {wanted}")]
    Blocks {
        /// The tensor.
        name: String,
        /// How it is stored.
        format: &'static str,
        /// Numbers in a row.
        columns: usize,
        /// Numbers in a row that share a scale.
        tile: usize,
        /// What is supported.
        wanted: &'static str,
    },
    /// The device does not compute with weights like these.
    #[error("{0}: choose --device cpu")]
    NotForDevice(#[from] Refusal),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] backstop_card::DeviceError),
}
