//! Runs step plans on a device: loads weights, sizes and holds the KV cache, builds batches and
//! samples tokens. This is the implementation behind [`backstop_types::Executor`].

mod alternating_experts;
mod block_loader;
mod constraint;
mod cpu;
mod cuda;
mod cuda_plan;
mod cuda_worker;
mod device_loader;
mod device_memory;
mod drafter;
mod formats;
mod loader;
mod memory;
mod panics;
mod slots;
mod synthetic;

pub use cpu::{CpuExecutor, CpuExecutorConfig};
pub use cuda::{CudaExecutor, CudaExecutorConfig};
pub use cuda_plan::{CudaPlan, CudaPlanError, CudaRequest};
pub use device_loader::{DeviceWeightPlan, load_device_weights, load_in_pieces};
pub use device_memory::{DeviceMemoryError, DeviceMemoryRequest, plan_device_memory};
pub use drafter::{Drafter, draft_kv_cache, load_cpu_draft_head};
pub use formats::LoadFailure;
pub use loader::load_cpu_weights;
pub use memory::{KvMemoryError, KvMemoryPlan, KvMemoryRequest, full_demand_bytes, plan_kv_memory};
pub use panics::message as panic_message;
pub use synthetic::SyntheticWeights;
