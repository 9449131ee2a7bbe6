//! Divides the machine's memory between weights and KV cache.

use backstop_arch::KvGroup;

use super::memory::{
    KvMemoryPlan, KvMemoryRequest, format_bytes, full_demand_bytes, plan_kv_memory,
};
use super::{PlanError, PlanRequest};

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

/// Sizes the KV cache, and compares it and the weights with what is free, if that is known.
pub(super) fn plan_host_memory(
    free_bytes: Option<u64>,
    groups: &[KvGroup],
    weights_bytes: u64,
    request: &PlanRequest,
) -> Result<KvMemoryPlan, PlanError> {
    let kv = kv_memory(free_bytes, groups, request)?;
    match free_bytes {
        Some(free_bytes) if weights_bytes + kv.bytes > free_bytes => {
            Err(PlanError::HostMemory(HostMemoryError::Weights {
                weights_bytes,
                kv_bytes: kv.bytes,
                free_bytes,
            }))
        }
        _ => Ok(kv),
    }
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
