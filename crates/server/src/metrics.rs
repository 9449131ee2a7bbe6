//! What Prometheus sees. Names that vLLM has for the same thing are vLLM's, so that existing
//! dashboards and routers work; what only this server knows is called `backstop:…`.
//!
//! Engine gauges are copied from its statistics at scrape time, without asking its thread: a
//! router that scrapes many times a second costs the engine nothing.

mod admission;
mod audit;
mod canary;
mod encoder;
mod engine;
mod exposition;
mod latency;
mod process;
mod request;
mod startup;
mod tls;
mod traces;

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use backstop_audit::AuditRecorder;
use backstop_engine::{EngineHandle, Lifecycle, LifecycleState};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

pub(crate) use self::admission::AdmissionCollector;
use self::admission::UsageCollector;
pub(crate) use self::admission::{Used, used_by_name};
use self::audit::AuditCollector;
use self::canary::CanaryCollector;
pub(crate) use self::encoder::EncoderMetrics;
use self::engine::EngineCollector;
pub(crate) use self::engine::kv_usage;
pub(crate) use self::exposition::Exposition;
pub(crate) use self::latency::{LatencyCounts, Quantiles};
pub(crate) use self::process::ProcessCollector;
pub(crate) use self::request::{FinishLabel, RequestMetrics};
use self::startup::StartupCollector;
use self::tls::TlsCollector;
use self::traces::TracesCollector;
use crate::encoders::QueueView;
use crate::keys::Caller;
use crate::status::CanaryHistory;
use crate::tls::Tls;
use crate::traces::Traces;

/// Labels of the response counter. Both sets are closed: a client cannot make new ones up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    route: &'static str,
    status: u16,
}

/// All metrics of the process.
pub(crate) struct Metrics {
    process: Registry,
    responses: Family<ResponseLabels, Counter>,
    late_failures: Family<ResponseLabels, Counter>,
    /// Present once a model that generates is.
    model: OnceLock<Registry>,
    encoders: Mutex<Vec<Registry>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Metrics")
    }
}

impl Metrics {
    /// Metrics of a process that has no model yet.
    pub(crate) fn new(
        lifecycle: Lifecycle,
        admission: AdmissionCollector,
        canary: Arc<CanaryHistory>,
        audit_log: Option<AuditRecorder>,
        process_usage: ProcessCollector,
    ) -> Self {
        let mut process = Registry::default();
        let responses = Family::<ResponseLabels, Counter>::default();
        process.register(
            "backstop:http_responses",
            "HTTP responses by route and status",
            responses.clone(),
        );
        let late_failures = Family::<ResponseLabels, Counter>::default();
        process.register(
            "backstop:late_failures",
            "Answers that failed after a 200 had been sent for them, by route and the status they \
             would have had",
            late_failures.clone(),
        );
        let timeline = lifecycle.timeline().clone();
        process.register_collector(Box::new(StartupCollector { timeline }));
        process.register_collector(Box::new(LifecycleCollector { lifecycle }));
        process.register_collector(Box::new(admission));
        process.register_collector(Box::new(CanaryCollector(canary)));
        if let Some(audit_log) = audit_log {
            process.register_collector(Box::new(AuditCollector(audit_log)));
        }
        process.register_collector(Box::new(process_usage));
        Self {
            process,
            responses,
            late_failures,
            model: OnceLock::new(),
            encoders: Mutex::default(),
        }
    }

    /// Adds those of TLS, if it is spoken.
    pub(crate) fn with_tls(mut self, tls: Option<&Arc<Tls>>) -> Self {
        if let Some(tls) = tls {
            let collector = TlsCollector(Arc::clone(tls));
            self.process.register_collector(Box::new(collector));
        }
        self
    }

    /// Adds those of traces, if any are exported.
    pub(crate) fn with_traces(mut self, traces: Option<&Arc<Traces>>) -> Self {
        if let Some(traces) = traces {
            let collector = TracesCollector(Arc::clone(traces.counts()));
            self.process.register_collector(Box::new(collector));
        }
        self
    }

    /// Adds the metrics of `engine` under the name of its model. Only the first call counts.
    pub(crate) fn install(&self, model_name: &str, engine: EngineHandle) -> RequestMetrics {
        let mut registry = registry_of(model_name);
        let requests = RequestMetrics::new(&mut registry);
        registry.register_collector(Box::new(EngineCollector::new(engine)));
        if self.model.set(registry).is_err() {
            tracing::warn!("metrics of a second model are not shown");
        }
        requests
    }

    /// Adds the metrics of an encoder under its name.
    pub(crate) fn install_encoder(&self, model_name: &str, queue: QueueView) -> EncoderMetrics {
        let mut registry = registry_of(model_name);
        let metrics = EncoderMetrics::new(&mut registry, queue);
        let encoders = self.encoders.lock();
        encoders
            .unwrap_or_else(PoisonError::into_inner)
            .push(registry);
        metrics
    }

    /// Counts an answer.
    pub(crate) fn responded(&self, route: &'static str, status: u16) {
        self.responses
            .get_or_create(&ResponseLabels { route, status })
            .inc();
    }

    /// Counts an answer whose head said 200 before it turned out to be a failure.
    pub(crate) fn failed_late(&self, route: &'static str, status: u16) {
        self.late_failures
            .get_or_create(&ResponseLabels { route, status })
            .inc();
    }

    /// Everything as text, and of the keys what these have used.
    pub(crate) fn encode(
        &self,
        exposition: Exposition,
        callers: Option<Vec<Caller>>,
    ) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(16 << 10);
        encode_registry(&mut text, &self.process)?;
        if let Some(callers) = callers {
            let mut usage = Registry::default();
            usage.register_collector(Box::new(UsageCollector(callers)));
            encode_registry(&mut text, &usage)?;
        }
        if let Some(model) = self.model.get() {
            encode_registry(&mut text, model)?;
        }
        let encoders = self.encoders.lock();
        for encoder in encoders.unwrap_or_else(PoisonError::into_inner).iter() {
            encode_registry(&mut text, encoder)?;
        }
        encode_eof(&mut text)?;
        Ok(exposition.render(text))
    }
}

/// A registry whose metrics say which model they are of.
fn registry_of(model_name: &str) -> Registry {
    let label = (
        Cow::Borrowed("model_name"),
        Cow::Owned(model_name.to_owned()),
    );
    Registry::with_labels(std::iter::once(label))
}

/// Shows the life-cycle as one gauge for each state, of which one is 1.
#[derive(Debug)]
struct LifecycleCollector {
    lifecycle: Lifecycle,
}

impl Collector for LifecycleCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let present = self.lifecycle.state().name();
        let mut family = encoder.encode_descriptor(
            "backstop:lifecycle_state",
            "1 for the state that the server is in",
            None,
            MetricType::Gauge,
        )?;
        for state in LifecycleState::NAMES {
            let labels = [("state", state)];
            let value = ConstGauge::new(i64::from(state == present));
            value.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}
