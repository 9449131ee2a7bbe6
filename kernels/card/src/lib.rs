//! The engine's side of the CUDA kernels in `kernels/cuda`. From bottom to top: devices and memory, layouts, products and
//! the other operations, weights, backend, steps.
#![expect(
    unsafe_code,
    reason = "device memory and launches are outside the compiler's view"
)]

mod abilities;
pub mod activation;
pub mod arena;
pub mod backend;
pub mod batch;
pub mod buffer;
#[cfg(feature = "nvidia")]
pub mod cubins;
pub mod device;
pub mod group;
mod host_copy;
pub mod kv_cache;
pub mod layout;
pub mod nvidia;
pub mod ops;
pub mod pack;
pub mod pinned;
pub mod planning;
pub mod product;
pub mod repack;
pub mod runner;
pub mod staging;
pub mod step;
pub mod synthetic;
pub mod synthetic_model;
pub mod weights;

pub use abilities::ABILITIES;
pub use buffer::{DeviceBuffer, Plain};
pub use device::{
    Device, DeviceError, DeviceFacts, DevicePointer, Event, Graph, Grid, KernelArgs, Stream,
};
pub use host_copy::HostCopy;
pub use kv_cache::CudaKvCache;
pub use nvidia::{NoCuda, open_nvidia};
pub use weights::{CudaWeights, ExpertsMemory};
