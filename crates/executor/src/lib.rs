//! Runs step plans on a device: sizes and holds the KV cache, builds batches and samples tokens. This is the implementation behind [`backstop_types::Executor`].

mod constraint;
mod cpu;
mod cuda;
mod cuda_plan;
mod device;
mod device_memory;
mod executor;
mod memory;
mod panics;
mod slots;
mod step;
mod worker;

pub use cpu::{CpuExecutorConfig, Drafter, draft_kv_cache};
pub use cuda::CudaExecutorConfig;
pub use cuda_plan::{CudaPlan, CudaPlanError, CudaRequest};
pub use device_memory::{DeviceMemoryError, DeviceMemoryRequest, plan_device_memory};
pub use executor::DeviceExecutor;
pub use memory::{KvMemoryError, KvMemoryPlan, KvMemoryRequest, full_demand_bytes, plan_kv_memory};
pub use panics::message as panic_message;
