//! A plan for a card: everything is sized by rehearsing the largest steps on a device that only counts.

use std::sync::Arc;

use backstop_arch::{AnyModel, Model};
use backstop_card::backend::StepLimits;
use backstop_card::planning::PlanningDevice;
use backstop_card::runner::{Rehearsal, RehearsalSizes, Runner, RunnerConfig, rehearse};
use backstop_card::{ABILITIES, CudaKvCache, CudaWeights, Device, DeviceFacts};
use backstop_kernels::KvGroupLayout;
use backstop_loader::{DeviceWeightPlan, LoadFailure, load_device_weights};

use super::device_memory::{DeviceMemoryRequest, plan_device_memory};
use super::memory::KvMemoryPlan;
use super::{
    DevicePlan, DraftHeadSource, ModelSource, Plan, PlanError, PlanRequest, PlannedBytes, Progress,
    StartError, StartStage, layouts,
};
use crate::CudaExecutorConfig;
use crate::device::{KeptWeights, StepDevice};
use crate::executor::WorkerSettings;

struct CudaPlan {
    device: Arc<dyn Device>,
    request: PlanRequest,
    weights: DeviceWeightPlan,
    rehearsal: Rehearsal,
    kv: KvMemoryPlan,
}

pub(super) fn plan(
    device: &Arc<dyn Device>,
    source: &ModelSource,
    request: &PlanRequest,
    head: Option<DraftHeadSource>,
) -> Result<Plan, PlanError> {
    let (spec, facts) = (source.model.spec(), device.facts());
    let able = ABILITIES.check(&source.model.needs());
    able.map_err(PlanError::Model)?;
    let weights = match &source.synthetic {
        None => DeviceWeightPlan::of_checkpoint(&source.checkpoint, spec)?,
        Some(synthetic) => DeviceWeightPlan::of_synthetic(synthetic, spec),
    };
    request.check(&ABILITIES, head.as_ref())?;
    let rehearsal = rehearsed(facts, &source.model, &weights, request)?;
    let activation_bytes = rehearsal.arena_bytes as u64;
    let memory = DeviceMemoryRequest {
        total_bytes: facts.memory_bytes,
        free_bytes: device.free_bytes()?,
        utilization: request.memory_utilization,
        weights_bytes: weights.bytes(),
        activation_bytes,
        fixed_bytes: rehearsal.device_bytes.saturating_sub(activation_bytes),
        kv_cache_bytes: request.kv_cache_bytes,
        kv: request.kv_memory(),
    };
    let kv = plan_device_memory(&spec.kv_groups, &memory)?;
    Ok(Plan {
        bytes: PlannedBytes {
            weights: weights.bytes(),
            kv: kv.bytes,
            work: Some(rehearsal.device_bytes),
        },
        device: Box::new(CudaPlan {
            device: Arc::clone(device),
            request: *request,
            weights,
            rehearsal,
            kv,
        }),
    })
}

/// Rehearses the largest steps with weights that take no memory.
fn rehearsed(
    facts: &DeviceFacts,
    model: &AnyModel,
    weights: &DeviceWeightPlan,
    request: &PlanRequest,
) -> Result<Rehearsal, PlanError> {
    let spec = model.spec();
    let planning: Arc<dyn Device> = Arc::new(PlanningDevice::new(facts.clone()));
    let weights = Arc::new(weights.reserve(&planning)?);
    let groups: Vec<KvGroupLayout> = spec.kv_groups.iter().map(|group| group.layout(1)).collect();
    let vocabulary = spec.vocabulary_size as usize;
    let sizes = RehearsalSizes {
        limits: limits(request),
        vocabulary,
        block_size: request.block_size,
    };
    let rehearsal = rehearse(facts, &weights, &groups, sizes, &mut |backend| {
        model.forward(backend);
    });
    Ok(rehearsal?)
}

/// The largest steps.
fn limits(request: &PlanRequest) -> StepLimits {
    StepLimits {
        rows: request.max_num_batched_tokens as usize,
        sequences: request.max_num_seqs as usize,
        positions: request.max_model_len as usize,
    }
}

impl DevicePlan for CudaPlan {
    fn arithmetic(&self) -> String {
        self.device.facts().name.clone()
    }

    fn load(
        &self,
        source: &ModelSource,
        kept: Option<&KeptWeights>,
        progress: Progress<'_>,
    ) -> Result<(Box<dyn StepDevice>, WorkerSettings), StartError> {
        let (device, request, spec) = (&self.device, &self.request, source.model.spec());
        progress(StartStage::Memory, 0, self.kv.bytes);
        let weights = Arc::new(self.weights.reserve(device)?);
        let layouts = layouts(&spec.kv_groups, &self.kv.spec);
        let runner = Runner::new(RunnerConfig {
            device: Arc::clone(device),
            weights: Arc::clone(&weights),
            kv: CudaKvCache::new(device, &layouts, request.block_size, request.kv_element)?,
            needs: self.rehearsal.needs.clone(),
            limits: limits(request),
            vocabulary: spec.vocabulary_size as usize,
            arena_bytes: self.rehearsal.arena_bytes,
        })?;
        match kept {
            Some(KeptWeights::Cuda(copy)) => weights.fill_from(copy, &|done| {
                progress(StartStage::Loading, done, weights.bytes() as u64);
            })?,
            _ => fill(source, &weights, progress)?,
        }
        let config = CudaExecutorConfig {
            runner,
            model: Box::new(source.model.clone()),
            kv: self.kv.spec.clone(),
            max_num_seqs: request.max_num_seqs,
            graphs: request.graphs,
        };
        Ok(config.device()?)
    }
}

/// Reads or makes the weights in the memory that was reserved for them.
fn fill(
    source: &ModelSource,
    weights: &CudaWeights,
    progress: Progress<'_>,
) -> Result<(), LoadFailure> {
    let (checkpoint, spec) = (&source.checkpoint, source.model.spec());
    match &source.synthetic {
        Some(synthetic) => Ok(synthetic.make_on_device(spec, weights)?),
        None => load_device_weights(checkpoint, spec, weights, &|done| {
            progress(StartStage::Loading, done, checkpoint.bytes_total());
        }),
    }
}
