//! Finds out what memory steps need before any is taken: the model's operations are queued on a
//! device that only counts.

use std::sync::Arc;

use backstop_kernels::{Element, KvGroupLayout};

use super::{Runner, RunnerConfig, graph_rows, largest_graph};
use crate::arena::Arena;
use crate::backend::{AttentionMemory, AttentionNeeds, CudaBackend, StepLimits};
use crate::device::{Device, DeviceError, DeviceFacts, DevicePointer};
use crate::kv_cache::CudaKvCache;
use crate::planning::PlanningDevice;
use crate::step::StepMemory;
use crate::weights::CudaWeights;

/// Room for orders of pieces that no rehearsal saw: one part in this many.
const ARENA_MARGIN: usize = 16;

/// What a rehearsal found.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// What the model asks of attention.
    pub needs: AttentionNeeds,
    /// Bytes for activations.
    pub arena_bytes: usize,
    /// Bytes of device memory besides weights, keys and values; the arena is among them.
    pub device_bytes: u64,
}

/// What the steps of a rehearsal are as large as.
#[derive(Clone, Copy, Debug)]
pub struct RehearsalSizes {
    /// The largest steps.
    pub limits: StepLimits,
    /// Tokens.
    pub vocabulary: usize,
    /// Positions in a block of the KV cache.
    pub block_size: u32,
}

/// Rehearses the largest steps, and the decode steps that are recorded. `groups` are the KV
/// groups with any number of blocks.
pub fn rehearse(
    facts: &DeviceFacts,
    weights: &Arc<CudaWeights>,
    groups: &[KvGroupLayout],
    sizes: RehearsalSizes,
    forward: &mut dyn FnMut(&mut CudaBackend),
) -> Result<Rehearsal, DeviceError> {
    let RehearsalSizes {
        limits,
        vocabulary,
        block_size,
    } = sizes;
    let planning = Arc::new(PlanningDevice::new(facts.clone()));
    let device: Arc<dyn Device> = planning.clone();
    let groups: Vec<KvGroupLayout> = groups
        .iter()
        .map(|group| KvGroupLayout {
            num_blocks: 1,
            ..group.clone()
        })
        .collect();
    let cache = || CudaKvCache::new(&device, &groups, block_size, Element::BF16);
    // Anywhere but at the address that stands for no memory.
    let arena = Arena::new(device.allocate(0)?, usize::MAX / 2);
    let counts = [limits.rows, limits.logit_rows(), limits.sequences];
    let memory = StepMemory::new(&device, counts, DevicePointer::NULL)?;
    let mut backend = CudaBackend::new(
        &device,
        Arc::clone(weights),
        cache()?,
        arena,
        AttentionMemory::rehearsal(),
        memory.shape(1, 1),
    )?;
    let largest = [limits.rows, largest_graph(limits)];
    for rows in graph_rows(limits.rows).into_iter().chain(largest) {
        backend.begin(memory.shape(rows, rows.min(limits.logit_rows())));
        forward(&mut backend);
        if let Some(error) = backend.take_error() {
            return Err(error);
        }
    }
    let needs = backend.attention_needs().clone();
    let peak = backend.arena().peak_bytes();
    drop(backend);

    let arena_bytes = (peak + peak / ARENA_MARGIN).next_multiple_of(1 << 20);
    let kv = cache()?;
    let before = planning.allocated_bytes();
    let _runner = Runner::new(RunnerConfig {
        device,
        weights: Arc::clone(weights),
        kv,
        needs: needs.clone(),
        limits,
        vocabulary,
        arena_bytes,
    })?;
    Ok(Rehearsal {
        needs,
        arena_bytes,
        device_bytes: planning.allocated_bytes() - before,
    })
}
