//! What the start took its time for.

use std::fmt;

use backstop_engine::Timeline;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// Shows one gauge for each part of the start.
#[derive(Debug)]
pub(super) struct StartupCollector {
    pub(super) timeline: Timeline,
}

impl Collector for StartupCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "backstop:startup_phase_seconds",
            "Seconds that each part of the start took; they sum up to the whole",
            None,
            MetricType::Gauge,
        )?;
        for (phase, took) in self.timeline.phases() {
            let value = ConstGauge::new(took.as_secs_f64());
            value.encode(family.encode_family(&[("phase", phase.name())])?)?;
        }
        Ok(())
    }
}
