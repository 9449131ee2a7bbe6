//! The engine's statistics as metrics, read when Prometheus asks.

use std::fmt;

use backstop_engine::{EngineHandle, EngineStats};
use backstop_types::{AttentionSpan, KvSpec};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

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
        gauge(
            &mut encoder,
            "backstop:seconds_since_progress",
            "Time since the engine last finished a turn, while it has work",
            if liveness.busy {
                liveness.since_progress.as_secs_f64()
            } else {
                0.0
            },
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
fn kv_usage(stats: &EngineStats) -> f64 {
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

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}
