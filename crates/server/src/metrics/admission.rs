//! Queue, profile and keys as metrics, read when Prometheus asks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::gauge;
use crate::gate::{AdmissionProfile, DrainRate, Gate};
use crate::keys::{Caller, KeyStore};

/// What keys without a name are called together.
const UNNAMED: &str = "unnamed";

/// Reads the gate and the keys.
#[derive(Debug)]
pub(crate) struct AdmissionCollector {
    pub(crate) gate: Arc<Gate>,
    pub(crate) keys: Option<Arc<KeyStore>>,
    pub(crate) drain_rate: Arc<Mutex<DrainRate>>,
}

impl Collector for AdmissionCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        self.encode_queue(encoder)?;
        match &self.keys {
            Some(keys) => encode_keys(encoder, keys),
            None => Ok(()),
        }
    }
}

impl AdmissionCollector {
    fn encode_queue(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let present = self.gate.profile();
        let mut family = encoder.encode_descriptor(
            "backstop:admission_profile",
            "1 for the profile whose limits hold",
            None,
            MetricType::Gauge,
        )?;
        for profile in [AdmissionProfile::Normal, AdmissionProfile::Outage] {
            let value = ConstGauge::new(i64::from(profile == present));
            value.encode(family.encode_family(&[("profile", profile.name())])?)?;
        }
        gauge(
            encoder,
            "backstop:queued_tokens",
            "Prompt tokens that wait in the queue",
            self.gate.waiting_tokens() as f64,
        )?;
        let rate = self.drain_rate.lock();
        let rate = rate
            .unwrap_or_else(PoisonError::into_inner)
            .per_second()
            .unwrap_or(0.0);
        gauge(
            encoder,
            "backstop:queue_drain_rate",
            "Sequences that left the queue in a second while others waited; 0 if unknown",
            rate,
        )
    }
}

fn encode_keys(encoder: &mut DescriptorEncoder<'_>, keys: &KeyStore) -> fmt::Result {
    gauge(
        encoder,
        "backstop:keys",
        "Accepted keys",
        keys.count() as f64,
    )?;
    let mut family = encoder.encode_descriptor(
        "backstop:key_file_reloads",
        "Times that the key file was read again",
        None,
        MetricType::Counter,
    )?;
    let outcomes = [
        ("accepted", &keys.reloads),
        ("refused", &keys.failed_reloads),
    ];
    for (outcome, count) in outcomes {
        let value = ConstCounter::new(count.load(Ordering::Relaxed));
        value.encode(family.encode_family(&[("outcome", outcome)])?)?;
    }
    Ok(())
}

/// What keys have used, as far as somebody may see it.
#[derive(Debug)]
pub(super) struct UsageCollector(pub(super) Vec<Caller>);

impl Collector for UsageCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encode_usage(&mut encoder, &self.0)
    }
}

/// What one name has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) requests: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) generated_tokens: u64,
    pub(crate) in_flight: u32,
}

/// What callers have used. Only names from the file are told, and only of those that have sent anything, so that a
/// long file does not make a long answer to everybody who asks.
pub(crate) fn used_by_name(callers: &[Caller]) -> BTreeMap<&str, Used> {
    let mut used: BTreeMap<&str, Used> = BTreeMap::new();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    for caller in callers {
        let tenant = caller.tenant();
        if count(&tenant.requests) > 0 {
            let sum = used.entry(caller.name().unwrap_or(UNNAMED)).or_default();
            sum.requests += count(&tenant.requests);
            sum.prompt_tokens += count(&tenant.prompt_tokens);
            sum.generated_tokens += count(&tenant.generated_tokens);
            sum.in_flight += tenant.in_flight();
        }
    }
    used
}

fn encode_usage(encoder: &mut DescriptorEncoder<'_>, callers: &[Caller]) -> fmt::Result {
    let used = used_by_name(callers);
    type Read = fn(&Used) -> u64;
    let counters: [(&str, &str, Read); 3] = [
        (
            "backstop:key_requests",
            "Requests within the key's limits",
            |used| used.requests,
        ),
        (
            "backstop:key_prompt_tokens",
            "Prompt tokens of the key's requests",
            |used| used.prompt_tokens,
        ),
        (
            "backstop:key_generation_tokens",
            "Tokens generated for the key",
            |used| used.generated_tokens,
        ),
    ];
    for (name, help, read) in counters {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (key, used) in &used {
            ConstCounter::new(read(used)).encode(family.encode_family(&[("key", *key)])?)?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "backstop:key_requests_in_flight",
        "Requests of the key that have not ended",
        None,
        MetricType::Gauge,
    )?;
    for (key, used) in &used {
        let value = ConstGauge::new(i64::from(used.in_flight));
        value.encode(family.encode_family(&[("key", *key)])?)?;
    }
    Ok(())
}
