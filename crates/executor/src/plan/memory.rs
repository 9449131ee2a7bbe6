//! Divides a memory budget between the KV pools of the attention groups.

use backstop_arch::KvGroup;
use backstop_types::{AttentionSpan, KvGroupSpec, KvSpec};

/// What the KV cache is wanted for.
#[derive(Clone, Copy, Debug)]
pub struct KvMemoryRequest {
    /// Bytes that all pools together may take.
    pub budget_bytes: u64,
    /// Token positions in a block.
    pub block_size: u32,
    /// Bytes of one stored element.
    pub element_bytes: u32,
    /// Sequences that run at once.
    pub max_num_seqs: u32,
    /// Positions of the longest sequence.
    pub max_model_len: u32,
    /// Positions that one step may add to a sequence.
    pub max_num_batched_tokens: u32,
}

/// The pools, and what they take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvMemoryPlan {
    /// Shape for the scheduler and for the allocation.
    pub spec: KvSpec,
    /// Bytes of all pools.
    pub bytes: u64,
}

/// The budget does not hold a single sequence of the maximum length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the KV cache needs {needed_bytes} bytes for one sequence of {max_model_len} tokens but may \
     take {budget_bytes}, which is {} too few: raise --kv-cache-memory or lower --max-model-len",
    needed_bytes - budget_bytes
)]
pub struct KvMemoryError {
    needed_bytes: u64,
    budget_bytes: u64,
    max_model_len: u32,
}

/// Sizes the pools so that all groups run out at about the same time.
///
/// The plan is for `max_num_seqs` sequences of one length, the largest that fits; a sliding group
/// needs no more blocks for a sequence than its window and one step span. Every pool holds at
/// least one sequence of the maximum length. If the budget exceeds what `max_num_seqs` sequences
/// of the maximum length need, the rest goes to all pools in proportion, where it serves the
/// prefix cache.
pub fn plan_kv_memory(
    groups: &[KvGroup],
    request: &KvMemoryRequest,
) -> Result<KvMemoryPlan, KvMemoryError> {
    let cost = |blocks: &[u64]| pool_bytes(groups, request, blocks);
    let at_length = |length: u32| pools_for(groups, request, length);
    let needed_bytes = least_bytes(groups, request);
    if needed_bytes > request.budget_bytes {
        return Err(KvMemoryError {
            needed_bytes,
            budget_bytes: request.budget_bytes,
            max_model_len: request.max_model_len,
        });
    }
    let length = largest(request.max_model_len, |length| {
        cost(&at_length(length)) <= request.budget_bytes
    });
    let mut blocks = at_length(length);
    if length == request.max_model_len {
        let factor = request.budget_bytes / cost(&blocks).max(1);
        for count in &mut blocks {
            *count = (*count * factor).min(u64::from(u32::MAX / 2));
        }
    }
    let specs = groups
        .iter()
        .zip(&blocks)
        .map(|(group, &count)| KvGroupSpec {
            span: group.span,
            num_blocks: u32::try_from(count).expect("bounded above"),
        });
    Ok(KvMemoryPlan {
        spec: KvSpec {
            block_size: request.block_size,
            groups: specs.collect(),
        },
        bytes: cost(&blocks),
    })
}

/// Bytes of the smallest pools that can serve a sequence of the maximum length, and that have a
/// block for each of `max_num_seqs` sequences.
pub(crate) fn least_bytes(groups: &[KvGroup], request: &KvMemoryRequest) -> u64 {
    pool_bytes(groups, request, &pools_for(groups, request, 1))
}

/// Blocks of each pool for `max_num_seqs` sequences of one length and for one of the maximum.
fn pools_for(groups: &[KvGroup], request: &KvMemoryRequest, length: u32) -> Vec<u64> {
    let pool = |group: &KvGroup| {
        let one = blocks_for(group.span, length, request);
        let longest = blocks_for(group.span, request.max_model_len, request);
        longest.max(one * u64::from(request.max_num_seqs))
    };
    groups.iter().map(pool).collect()
}

fn pool_bytes(groups: &[KvGroup], request: &KvMemoryRequest, blocks: &[u64]) -> u64 {
    let pools = groups.iter().zip(blocks);
    pools
        .map(|(group, count)| block_bytes(group, request) * count)
        .sum()
}

