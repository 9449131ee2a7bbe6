//! The engine's statistics as metrics, read when Prometheus asks.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use backstop_engine::{EngineHandle, EngineStats};
use backstop_types::{AttentionSpan, KvSpec};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::gauge;

/// Reads one engine.
#[derive(Debug)]
pub(super) struct EngineCollector {
    engine: EngineHandle,
}

impl EngineCollector {
    pub(super) fn new(engine: EngineHandle) -> Self {
        Self { engine }
    }
}

impl Collector for EngineCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.engine.stats();
        let liveness = self.engine.liveness();
        encode_gauges(&mut encoder, &stats)?;
        encode_counters(&mut encoder, &stats)?;
        encode_iterations(&mut encoder, &stats)?;
        encode_cache_config(&mut encoder, &stats.kv)?;
        encode_waiting_by_reason(&mut encoder, &stats)?;
        encode_lora(&mut encoder)?;
        gauge(
            &mut encoder,
            "backstop:seconds_since_progress",
            "Time since the engine last finished a turn, while it has work",
            liveness.without_progress().as_secs_f64(),
        )
    }
}

fn encode_gauges(encoder: &mut DescriptorEncoder<'_>, stats: &EngineStats) -> fmt::Result {
    let scheduler = &stats.scheduler;
    gauge(
        encoder,
        "vllm:num_requests_running",
        "Sequences in the running batch",
        f64::from(scheduler.running),
    )?;
    gauge(
        encoder,
        "vllm:num_requests_waiting",
        "Sequences in the queue",
        f64::from(scheduler.waiting),
    )?;
    gauge(
        encoder,
        "vllm:kv_cache_usage_perc",
        "Used share of the fullest KV pool; 1 is all of it",
        kv_usage(stats),
    )
}

/// Share of blocks in use, of the pool that is nearest to its end. Blocks that only the prefix
/// cache holds count as free, for they are given up on demand.
pub(crate) fn kv_usage(stats: &EngineStats) -> f64 {
    let shares = stats.scheduler.kv_blocks.iter().map(|group| {
        let total = f64::from(group.total());
        if total > 0.0 {
            f64::from(group.referenced) / total
        } else {
            0.0
        }
    });
    shares.fold(0.0, f64::max)
}

fn encode_counters(encoder: &mut DescriptorEncoder<'_>, stats: &EngineStats) -> fmt::Result {
    let scheduler = &stats.scheduler;
    let counters = [
        (
            "vllm:prefix_cache_queries",
            "Prompt tokens looked up in the prefix cache",
            scheduler.prefix_cache_queries,
        ),
        (
            "vllm:prefix_cache_hits",
            "Prompt tokens found in the prefix cache",
            scheduler.prefix_cache_hits,
        ),
        (
            "vllm:num_preemptions",
            "Times that a running sequence went back to the queue",
            scheduler.preemptions,
        ),
        (
            "vllm:spec_decode_num_drafts",
            "Times that tokens were guessed and checked",
            scheduler.drafts,
        ),
        (
            "vllm:spec_decode_num_draft_tokens",
            "Tokens that were guessed and checked",
            scheduler.draft_tokens,
        ),
        (
            "vllm:spec_decode_num_accepted_tokens",
            "Tokens that right guesses brought",
            scheduler.accepted_tokens,
        ),
        (
            "backstop:steps_completed",
            "Engine steps that completed",
            stats.steps_completed,
        ),
        (
            "backstop:steps_failed",
            "Engine steps that failed",
            stats.steps_failed,
        ),
    ];
    for (name, help, value) in counters {
        let counter = ConstCounter::new(value);
        counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
    }
    Ok(())
}

fn encode_iterations(encoder: &mut DescriptorEncoder<'_>, stats: &EngineStats) -> fmt::Result {
    let bounds = EngineStats::STEP_TOKEN_BUCKETS
        .iter()
        .map(|bound| f64::from(*bound));
    let buckets: Vec<(f64, u64)> = bounds
        .chain([f64::INFINITY])
        .zip(stats.step_tokens.iter().copied())
        .collect();
    let mut histogram = encoder.encode_descriptor(
        "vllm:iteration_tokens_total",
        "Tokens computed by a step",
        None,
        MetricType::Histogram,
    )?;
    histogram.encode_histogram::<NoLabelSet>(
        stats.tokens_computed as f64,
        stats.steps_completed,
        &buckets,
        None,
    )
}

/// The first pool whose layers see everything is the one that bounds how much fits; a model with
/// sliding layers alone is described by its first pool.
fn encode_cache_config(encoder: &mut DescriptorEncoder<'_>, kv: &KvSpec) -> fmt::Result {
    let full = kv
        .groups
        .iter()
        .find(|group| group.span == AttentionSpan::Full);
    let blocks = full
        .or(kv.groups.first())
        .map_or(0, |group| group.num_blocks);
    let labels = [("block_size", kv.block_size), ("num_gpu_blocks", blocks)];
    let mut family = encoder.encode_descriptor(
        "vllm:cache_config_info",
        "Shape of the KV cache",
        None,
        MetricType::Gauge,
    )?;
    ConstGauge::new(1i64).encode(family.encode_family(&labels)?)
}

/// Sequences wait for a slot or for memory and for nothing else.
fn encode_waiting_by_reason(
    encoder: &mut DescriptorEncoder<'_>,
    stats: &EngineStats,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "vllm:num_requests_waiting_by_reason",
        "Sequences in the queue, by what they wait for",
        None,
        MetricType::Gauge,
    )?;
    for (reason, count) in [("capacity", stats.scheduler.waiting), ("deferred", 0)] {
        let value = ConstGauge::new(i64::from(count));
        value.encode(family.encode_family(&[("reason", reason)])?)?;
    }
    Ok(())
}

/// Endpoint pickers of Kubernetes read adapters from the labels and how recent they are from the
/// value. There are none, and to say so is better than to leave the metric out: a picker that
/// misses one takes the server's data for stale.
fn encode_lora(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let labels = [
        ("max_lora", "0"),
        ("running_lora_adapters", ""),
        ("waiting_lora_adapters", ""),
    ];
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut family = encoder.encode_descriptor(
        "vllm:lora_requests_info",
        "Adapters in use; the value is the time",
        None,
        MetricType::Gauge,
    )?;
    let value = ConstGauge::new(now.unwrap_or_default().as_secs_f64());
    value.encode(family.encode_family(&labels)?)
}
