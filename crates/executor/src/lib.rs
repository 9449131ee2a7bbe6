//! Runs step plans on a device: sizes and holds the KV cache, builds batches and samples tokens. This is the
//! implementation behind [`backstop_types::Executor`].

#[cfg(feature = "candle")]
mod candle;
mod constraint;
mod cpu;
mod cuda;
mod device;
mod executor;
mod host_sampling;
mod panics;
mod plan;
mod probe;
mod slots;
mod step;
mod tables;
mod worker;
mod worker_thread;

#[cfg(feature = "candle")]
pub use candle::CandleExecutorConfig;
pub use cpu::{CpuExecutorConfig, Drafter, draft_kv_cache};
pub use cuda::CudaExecutorConfig;
pub use device::Observation;
pub use executor::DeviceExecutor;
pub use panics::message as panic_message;
pub use plan::{
    ComputeDevice, DeviceMemoryError, DraftHeadSource, HostMemoryError, KvMemoryError,
    KvMemoryPlan, KvMemoryRequest, ModelSource, Plan, PlanError, PlanRequest, PlannedBytes,
    PlannedCache, Progress, StartError, StartStage, format_bytes, plan_kv_memory,
};
pub use probe::Probe;
