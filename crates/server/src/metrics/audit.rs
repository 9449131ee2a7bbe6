//! The audit log as metrics, read when Prometheus asks.

use std::fmt;

use backstop_audit::{AuditRecorder, AuditState};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::gauge;

/// Reads how the log fares.
#[derive(Debug)]
pub(super) struct AuditCollector(pub(super) AuditRecorder);

impl Collector for AuditCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let AuditState {
            written,
            lost,
            writable,
        } = self.0.state();
        let counters = [
            (
                "backstop:audit_entries",
                "Entries written to the audit log",
                written,
            ),
            (
                "backstop:audit_entries_lost",
                "Entries that the audit log's disk did not take in time",
                lost,
            ),
        ];
        for (name, help, count) in counters {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(count).encode(family)?;
        }
        gauge(
            &mut encoder,
            "backstop:audit_writable",
            "1 while the audit log's disk takes what it is given",
            f64::from(u8::from(writable)),
        )
    }
}
