//! Certificates as metrics, read when Prometheus asks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::gauge;
use crate::tls::Tls;

/// Reads what connections are encrypted with.
#[derive(Debug)]
pub(super) struct TlsCollector(pub(super) Arc<Tls>);

impl Collector for TlsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(tls) = self;
        gauge(
            &mut encoder,
            "backstop:certificate_expiry_timestamp_seconds",
            "When the first of the server's certificates ends to be valid, in seconds since 1970",
            tls.not_after().as_secs() as f64,
        )?;
        let failed = ConstCounter::new(tls.failed_handshakes.load(Ordering::Relaxed));
        failed.encode(encoder.encode_descriptor(
            "backstop:tls_handshakes_failed",
            "Connections on which no TLS came about",
            None,
            MetricType::Counter,
        )?)?;
        let mut family = encoder.encode_descriptor(
            "backstop:certificate_reloads",
            "Times that the certificates were read again",
            None,
            MetricType::Counter,
        )?;
        let outcomes = [("accepted", &tls.reloads), ("refused", &tls.failed_reloads)];
        for (outcome, count) in outcomes {
            let value = ConstCounter::new(count.load(Ordering::Relaxed));
            value.encode(family.encode_family(&[("outcome", outcome)])?)?;
        }
        Ok(())
    }
}
