//! Everything on a card that a model needs, sized before any memory is taken.

use std::sync::Arc;

use backstop_arch::{AnyModel, KvGroup, Model, ModelSpec};
use backstop_card::backend::{CudaBackend, StepLimits};
use backstop_card::planning::PlanningDevice;
use backstop_card::runner::{Rehearsal, Runner, RunnerConfig, rehearse};
use backstop_card::{ABILITIES, CudaKvCache, CudaWeights, Device, DeviceError, DeviceFacts};
use backstop_kernels::{Element, KvGroupLayout, Refusal};
use backstop_loader::{DeviceWeightPlan, LoadFailure};

use crate::device_memory::{DeviceMemoryError, DeviceMemoryRequest, plan_device_memory};
use crate::memory::{KvMemoryPlan, KvMemoryRequest};
use crate::{CudaExecutorConfig, DeviceExecutor};

/// What a model is to do on a card.
#[derive(Clone, Copy, Debug)]
pub struct CudaRequest {
    /// Sequences that run at once.
    pub max_num_seqs: u32,
    /// Tokens of a step.
    pub max_num_batched_tokens: u32,
    /// Tokens of a sequence.
    pub max_model_len: u32,
    /// Positions in a block of the KV cache.
    pub block_size: u32,
    /// Number format of the KV cache: BF16 or E4M3.
    pub kv_element: Element,
    /// Bytes of the KV cache, or `None` for what is left.
    pub kv_cache_bytes: Option<u64>,
    /// Share of the card's memory that may be in use.
    pub memory_utilization: f64,
    /// Record the decode steps as graphs.
    pub graphs: bool,
}

/// Why a model does not run on a card.
#[derive(Debug, thiserror::Error)]
pub enum CudaPlanError {
    /// There are no kernels for it, whatever the settings.
    #[error("{0}: choose --device cpu")]
    Model(Refusal),
    /// There are no kernels for the KV cache that the settings ask for.
    #[error("{0}: choose another --kv-cache-dtype or --block-size, or --device cpu")]
    Cache(Refusal),
    /// It does not fit.
    #[error(transparent)]
    Memory(#[from] DeviceMemoryError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Sizes of everything.
#[derive(Clone, Debug)]
pub struct CudaPlan {
    request: CudaRequest,
    weights: DeviceWeightPlan,
    rehearsal: Rehearsal,
    limits: StepLimits,
    groups: Vec<KvGroup>,
    vocabulary: usize,
    /// The KV cache.
    pub kv: KvMemoryPlan,
}

impl CudaPlan {
    /// Sizes everything for a card with these facts, of whose memory so much is free. What it refuses, it refuses
    /// before anything is done: a panic in here is a bug.
    pub fn new(
        facts: &DeviceFacts,
        free_bytes: u64,
        model: &AnyModel,
        weights: DeviceWeightPlan,
        request: CudaRequest,
    ) -> Result<Self, CudaPlanError> {
        ABILITIES
            .check(&model.needs())
            .map_err(CudaPlanError::Model)?;
        let cache = ABILITIES.check_cache(request.kv_element, request.block_size);
        cache.map_err(CudaPlanError::Cache)?;
        let spec = model.spec();
        let limits = StepLimits {
            rows: request.max_num_batched_tokens as usize,
            sequences: request.max_num_seqs as usize,
            positions: request.max_model_len as usize,
        };
        let rehearsal = rehearsed(facts, model, &weights, limits, &request)?;
        let activation_bytes = rehearsal.arena_bytes as u64;
        let memory = DeviceMemoryRequest {
            total_bytes: facts.memory_bytes,
            free_bytes,
            utilization: request.memory_utilization,
            weights_bytes: weights.bytes(),
            activation_bytes,
            fixed_bytes: rehearsal.device_bytes.saturating_sub(activation_bytes),
            kv_cache_bytes: request.kv_cache_bytes,
            kv: request.kv_request(),
        };
        let kv = plan_device_memory(&spec.kv_groups, &memory)?;
        Ok(Self {
            groups: spec.kv_groups.clone(),
            vocabulary: spec.vocabulary_size as usize,
            request,
            weights,
            rehearsal,
            limits,
            kv,
        })
    }

    /// Bytes of activations, tables and so on: everything but weights and KV cache.
    pub fn work_bytes(&self) -> u64 {
        self.rehearsal.device_bytes
    }

    /// Takes all memory, lets `fill` fill the weights, and starts the executor.
    pub fn start(
        self,
        device: &Arc<dyn Device>,
        model: Box<dyn Model<CudaBackend>>,
        fill: impl FnOnce(&ModelSpec, &CudaWeights) -> Result<(), LoadFailure>,
    ) -> Result<DeviceExecutor, LoadFailure> {
        let weights = Arc::new(self.weights.reserve(device)?);
        let pools = self.kv.spec.groups.iter().map(|pool| pool.num_blocks);
        let layouts = layouts(&self.groups, pools);
        let CudaRequest {
            block_size,
            kv_element,
            ..
        } = self.request;
        let runner = Runner::new(RunnerConfig {
            device: Arc::clone(device),
            weights: Arc::clone(&weights),
            kv: CudaKvCache::new(device, &layouts, block_size, kv_element)?,
            needs: self.rehearsal.needs,
            limits: self.limits,
            vocabulary: self.vocabulary,
            arena_bytes: self.rehearsal.arena_bytes,
        })?;
        fill(model.spec(), &weights)?;
        let executor = CudaExecutorConfig {
            model,
            runner,
            kv: self.kv.spec,
            max_num_seqs: self.request.max_num_seqs,
            graphs: self.request.graphs,
        };
        Ok(executor.start()?)
    }
}

impl CudaRequest {
    fn kv_request(&self) -> KvMemoryRequest {
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

/// Rehearses the largest steps with weights that take no memory.
fn rehearsed(
    facts: &DeviceFacts,
    model: &AnyModel,
    weights: &DeviceWeightPlan,
    limits: StepLimits,
    request: &CudaRequest,
) -> Result<Rehearsal, CudaPlanError> {
    let spec = model.spec();
    let planning: Arc<dyn Device> = Arc::new(PlanningDevice::new(facts.clone()));
    let weights = Arc::new(weights.reserve(&planning)?);
    let groups = layouts(&spec.kv_groups, std::iter::repeat(1));
    let vocabulary = spec.vocabulary_size as usize;
    let sizes = (limits, vocabulary, request.block_size);
    let rehearsal = rehearse(facts, &weights, &groups, sizes, &mut |backend| {
        model.forward(backend);
    });
    Ok(rehearsal?)
}

fn layouts(groups: &[KvGroup], blocks: impl Iterator<Item = u32>) -> Vec<KvGroupLayout> {
    let pools = groups.iter().zip(blocks);
    pools
        .map(|(group, num_blocks)| group.layout(num_blocks))
        .collect()
}
