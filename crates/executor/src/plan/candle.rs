//! A plan for one of candle's devices.

use std::sync::Arc;

use backstop_candle::{
    CandleBackend, CandleDevice, CandleKvCache, CandleWeights, DeviceMemory, StepSizes, abilities,
};
use backstop_loader::{HostWeight, Sources, load_one_by_one};

use super::device_memory::{DeviceMemoryRequest, plan_device_memory};
use super::host_memory::plan_host_memory;
use super::memory::{KvMemoryPlan, format_bytes};
use super::{
    DevicePlan, DraftHeadSource, ModelSource, Plan, PlanError, PlanRequest, PlannedBytes, Progress,
    StartError, StartStage, layouts,
};
use crate::CandleExecutorConfig;
use crate::device::{KeptWeights, StepDevice};
use crate::executor::WorkerSettings;

struct CandlePlan {
    device: CandleDevice,
    request: PlanRequest,
    kv: KvMemoryPlan,
}

pub(super) fn plan(
    device: &CandleDevice,
    free_bytes: Option<u64>,
    source: &ModelSource,
    request: &PlanRequest,
    head: Option<DraftHeadSource>,
) -> Result<Plan, PlanError> {
    let (abilities, spec) = (abilities(device.kind()), source.model.spec());
    let able = abilities.check(&source.model.needs());
    able.map_err(PlanError::Model)?;
    request.check(&abilities, head.as_ref())?;
    let weights = weights_bytes(device, source)?;
    let work = device.work_bytes(&step_sizes(source, request));
    let kv = match device.memory() {
        Some(memory) => {
            let request = memory_request(memory, weights, work, request);
            plan_device_memory(&spec.kv_groups, &request)?
        }
        None => plan_host_memory(free_bytes, &spec.kv_groups, weights, request)?,
    };
    Ok(Plan {
        bytes: PlannedBytes {
            weights,
            kv: kv.bytes,
            work: Some(work),
        },
        device: Box::new(CandlePlan {
            device: device.clone(),
            request: *request,
            kv,
        }),
    })
}

/// Bytes of the weights on the device; the log says if they are more than the checkpoint has.
fn weights_bytes(device: &CandleDevice, source: &ModelSource) -> Result<u64, PlanError> {
    let spec = source.model.spec();
    let (stored, bytes) = match &source.synthetic {
        Some(synthetic) => (
            synthetic.cpu_bytes(spec),
            synthetic.bytes_as(spec, |format, numbers| device.bytes_of(format, numbers)),
        ),
        None => {
            let sources = Sources::of(&source.checkpoint, &spec.weights)?;
            let bytes = sources.bytes_as(|format, numbers| device.bytes_of(format, numbers));
            (source.checkpoint.bytes_total(), bytes)
        }
    };
    if bytes > stored {
        tracing::info!(
            "weights of {} take {} here: {} computes with wider numbers",
            format_bytes(stored),
            format_bytes(bytes),
            device.kind().name()
        );
    }
    Ok(bytes)
}

/// What decides how much memory a step takes.
fn step_sizes(source: &ModelSource, request: &PlanRequest) -> StepSizes {
    let (spec, needs) = (source.model.spec(), source.model.needs());
    let matrices = spec.weights.matrices.iter();
    let head = spec.head.0 as usize;
    let inner = matrices.enumerate().filter(|&(index, _)| index != head);
    let widest = inner
        .map(|(_, matrix)| matrix.rows().max(matrix.columns))
        .max();
    let heads = needs.attention.iter();
    StepSizes {
        rows: request.max_num_batched_tokens as usize,
        logit_rows: crate::host_sampling::logit_rows(request.max_num_seqs) as usize,
        positions: request.max_model_len as usize,
        widest: widest.unwrap_or(0),
        experts_per_token: needs.sizes.experts_per_token,
        vocabulary: spec.vocabulary_size as usize,
        heads: heads
            .clone()
            .map(|shape| shape.heads as usize)
            .max()
            .unwrap_or(0),
        position_numbers: heads
            .map(|shape| 2 * (shape.kv_heads * shape.head_dim) as usize)
            .max()
            .unwrap_or(0),
    }
}

fn memory_request(
    memory: DeviceMemory,
    weights_bytes: u64,
    activation_bytes: u64,
    request: &PlanRequest,
) -> DeviceMemoryRequest {
    DeviceMemoryRequest {
        total_bytes: memory.total_bytes,
        free_bytes: memory.free_bytes,
        utilization: request.memory_utilization,
        weights_bytes,
        activation_bytes,
        fixed_bytes: 0,
        kv_cache_bytes: request.kv_cache_bytes,
        kv: request.kv_memory(),
    }
}

impl DevicePlan for CandlePlan {
    fn arithmetic(&self) -> String {
        self.device.kind().name().to_owned()
    }

    fn load(
        &self,
        source: &ModelSource,
        _kept: Option<&KeptWeights>,
        progress: Progress<'_>,
    ) -> Result<(Box<dyn StepDevice>, WorkerSettings), StartError> {
        let Self {
            device,
            request,
            kv,
        } = self;
        let weights = weights(device, source, progress)?;
        progress(StartStage::Memory, 0, kv.bytes);
        let layouts = layouts(&source.model.spec().kv_groups, &kv.spec);
        let cache = CandleKvCache::new(&layouts, request.block_size, request.kv_element, device)?;
        let config = CandleExecutorConfig {
            model: Box::new(source.model.clone()),
            backend: CandleBackend::new(Arc::new(weights), cache),
            kv: kv.spec.clone(),
            max_num_seqs: request.max_num_seqs,
            num_threads: request.num_threads,
        };
        Ok(config.device())
    }
}

/// The weights, of which the host holds one at a time.
fn weights(
    device: &CandleDevice,
    source: &ModelSource,
    progress: Progress<'_>,
) -> Result<CandleWeights, StartError> {
    let spec = source.model.spec();
    let mut weights = CandleWeights::new(device);
    let take = &mut |weight| -> Result<(), StartError> {
        match weight {
            HostWeight::Vector(vector) => weights.push_vector(vector)?,
            HostWeight::Matrix(matrix) => weights.push_matrix(&matrix)?,
            HostWeight::Experts(experts) => weights.push_experts(&experts)?,
        }
        Ok(())
    };
    match &source.synthetic {
        Some(synthetic) => {
            let total = synthetic.cpu_bytes(spec);
            let loading = |done| progress(StartStage::Loading, done, total);
            synthetic.make_one_by_one(spec, &loading, take)?;
        }
        None => {
            let total = source.checkpoint.bytes_total();
            let loading = |done| progress(StartStage::Loading, done, total);
            load_one_by_one(&source.checkpoint, spec, &loading, take)?;
        }
    }
    Ok(weights)
}
