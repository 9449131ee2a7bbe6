//! Comparisons with the recorded answer as metrics, read when Prometheus asks.

use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::gauge;
use crate::status::CanaryHistory;

/// Reads what canaries have shown.
#[derive(Debug)]
pub(super) struct CanaryCollector(pub(super) Arc<CanaryHistory>);

impl Collector for CanaryCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let totals = self.0.totals();
        let counters = [
            (
                "backstop:canary_runs",
                "Comparisons with the recorded answer",
                totals.runs,
            ),
            (
                "backstop:canary_failures",
                "Comparisons in which the answer was not the recorded one",
                totals.failures,
            ),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        // Without a comparison there is nothing to say, and 0 would be a failure.
        if let Some(passed) = totals.passed {
            gauge(
                encoder,
                "backstop:canary_passed",
                "1 if the answer was the recorded one in the latest comparison",
                f64::from(u8::from(passed)),
            )?;
        }
        let last_passed = totals
            .last_passed
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        gauge(
            encoder,
            "backstop:canary_last_passed_timestamp_seconds",
            "When the answer was last the recorded one, in seconds since 1970; 0 if never",
            last_passed.unwrap_or_default().as_secs_f64(),
        )
    }
}
