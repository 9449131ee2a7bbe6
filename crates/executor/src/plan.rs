//! From a model without weights to an executor, in two steps that are the same for every device: [`Plan::new`] sizes
//! everything before any memory is taken or any weight is read, and [`Plan::start`] does it.

#[cfg(feature = "candle")]
mod candle;
mod cpu;
mod cuda;
mod device_memory;
mod draft_head;
mod host_memory;
mod memory;
mod weight_cache;

use std::sync::Arc;

use backstop_arch::{AnyModel, KvGroup};
use backstop_card::{Device, DeviceError};
use backstop_kernels::{Abilities, Element, KvGroupLayout, Refusal};
use backstop_loader::{LoadFailure, SyntheticWeights};
use backstop_types::{Executor, KvSpec};
use backstop_weights::Checkpoint;

use crate::device::{KeptWeights, StepDevice};
use crate::executor::{DeviceExecutor, WorkerSettings};
use crate::probe::Probe;

pub use device_memory::DeviceMemoryError;
pub use draft_head::DraftHeadSource;
pub use host_memory::HostMemoryError;
pub use memory::{KvMemoryError, KvMemoryPlan, KvMemoryRequest, format_bytes, plan_kv_memory};
pub use weight_cache::PlannedCache;

/// What computes a model.
#[derive(Clone)]
#[expect(
    missing_debug_implementations,
    reason = "devices have no useful text form"
)]
pub enum ComputeDevice {
    /// The machine's processors.
    Cpu {
        /// Bytes of memory that can be taken, where the system says so.
        free_bytes: Option<u64>,
    },
    /// A card.
    Cuda(Arc<dyn Device>),
    /// One of candle's devices.
    #[cfg(feature = "candle")]
    Candle {
        /// Which.
        device: backstop_candle::CandleDevice,
        /// Bytes of the machine's memory that can be taken, where the system says so.
        free_bytes: Option<u64>,
    },
}

impl ComputeDevice {
    /// Whether it is no processor, so that large steps pay.
    pub fn is_gpu(&self) -> bool {
        match self {
            Self::Cpu { .. } => false,
            Self::Cuda(_) => true,
            #[cfg(feature = "candle")]
            Self::Candle { device, .. } => device.is_gpu(),
        }
    }

    /// Whether a row's result depends on nothing else in its batch, to the last bit.
    pub fn is_batch_invariant(&self) -> bool {
        match self {
            Self::Cpu { .. } | Self::Cuda(_) => true,
            #[cfg(feature = "candle")]
            Self::Candle { .. } => false,
        }
    }

    /// As messages name it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cpu { .. } => "the CPU",
            Self::Cuda(_) => "the GPU",
            #[cfg(feature = "candle")]
            Self::Candle { device, .. } => device.kind().name(),
        }
    }
}

/// A model, and where its weights come from.
#[derive(Debug)]
pub struct ModelSource {
    /// What its configuration says.
    pub model: AnyModel,
    /// Its files.
    pub checkpoint: Checkpoint,
    /// Weights that are made instead of read.
    pub synthetic: Option<SyntheticWeights>,
}

/// What a model is to do.
#[derive(Clone, Copy, Debug)]
pub struct PlanRequest {
    /// Sequences that run at once.
    pub max_num_seqs: u32,
    /// Tokens of a step.
    pub max_num_batched_tokens: u32,
    /// Tokens of a sequence.
    pub max_model_len: u32,
    /// Positions in a block of the KV cache.
    pub block_size: u32,
    /// Number format of the KV cache.
    pub kv_element: Element,
    /// Bytes of the KV cache, or `None` for what the device has left, or a share of what it has.
    pub kv_cache_bytes: Option<u64>,
    /// Threads of the processors.
    pub num_threads: usize,
    /// Share of a card's memory that may be in use.
    pub memory_utilization: f64,
    /// Record the decode steps of a card as graphs.
    pub graphs: bool,
}

/// Bytes of what a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedBytes {
    /// Its weights.
    pub weights: u64,
    /// Keys and values.
    pub kv: u64,
    /// Activations, tables and so on, where a device has them sized beforehand.
    pub work: Option<u64>,
}

