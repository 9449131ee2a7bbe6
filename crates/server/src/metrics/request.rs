//! Counters and distributions over the requests that the engine runs.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::latency::LatencyHistogram;
use crate::gate::Refusal;

const FIRST_TOKEN_BUCKETS: [f64; 22] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
const TOKEN_TIME_BUCKETS: [f64; 20] = [
    0.002, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0,
    7.5, 10.0, 20.0, 40.0,
];
pub(super) const REQUEST_TIME_BUCKETS: [f64; 20] = [
    0.05, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0,
    240.0, 480.0, 1920.0,
];
pub(super) const TOKEN_COUNT_BUCKETS: [f64; 18] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5,
    5e5,
];

/// Why a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(
    non_camel_case_types,
    reason = "the derive writes the names as they stand"
)]
pub(crate) enum FinishLabel {
    /// At a stop token or stop string.
    stop,
    /// At a limit of its length.
    length,
    /// Its client went away.
    abort,
    /// The engine failed, or the request waited too long.
    error,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct FinishLabels {
    pub(super) finished_reason: FinishLabel,
}

/// Why a request was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(
    non_camel_case_types,
    reason = "the derive writes the names as they stand"
)]
pub(crate) enum RejectionLabel {
    /// As many requests wait as may.
    max_num_queued_reqs,
    /// As many prompt tokens wait as may.
    max_num_queued_tokens,
    /// Its key has its share of the queue.
    key_share,
    /// Its lane is closed in an outage.
    lane,
}

impl From<Refusal> for RejectionLabel {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Requests => Self::max_num_queued_reqs,
            Refusal::Tokens => Self::max_num_queued_tokens,
            Refusal::Share => Self::key_share,
            Refusal::Lane => Self::lane,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RejectionLabels {
    pub(super) reason: RejectionLabel,
}

/// Metrics that requests report to; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct RequestMetrics {
    pub(crate) prompt_tokens: Counter,
    pub(crate) generation_tokens: Counter,
    finished: Family<FinishLabels, Counter>,
    rejected: Family<RejectionLabels, Counter>,
    pub(crate) queue_seconds: Histogram,
    pub(crate) first_token_seconds: LatencyHistogram,
    pub(crate) inter_token_seconds: LatencyHistogram,
    pub(crate) per_output_token_seconds: Histogram,
    pub(crate) prefill_seconds: Histogram,
    pub(crate) decode_seconds: Histogram,
    pub(crate) inference_seconds: Histogram,
    pub(crate) request_seconds: Histogram,
    pub(crate) request_prompt_tokens: Histogram,
    pub(crate) request_generation_tokens: Histogram,
}

impl RequestMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let mut histogram = |name: &str, help: &str, buckets: &[f64]| {
            let histogram = Histogram::new(buckets.iter().copied());
            registry.register(name, help, histogram.clone());
            histogram
        };
        let queue_seconds = histogram(
            "vllm:request_queue_time_seconds",
            "Time in the queue",
            &REQUEST_TIME_BUCKETS,
        );
        let first_token_seconds = histogram(
            "vllm:time_to_first_token_seconds",
            "Time from a request's arrival to its first token",
            &FIRST_TOKEN_BUCKETS,
        );
        let inter_token_seconds = histogram(
            "vllm:inter_token_latency_seconds",
            "Time between two tokens of a request",
            &TOKEN_TIME_BUCKETS,
        );
        let per_output_token_seconds = histogram(
            "vllm:request_time_per_output_token_seconds",
            "Mean time between a finished request's tokens",
            &TOKEN_TIME_BUCKETS,
        );
        let prefill_seconds = histogram(
            "vllm:request_prefill_time_seconds",
            "Time from leaving the queue to the first token",
            &REQUEST_TIME_BUCKETS,
        );
        let decode_seconds = histogram(
            "vllm:request_decode_time_seconds",
            "Time from the first token to the last",
            &REQUEST_TIME_BUCKETS,
        );
        let inference_seconds = histogram(
            "vllm:request_inference_time_seconds",
            "Time from leaving the queue to the last token",
            &REQUEST_TIME_BUCKETS,
        );
        let request_seconds = histogram(
            "vllm:e2e_request_latency_seconds",
            "Time from a request's arrival to its end",
            &REQUEST_TIME_BUCKETS,
        );
        let request_prompt_tokens = histogram(
            "vllm:request_prompt_tokens",
            "Prompt tokens of finished requests",
            &TOKEN_COUNT_BUCKETS,
        );
        let request_generation_tokens = histogram(
            "vllm:request_generation_tokens",
            "Generated tokens of finished requests",
            &TOKEN_COUNT_BUCKETS,
        );
        let prompt_tokens = Counter::default();
        registry.register(
            "vllm:prompt_tokens",
            "Prompt tokens processed",
            prompt_tokens.clone(),
        );
        let generation_tokens = Counter::default();
        registry.register(
            "vllm:generation_tokens",
            "Tokens generated",
            generation_tokens.clone(),
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
        Self {
            prompt_tokens,
            generation_tokens,
            finished,
            rejected,
            queue_seconds,
            first_token_seconds: LatencyHistogram::new(first_token_seconds, &FIRST_TOKEN_BUCKETS),
            inter_token_seconds: LatencyHistogram::new(inter_token_seconds, &TOKEN_TIME_BUCKETS),
            per_output_token_seconds,
            prefill_seconds,
            decode_seconds,
            inference_seconds,
            request_seconds,
            request_prompt_tokens,
            request_generation_tokens,
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
