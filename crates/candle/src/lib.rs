//! The portable backend: a model's operations over candle's tensors, on whatever device candle computes.
//!
//! It shares its operations' meaning with the native backends and nothing of their kernels: where candle has an
//! operation, that is used. So it runs on cards that have no native kernels, and is an independent judge of those that
//! have. What it computes depends on the batch in the last bits, for the products of candle's libraries do.
//!
//! Weights are kept as candle computes with them best: GGUF's formats that it knows as they are, everything else as
//! F32 on the processor and BF16 elsewhere ([`CandleDevice::bytes_of`]).

mod abilities;
mod attention;
mod backend;
mod device;
mod experts;
mod kv_cache;
mod latent;
mod matrix;
mod rotation;
mod router;
mod step;
mod weights;
mod work;

pub use abilities::abilities;
pub use backend::{CandleActivation, CandleBackend, CandleRouting};
pub use device::{CandleDevice, CandleDeviceError, CandleDeviceKind, DeviceMemory};
pub use kv_cache::CandleKvCache;
pub use weights::CandleWeights;
pub use work::StepSizes;

/// What candle says of a failed operation.
pub use candle_core::Error as CandleError;
