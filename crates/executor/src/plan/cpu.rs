//! A plan for the machine's processors.

use std::sync::Arc;

use backstop_arch::KvGroup;
use backstop_kernels::{Abilities, CpuBackend, CpuKvCache, CpuWeights};
use backstop_loader::load_cpu_weights;
use backstop_types::Executor;

use super::memory::{
    KvMemoryPlan, KvMemoryRequest, format_bytes, full_demand_bytes, plan_kv_memory,
};
use super::{
    DevicePlan, DraftHeadSource, ModelSource, Plan, PlanError, PlanRequest, PlannedBytes, Progress,
    StartError, StartStage, layouts,
};
use crate::CpuExecutorConfig;

/// The KV cache takes by default what the sequences can need, but no larger share of the free memory than one part in
/// this many.
const KV_SHARE_OF_FREE_MEMORY: u64 = 4;
/// What it takes at most where the system does not say what is free.
const KV_BYTES_MAX_IF_UNKNOWN: u64 = 4 << 30;

/// A model does not fit into the machine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostMemoryError {
    /// Its KV cache alone does not.
    #[error(
        "--kv-cache-memory {} is more than the {} that are free on this machine",
        format_bytes(*.asked_bytes),
        format_bytes(*.free_bytes)
    )]
    Cache {
        /// What was asked for.
        asked_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
    /// Its weights do not fit beside it.
    #[error(
        "{} of weights and {} of KV cache are {} more than the machine has free: lower \
         --kv-cache-memory or serve a smaller model",
        format_bytes(*.weights_bytes),
        format_bytes(*.kv_bytes),
        format_bytes(.weights_bytes + .kv_bytes - .free_bytes)
    )]
    Weights {
        /// Weights.
        weights_bytes: u64,
        /// KV cache.
        kv_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
}

struct CpuPlan {
    request: PlanRequest,
    kv: KvMemoryPlan,
    head: Option<DraftHeadSource>,
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
    let kv = kv_memory(free_bytes, &groups, request)?;
    let model_bytes = match &source.synthetic {
        None => source.checkpoint.bytes_total(),
        Some(synthetic) => synthetic.cpu_bytes(spec),
    };
    let weights_bytes = model_bytes + head.as_ref().map_or(0, DraftHeadSource::weights_bytes);
    if let Some(free_bytes) = free_bytes
        && weights_bytes + kv.bytes > free_bytes
    {
        return Err(PlanError::HostMemory(HostMemoryError::Weights {
            weights_bytes,
            kv_bytes: kv.bytes,
            free_bytes,
        }));
    }
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
        }),
    })
}

/// The KV pools that the settings and the free memory allow.
fn kv_memory(
    free_bytes: Option<u64>,
    groups: &[KvGroup],
    request: &PlanRequest,
) -> Result<KvMemoryPlan, PlanError> {
    let kv = request.kv_memory();
    let budget_bytes = match (request.kv_cache_bytes, free_bytes) {
        (Some(asked_bytes), Some(free_bytes)) if asked_bytes > free_bytes => {
            return Err(PlanError::HostMemory(HostMemoryError::Cache {
                asked_bytes,
                free_bytes,
            }));
        }
        (Some(asked_bytes), _) => asked_bytes,
        (None, free_bytes) => {
            let share = free_bytes.map_or(KV_BYTES_MAX_IF_UNKNOWN, |free| {
                free / KV_SHARE_OF_FREE_MEMORY
            });
            full_demand_bytes(groups, &kv).min(share)
        }
    };
    let kv = KvMemoryRequest { budget_bytes, ..kv };
    Ok(plan_kv_memory(groups, &kv)?)
}

impl DevicePlan for CpuPlan {
    fn arithmetic(&self) -> String {
        format!("{:?}", backstop_kernels::features())
    }

    fn start(
        self: Box<Self>,
        source: ModelSource,
        progress: Progress<'_>,
    ) -> Result<Box<dyn Executor>, StartError> {
        let Self { request, kv, head } = *self;
        let weights = weights(&source, progress)?;
        let spec = source.model.spec();
        let drafter = head.map(|head| head.start(spec, &weights, &kv.spec, request.kv_element));
        let drafter = drafter.transpose()?;
        let layouts = layouts(&spec.kv_groups, &kv.spec);
        let cache = CpuKvCache::new(&layouts, request.block_size, request.kv_element);
        let config = CpuExecutorConfig {
            model: Box::new(source.model),
            backend: CpuBackend::new(Arc::new(weights), cache),
            kv: kv.spec,
            max_num_seqs: request.max_num_seqs,
            num_threads: request.num_threads,
            drafter,
        };
        Ok(Box::new(config.start()?))
    }
}

/// Weights in the order in which this machine computes fastest.
fn weights(source: &ModelSource, progress: Progress<'_>) -> Result<CpuWeights, StartError> {
    let spec = source.model.spec();
    if let Some(synthetic) = &source.synthetic {
        let total = synthetic.cpu_bytes(spec);
        let loading = |done| progress(StartStage::Loading, done, total);
        return Ok(synthetic.make_on_cpu(spec, &loading));
    }
    let total = source.checkpoint.bytes_total();
    let loading = |done| progress(StartStage::Loading, done, total);
    let weights = load_cpu_weights(&source.checkpoint, spec, &loading)?;
    let total = weights.bytes() as u64;
    Ok(weights.arranged(&|done| progress(StartStage::Arranging, done, total)))
}
