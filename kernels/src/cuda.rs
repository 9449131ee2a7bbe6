//! The engine's side of the CUDA kernels in `kernels/cuda`.
#![expect(
    unsafe_code,
    reason = "device memory and launches are outside the compiler's view"
)]

pub mod buffer;
#[cfg(feature = "cuda")]
pub mod cubins;
pub mod device;
pub mod group;
pub mod layout;
pub mod pack;
pub mod nvidia;

pub use buffer::{DeviceBuffer, Plain, PoisonedBuffer};
pub use device::{
    Device, DeviceError, DeviceFacts, DevicePointer, Event, Graph, Grid, KernelArgs, Stream,
};
pub use nvidia::{NoCuda, open_nvidia};
