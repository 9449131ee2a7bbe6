//! A plan for the machine's processors.

use std::sync::Arc;

use backstop_kernels::{Abilities, CpuBackend, CpuKvCache, CpuWeights};
use backstop_loader::load_cpu_weights_in_panels;

use super::host_memory::plan_host_memory;
use super::memory::KvMemoryPlan;
use super::{
    DevicePlan, DraftHeadSource, ModelSource, Plan, PlanError, PlanRequest, PlannedBytes,
    PlannedCache, Progress, StartError, StartStage, layouts,
};
use crate::CpuExecutorConfig;
use crate::device::{KeptWeights, StepDevice};
use crate::executor::WorkerSettings;

struct CpuPlan {
    request: PlanRequest,
    kv: KvMemoryPlan,
    head: Option<DraftHeadSource>,
    /// Where weights are kept, if they are.
    weight_cache: Option<Arc<PlannedCache>>,
}

pub(super) fn plan(
    free_bytes: Option<u64>,
    source: &ModelSource,
    request: &PlanRequest,
    head: Option<DraftHeadSource>,
) -> Result<Plan, PlanError> {
    request.check(&Abilities::all("the CPU"), head.as_ref())?;
    let spec = source.model.spec();
    let groups = match &head {
        Some(head) => head.with_room(&spec.kv_groups),
        None => spec.kv_groups.clone(),
    };
    let model_bytes = match &source.synthetic {
        None => source.checkpoint.bytes_total(),
        Some(synthetic) => synthetic.cpu_bytes(spec),
    };
    let weights_bytes = model_bytes + head.as_ref().map_or(0, DraftHeadSource::weights_bytes);
    let kv = plan_host_memory(free_bytes, &groups, weights_bytes, request)?;
    Ok(Plan {
        bytes: PlannedBytes {
            weights: weights_bytes,
            kv: kv.bytes,
            work: None,
        },
        device: Box::new(CpuPlan {
            request: *request,
            kv,
            head,
            weight_cache: None,
        }),
    })
}

impl DevicePlan for CpuPlan {
    fn arithmetic(&self) -> String {
        format!("{:?}", backstop_kernels::features())
    }

    fn use_cache(&mut self, cache: &Arc<PlannedCache>) -> bool {
        self.weight_cache = Some(Arc::clone(cache));
        true
    }

    fn load(
        &self,
        source: &ModelSource,
        kept: Option<&KeptWeights>,
        progress: Progress<'_>,
    ) -> Result<(Box<dyn StepDevice>, WorkerSettings), StartError> {
        let Self {
            request,
            kv,
            head,
            weight_cache,
        } = self;
        let weights = match kept {
            Some(KeptWeights::Cpu(weights)) => Arc::clone(weights),
            _ => weights(source, weight_cache.as_deref(), progress)?,
        };
        let spec = source.model.spec();
        let drafter = head
            .as_ref()
            .map(|head| head.start(spec, &weights, &kv.spec, request.kv_element));
        let drafter = drafter.transpose()?;
        progress(StartStage::Memory, 0, kv.bytes);
        let layouts = layouts(&spec.kv_groups, &kv.spec);
        let cache = CpuKvCache::new(&layouts, request.block_size, request.kv_element);
        let config = CpuExecutorConfig {
            model: Box::new(source.model.clone()),
            backend: CpuBackend::new(weights, cache),
            kv: kv.spec.clone(),
            max_num_seqs: request.max_num_seqs,
            num_threads: request.num_threads,
            drafter,
        };
        Ok(config.device())
    }
}

/// Weights in the order in which this machine computes fastest: those in the cache if it has them, or else those that
/// it should have.
fn weights(
    source: &ModelSource,
    cache: Option<&PlannedCache>,
    progress: Progress<'_>,
) -> Result<Arc<CpuWeights>, StartError> {
    let kept = cache
        .map(|cache| cache.read(source, progress))
        .transpose()?;
    if let Some(weights) = kept.flatten() {
        return Ok(Arc::new(weights));
    }
    let weights = Arc::new(arranged(source, progress)?);
    if let Some(cache) = cache {
        cache.keep(&weights);
    }
    Ok(weights)
}

/// Weights as they are read or made.
fn arranged(source: &ModelSource, progress: Progress<'_>) -> Result<CpuWeights, StartError> {
    let spec = source.model.spec();
    if let Some(synthetic) = &source.synthetic {
        let total = synthetic.cpu_bytes(spec);
        let loading = |done| progress(StartStage::Loading, done, total);
        return Ok(synthetic.make_on_cpu(spec, &loading));
    }
    let total = source.checkpoint.bytes_total();
    let loading = |done| progress(StartStage::Loading, done, total);
    let weights = load_cpu_weights_in_panels(&source.checkpoint, spec, &loading)?;
    let total = weights.bytes() as u64;
    Ok(weights.arranged(&|done| progress(StartStage::Arranging, done, total)))
}