/// Why a model does not run on a device.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// There are no kernels for it, or for the formats of its weights, whatever the settings.
    #[error("{0}: choose --device cpu")]
    Model(Refusal),
    /// There are no kernels for the KV cache that the settings ask for.
    #[error("{0}: choose another --kv-cache-dtype or --block-size, or --device cpu")]
    Cache(Refusal),
    /// There are no kernels for the draft head that the settings ask for.
    #[error("{0}: choose the method ngram in --speculative-config, or --device cpu")]
    DraftHead(Refusal),
    /// Its weights are not those of the model.
    #[error(transparent)]
    Weights(LoadFailure),
    /// It does not fit into the machine's memory.
    #[error(transparent)]
    HostMemory(#[from] HostMemoryError),
    /// The KV cache does not hold a sequence.
    #[error(transparent)]
    KvMemory(#[from] KvMemoryError),
    /// It does not fit into a card's memory.
    #[error(transparent)]
    DeviceMemory(#[from] DeviceMemoryError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Why a planned model did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its weights could not be read.
    #[error(transparent)]
    Weights(#[from] LoadFailure),
    /// Those of its draft head could not be read.
    #[error("model in --speculative-config: {directory}: {failure}")]
    DraftHead {
        /// Where it lies.
        directory: String,
        /// Why.
        failure: Box<LoadFailure>,
    },
    /// There are no threads left.
    #[error("cannot start the executor: {0}")]
    Threads(#[from] std::io::Error),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// One of candle's devices failed.
    #[cfg(feature = "candle")]
    #[error("candle: {0}")]
    Candle(#[from] backstop_candle::CandleError),
}

/// What a start is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartStage {
    /// Memory is taken: of the KV cache, and on a GPU of everything.
    Memory,
    /// Weights are read or made.
    Loading,
    /// They are brought into the order in which the device computes fastest.
    Arranging,
}

/// Is told the stage of a start, and how many bytes of how many are done.
pub type Progress<'a> = &'a (dyn Fn(StartStage, u64, u64) + Sync);

/// How a model comes to its device, as often as it must: at the start, and after each sleep.
pub(crate) struct Recipe {
    device: Box<dyn DevicePlan>,
    source: ModelSource,
}

impl Recipe {
    /// The device, with weights from the source or those that were kept of it.
    pub(crate) fn load(
        &self,
        kept: Option<&KeptWeights>,
        progress: Progress<'_>,
    ) -> Result<(Box<dyn StepDevice>, WorkerSettings), StartError> {
        self.device.load(&self.source, kept, progress)
    }
}

/// Sizes of everything that a model takes on a device.
#[expect(
    missing_debug_implementations,
    reason = "devices have no useful text form"
)]
pub struct Plan {
    bytes: PlannedBytes,
    device: Box<dyn DevicePlan>,
}

/// A device's part of a plan.
pub(crate) trait DevicePlan: Send {
    /// What computes, as far as answers depend on it.
    fn arithmetic(&self) -> String;

    /// See [`Plan::use_cache`].
    fn use_cache(&mut self, _cache: &Arc<PlannedCache>) -> bool {
        false
    }

    /// Takes the memory and brings the weights there: from the source, or those that an earlier device of the same
    /// plan left.
    fn load(
        &self,
        source: &ModelSource,
        kept: Option<&KeptWeights>,
        progress: Progress<'_>,
    ) -> Result<(Box<dyn StepDevice>, WorkerSettings), StartError>;
}

impl From<LoadFailure> for PlanError {
    fn from(failure: LoadFailure) -> Self {
        match failure {
            LoadFailure::NotForDevice(refusal) => Self::Model(refusal),
            failure => Self::Weights(failure),
        }
    }
}

impl PlanRequest {
    /// Compares the settings with what a device is able to do. What the model needs comes before: if it lacks
    /// something, no setting helps.
    fn check(
        &self,
        abilities: &Abilities,
        head: Option<&DraftHeadSource>,
    ) -> Result<(), PlanError> {
        let cache = abilities.check_cache(self.kv_element, self.block_size);
        cache.map_err(PlanError::Cache)?;
        match head {
            Some(_) => abilities.check_draft_head().map_err(PlanError::DraftHead),
            None => Ok(()),
        }
    }

    /// What the KV cache is wanted for, without a budget.
    fn kv_memory(&self) -> KvMemoryRequest {
        KvMemoryRequest {
            budget_bytes: 0,
            block_size: self.block_size,
            element_bytes: self.kv_element.bytes() as u32,
            max_num_seqs: self.max_num_seqs,
            max_model_len: self.max_model_len,
            max_num_batched_tokens: self.max_num_batched_tokens,
        }
    }
}

/// The groups' shares of a KV cache with these pools.
fn layouts(groups: &[KvGroup], kv: &KvSpec) -> Vec<KvGroupLayout> {
    let pools = groups.iter().zip(&kv.groups);
    pools
        .map(|(group, pool)| group.layout(pool.num_blocks))
        .collect()
}

impl Plan {
    /// Sizes everything. What the device is not able to do is refused here, so that a panic from here on is a bug.
    pub fn new(
        device: &ComputeDevice,
        source: &ModelSource,
        request: &PlanRequest,
        head: Option<DraftHeadSource>,
    ) -> Result<Self, PlanError> {
        match device {
            ComputeDevice::Cpu { free_bytes } => cpu::plan(*free_bytes, source, request, head),
            ComputeDevice::Cuda(device) => cuda::plan(device, source, request, head),
            #[cfg(feature = "candle")]
            ComputeDevice::Candle { device, free_bytes } => {
                candle::plan(device, *free_bytes, source, request, head)
            }
        }
    }

    /// Takes weights from this cache, or leaves them there to be written. Says no on a device that takes them from
    /// the files as they are.
    pub fn use_cache(&mut self, cache: &Arc<PlannedCache>) -> bool {
        self.device.use_cache(cache)
    }

    /// Bytes of everything.
    pub fn bytes(&self) -> PlannedBytes {
        self.bytes
    }

    /// What computes, as far as answers depend on it: processors and cards round differently.
    pub fn arithmetic(&self) -> String {
        self.device.arithmetic()
    }

    /// Takes the memory, brings the weights there and starts the executor, which can sleep.
    pub fn start(
        self,
        source: ModelSource,
        progress: Progress<'_>,
    ) -> Result<Box<dyn Executor>, StartError> {
        let recipe = Recipe {
            device: self.device,
            source,
        };
        Ok(Box::new(DeviceExecutor::of_recipe(recipe, progress)?))
    }

    /// The same, to look at what the model computes rather than to serve it.
    pub fn probe(self, source: ModelSource, progress: Progress<'_>) -> Result<Probe, StartError> {
        let (device, settings) = self.device.load(&source, None, progress)?;
        Ok(Probe::new(device, settings)?)
    }
}
