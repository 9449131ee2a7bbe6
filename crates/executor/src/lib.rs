//! Runs step plans on a device: loads weights, sizes and holds the KV cache, builds batches and
//! samples tokens. This is the implementation behind [`backstop_types::Executor`].

mod cpu;
mod cuda;
mod loader;
mod memory;
mod panics;
mod slots;

pub use cpu::{CpuExecutor, CpuExecutorConfig};
pub use cuda::{CudaExecutor, CudaExecutorConfig};
pub use loader::{LoadFailure, load_cpu_weights};
pub use memory::{KvMemoryError, KvMemoryPlan, KvMemoryRequest, full_demand_bytes, plan_kv_memory};
