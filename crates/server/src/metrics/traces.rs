//! What became of spans as metrics, read when Prometheus asks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use crate::traces::Counts;

/// Reads the counts.
#[derive(Debug)]
pub(super) struct TracesCollector(pub(super) Arc<Counts>);

impl Collector for TracesCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "backstop:trace_spans",
            "Spans that a collector took, and those that were lost on the way",
            None,
            MetricType::Counter,
        )?;
        let Self(counts) = self;
        let outcomes = [("exported", &counts.exported), ("dropped", &counts.dropped)];
        for (outcome, count) in outcomes {
            let value = ConstCounter::new(count.load(Ordering::Relaxed));
            value.encode(family.encode_family(&[("outcome", outcome)])?)?;
        }
        Ok(())
    }
}