/// Bytes that `max_num_seqs` sequences of the maximum length need: more serves only the cache.
pub(super) fn full_demand_bytes(groups: &[KvGroup], request: &KvMemoryRequest) -> u64 {
    let sequences = u64::from(request.max_num_seqs);
    let group_bytes = |group: &KvGroup| {
        blocks_for(group.span, request.max_model_len, request) * block_bytes(group, request)
    };
    groups.iter().map(group_bytes).sum::<u64>() * sequences
}

/// Blocks that a sequence of `length` positions holds at most.
fn blocks_for(span: AttentionSpan, length: u32, request: &KvMemoryRequest) -> u64 {
    let length = u64::from(length);
    let block_size = u64::from(request.block_size);
    match span {
        AttentionSpan::Full => length.div_ceil(block_size),
        AttentionSpan::Sliding { visible_keys } => {
            // The window and one step's positions, neither aligned to blocks.
            let held = u64::from(visible_keys) + u64::from(request.max_num_batched_tokens);
            length
                .div_ceil(block_size)
                .min(held.div_ceil(block_size) + 1)
        }
    }
}

/// Keys, and values if there are any, of one block in all layers of a group.
fn block_bytes(group: &KvGroup, request: &KvMemoryRequest) -> u64 {
    (1 + u64::from(group.has_values))
        * u64::from(request.block_size)
        * u64::from(group.num_layers)
        * u64::from(group.kv_heads)
        * u64::from(group.head_dim)
        * u64::from(request.element_bytes)
}

/// The largest value in `1 ..= limit` that fits; 1 is known to fit, and what fits is contiguous.
fn largest(limit: u32, fits: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (1, limit.max(1));
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) {
            low = middle
        } else {
            high = middle - 1
        }
    }
    low
}

/// Bytes as people read them.
pub fn format_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].iter();
    let mut unit = units.next();
    while value >= 1024.0 {
        let Some(next) = units.next() else { break };
        value /= 1024.0;
        unit = Some(next);
    }
    let unit = unit.unwrap_or(&"B");
    if value < 10.0 && *unit != "B" {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The groups of North Mini Code.
    pub(crate) fn north_mini_code() -> [KvGroup; 2] {
        let group = |span, num_layers| KvGroup {
            span,
            num_layers,
            kv_heads: 4,
            head_dim: 128,
            has_values: true,
        };
        [
            group(AttentionSpan::Full, 13),
            group(AttentionSpan::Sliding { visible_keys: 4097 }, 36),
        ]
    }

    fn request(budget_bytes: u64) -> KvMemoryRequest {
        KvMemoryRequest {
            budget_bytes,
            block_size: 16,
            element_bytes: 2,
            max_num_seqs: 64,
            max_model_len: 131_072,
            max_num_batched_tokens: 2048,
        }
    }

    #[test]
    fn the_budget_is_used_but_never_exceeded() {
        for budget in [6 << 30, 20 << 30, 40 << 30, 400_u64 << 30, 2000 << 30] {
            let plan = plan_kv_memory(&north_mini_code(), &request(budget)).unwrap();
            assert!(plan.bytes <= budget);
            assert!(plan.bytes * 2 > budget, "{} of {budget}", plan.bytes);
            assert!(plan.spec.groups[0].num_blocks >= 131_072 / 16);
        }
    }

    #[test]
    fn a_budget_below_one_sequence_says_by_how_much() {
        let error = plan_kv_memory(&north_mini_code(), &request(1 << 30)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("--kv-cache-memory") && text.contains("too few"),
            "{text}"
        );
    }

    #[test]
    fn keys_without_values_take_half_as_much() {
        let keys = |has_values| KvGroup {
            has_values,
            ..north_mini_code()[0]
        };
        let [both, alone] = [true, false].map(|has_values| {
            let groups = [keys(true), keys(has_values)];
            full_demand_bytes(&groups, &request(0)) - full_demand_bytes(&[keys(true)], &request(0))
        });
        assert_eq!(both, 2 * alone);
        assert_eq!(alone, 64 * 131_072 * 13 * 4 * 128 * 2);
    }

    #[test]
    fn a_sliding_pool_stops_growing_with_the_length() {
        let plan = plan_kv_memory(&north_mini_code(), &request(60 << 30)).unwrap();
        let per_sequence = plan.spec.groups[1].num_blocks / 64;
        assert_eq!(per_sequence, (4097 + 2048_u32).div_ceil(16) + 1);
    }

    #[test]
    fn bytes_read_as_people_write_them() {
        assert_eq!(format_bytes(8 << 30), "8.0 GiB");
        assert_eq!(format_bytes(640 << 20), "640 MiB");
    }
}
