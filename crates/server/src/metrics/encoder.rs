//! Counters and distributions over the requests that an encoder computes, under the names that they have for
//! the engine; the label says whose they are.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::gauge;
use super::request::{
    FinishLabel, FinishLabels, REQUEST_TIME_BUCKETS, RejectionLabels, TOKEN_COUNT_BUCKETS,
};
use crate::encoders::QueueView;
use crate::gate::Refusal;

/// Metrics that requests report to; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct EncoderMetrics {
    pub(crate) prompt_tokens: Counter,
    pub(crate) queue_seconds: Histogram,
    pub(crate) inference_seconds: Histogram,
    pub(crate) request_seconds: Histogram,
    pub(crate) request_prompt_tokens: Histogram,
    finished: Family<FinishLabels, Counter>,
    rejected: Family<RejectionLabels, Counter>,
}

impl EncoderMetrics {
    pub(super) fn new(registry: &mut Registry, queue: QueueView) -> Self {
        let mut histogram = |name: &str, help: &str, buckets: &[f64]| {
            let histogram = Histogram::new(buckets.iter().copied());
            registry.register(name, help, histogram.clone());
            histogram
        };
        let times = &REQUEST_TIME_BUCKETS;
        let queue_seconds = histogram(
            "vllm:request_queue_time_seconds",
            "Time in the queue",
            times,
        );
        let inference_seconds = histogram(
            "vllm:request_inference_time_seconds",
            "Time from leaving the queue to the last token",
            times,
        );
        let request_seconds = histogram(
            "vllm:e2e_request_latency_seconds",
            "Time from a request's arrival to its end",
            times,
        );
        let request_prompt_tokens = histogram(
            "vllm:request_prompt_tokens",
            "Prompt tokens of finished requests",
            &TOKEN_COUNT_BUCKETS,
        );
        let prompt_tokens = Counter::default();
        registry.register(
            "vllm:prompt_tokens",
            "Prompt tokens processed",
            prompt_tokens.clone(),
        );
        let finished = Family::<FinishLabels, Counter>::default();
        registry.register(
            "vllm:request_success",
            "Requests that ended",
            finished.clone(),
        );
        let rejected = Family::<RejectionLabels, Counter>::default();
        registry.register(
            "vllm:admission_rejections",
            "Requests that were not let into the queue",
            rejected.clone(),
        );
        registry.register_collector(Box::new(QueueCollector(queue)));
        Self {
            prompt_tokens,
            queue_seconds,
            inference_seconds,
            request_seconds,
            request_prompt_tokens,
            finished,
            rejected,
        }
    }

    /// Counts a request that was not let into the queue.
    pub(crate) fn rejected(&self, refusal: Refusal) {
        let reason = refusal.into();
        self.rejected
            .get_or_create(&RejectionLabels { reason })
            .inc();
    }

    /// Counts the end of a request.
    pub(crate) fn finished(&self, finished_reason: FinishLabel) {
        self.finished
            .get_or_create(&FinishLabels { finished_reason })
            .inc();
    }
}

/// Reads a queue when Prometheus asks.
#[derive(Debug)]
struct QueueCollector(QueueView);

impl Collector for QueueCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let liveness = self.0.liveness();
        gauge(
            encoder,
            "vllm:num_requests_running",
            "Sequences in the running batch",
            f64::from(liveness.running),
        )?;
        gauge(
            encoder,
            "vllm:num_requests_waiting",
            "Sequences in the queue",
            f64::from(liveness.waiting),
        )?;
        gauge(
            encoder,
            "backstop:seconds_since_progress",
            "Time since the engine last finished a turn, while it has work",
            liveness.since_progress.as_secs_f64(),
        )
    }
}
