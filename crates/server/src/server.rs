//! The server: what all requests share, from before a model is loaded until after it is gone.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use backstop_audit::{AuditRecorder, Entry};
use backstop_engine::{Lifecycle, LifecycleState};
use backstop_protocol::ApiError;
use tokio::sync::{Notify, watch};

use crate::body;
use crate::budget::BodyBudget;
use crate::config::ServerConfig;
use crate::encoders::{Encoders, ServedEncoder};
use crate::gate::{AdmissionProfile, DrainRate, Gate, Occupancy, QueueSample};
use crate::keys::{Caller, KeyFileError, KeyStore};
use crate::metrics::{AdmissionCollector, Metrics, ProcessCollector};
use crate::model::{InstalledModel, ServedModel};
use crate::progress::LoadingMark;
use crate::provenance::Provenance;
use crate::reply;
use crate::salts::CacheSalts;
use crate::status::Records;
use crate::tls::{Tls, TlsError};
use crate::work::WorkTurns;

/// An HTTP server for a model that generates, for encoders, or for both; cheap to clone. It answers probes from the
/// start, and requests once [`install`](Server::install) or [`install_encoder`](Server::install_encoder) have given
/// it its models and its life-cycle is ready.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    config: ServerConfig,
    lifecycle: Lifecycle,
    started: Instant,
    loading_mark: LoadingMark,
    model: OnceLock<Arc<InstalledModel>>,
    encoders: Encoders,
    metrics: Metrics,
    records: Records,
    keys: Option<Arc<KeyStore>>,
    /// The caller where there are no keys.
    anybody: Caller,
    gate: Arc<Gate>,
    drain_rate: Arc<Mutex<DrainRate>>,
    in_flight: watch::Sender<usize>,
    body_budget: Arc<BodyBudget>,
    turns: WorkTurns,
    cache_salts: CacheSalts,
    /// Rung by requests that want the server awake.
    wake_bell: Notify,
    /// Where answers come from before there is a model.
    unknown: Provenance,
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Server")
            .field("config", &self.shared.config)
            .field("state", &self.shared.lifecycle.state())
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server without models.
    pub fn new(config: ServerConfig, lifecycle: Lifecycle) -> Self {
        let (in_flight, requests) = watch::channel(0);
        let keys = config
            .api_keys
            .clone()
            .map(|keys| Arc::new(KeyStore::new(keys)));
        let gate = Arc::new(Gate::new(&config));
        let drain_rate = Arc::default();
        let admission = AdmissionCollector {
            gate: Arc::clone(&gate),
            keys: keys.clone(),
            drain_rate: Arc::clone(&drain_rate),
        };
        let records = Records::default();
        let canary = Arc::clone(&records.canary);
        let shared = Shared {
            metrics: Metrics::new(
                lifecycle.clone(),
                admission,
                canary,
                config.audit_log.clone(),
                ProcessCollector::new(requests),
            )
            .with_tls(config.tls.as_ref())
            .with_traces(config.traces.as_ref()),
            records,
            keys,
            anybody: Caller::anybody(),
            gate,
            drain_rate,
            lifecycle,
            started: Instant::now(),
            loading_mark: LoadingMark::default(),
            model: OnceLock::new(),
            encoders: Encoders::default(),
            in_flight,
            body_budget: BodyBudget::new(body::budget_units(&config)),
            turns: WorkTurns::new(config.max_concurrent_encodes),
            cache_salts: CacheSalts::new(config.share_prefix_cache),
            wake_bell: Notify::new(),
            unknown: Provenance::default(),
            config,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Gives the server the model that generates. Only the first one counts.
    pub fn install(&self, mut model: ServedModel) {
        self.shared.model.get_or_init(|| {
            model.limit_to_cache();
            let name = model.default_name();
            let metrics = self.shared.metrics.install(name, model.engine.clone());
            let worker = self.shared.config.grammar_worker.clone();
            InstalledModel::new(model, metrics, worker)
        });
    }

    /// Gives the server an encoder, which gets a thread and a queue of its own. Only the first one for vectors
    /// counts, and the first one for scores.
    pub fn install_encoder(&self, encoder: ServedEncoder) -> std::io::Result<()> {
        let gate = Gate::new(self.config());
        gate.set_profile(self.admission_profile());
        let metrics = &self.shared.metrics;
        self.shared.encoders.install(encoder, metrics, gate)
    }

    /// What the operator set.
    pub fn config(&self) -> &ServerConfig {
        &self.shared.config
    }

    /// The life-cycle that this server answers by.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.shared.lifecycle
    }

    /// Which limits hold for the queue.
    pub fn admission_profile(&self) -> AdmissionProfile {
        self.shared.gate.profile()
    }

    /// Lets other limits hold for the queue, for requests that come from now on.
    pub fn set_admission_profile(&self, profile: AdmissionProfile) {
        if self.admission_profile() != profile {
            tracing::warn!(profile = profile.name(), "the admission profile changed");
        }
        self.shared.gate.set_profile(profile);
        let gates = self.shared.encoders.gates();
        gates.for_each(|gate| gate.set_profile(profile));
    }

    /// Reads the key file again and returns the number of its keys; `None` if the keys come from
    /// no file. A file that is not accepted leaves the keys as they are. Blocks the thread.
    pub fn reload_keys(&self) -> Option<Result<usize, KeyFileError>> {
        self.shared.keys.as_ref()?.reload()
    }

    pub(crate) fn loading_mark(&self) -> &LoadingMark {
        &self.shared.loading_mark
    }

    /// Reads certificates and keys of TLS again, for connections that begin from now on; `None` if there are none. What
    /// is not accepted leaves them as they are. Blocks the thread.
    pub fn reload_certificates(&self) -> Option<Result<(), TlsError>> {
        Some(self.tls()?.reload())
    }

    pub(crate) fn tls(&self) -> Option<&Arc<Tls>> {
        self.config().tls.as_ref()
    }

    pub(crate) fn keys(&self) -> Option<&Arc<KeyStore>> {
        self.shared.keys.as_ref()
    }

    /// The caller where there are no keys.
    pub(crate) fn anybody(&self) -> &Caller {
        &self.shared.anybody
    }

    /// How many callers there can be.
    pub(crate) fn tenants(&self) -> usize {
        self.keys().map_or(1, |keys| keys.tenants())
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.shared.gate
    }

    /// Longest wait in the queue.
    pub(crate) fn queue_timeout(&self) -> Duration {
        self.shared.gate.limits().timeout
    }

    /// The engine as its statistics show it; nobody waits for it.
    pub(crate) fn occupancy(&self) -> Option<Occupancy> {
        let stats = self.installed()?.served.engine.stats().scheduler;
        Some(Occupancy {
            running: stats.running,
            max_running: stats.max_running,
            waiting: stats.waiting,
        })
    }

    /// Takes in how fast the queues empty.
    pub(crate) fn sample_queue(&self) {
        self.shared.encoders.sample_queues();
        let Some(model) = self.installed() else {
            return;
        };
        let stats = model.served.engine.stats().scheduler;
        let sample = QueueSample {
            at: Instant::now(),
            left: stats.sequences_admitted,
            waiting: stats.waiting,
        };
        let rate = self.shared.drain_rate.lock();
        rate.unwrap_or_else(PoisonError::into_inner).sample(sample);
    }

    /// Sequences that leave the queue in a second while others wait; `None` while nothing is known.
    pub(crate) fn queue_drain_per_s(&self) -> Option<f64> {
        let rate = self.shared.drain_rate.lock();
        rate.unwrap_or_else(PoisonError::into_inner).per_second()
    }

    /// When a client that does not get a place now should come back: when what waits has been
    /// worked off at the present pace.
    pub(crate) fn queue_retry_after_s(&self) -> u32 {
        let waiting = self.occupancy().map_or(0, |engine| engine.waiting);
        let rate = self.shared.drain_rate.lock();
        let rate = rate.unwrap_or_else(PoisonError::into_inner);
        rate.retry_after_s(waiting)
    }

    /// The answer to a request that finds everything taken.
    pub(crate) fn queue_full(&self) -> ApiError {
        ApiError::queue_full(self.queue_retry_after_s())
    }

    /// The answer to a request whose time ran out.
    pub(crate) fn deadline_exceeded(&self) -> ApiError {
        ApiError::deadline_exceeded(self.queue_retry_after_s())
    }

    /// Requests for generations that have not ended.
    pub fn requests_in_flight(&self) -> usize {
        *self.shared.in_flight.borrow()
    }

    /// Waits until no request is in flight.
    pub async fn idle(&self) {
        let mut count = self.shared.in_flight.subscribe();
        // An error means that the sender is gone, and `self` holds it.
        let _ignored = count.wait_for(|count| *count == 0).await;
    }

    /// Changes the count of requests in flight, for [`RequestGuard`](crate::in_flight::RequestGuard) alone.
    pub(crate) fn count_in_flight(&self, change: impl FnOnce(&mut usize)) {
        self.shared.in_flight.send_modify(change);
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// What the server remembers of itself.
    pub(crate) fn records(&self) -> &Records {
        &self.shared.records
    }

    pub(crate) fn body_budget(&self) -> &Arc<BodyBudget> {
        &self.shared.body_budget
    }

    pub(crate) fn turns(&self) -> &WorkTurns {
        &self.shared.turns
    }

    pub(crate) fn cache_salts(&self) -> &CacheSalts {
        &self.shared.cache_salts
    }

    /// The model that generates, whatever the life-cycle says.
    pub(crate) fn installed(&self) -> Option<&Arc<InstalledModel>> {
        self.shared.model.get()
    }

    pub(crate) fn encoders(&self) -> &Encoders {
        &self.shared.encoders
    }

    /// Resolves when a request wants a server awake that sleeps.
    pub async fn wake_wanted(&self) {
        self.shared.wake_bell.notified().await;
    }

    /// Whether requests may use the models now, or as soon as the server is awake if requests may wake it. Looks again until
    /// `until`, since it may be told to sleep once more between its waking and this request's turn.
    pub(crate) async fn check_ready_or_wake(&self, until: Instant) -> Result<(), ApiError> {
        loop {
            let state = self.lifecycle().state();
            let Err(refusal) = self.check_ready_in(&state) else {
                return Ok(());
            };
            let may_wait = self.config().wake_on_request && self.has_models();
            if !may_wait || !state.is_on_its_way() {
                return Err(refusal);
            }
            if matches!(state, LifecycleState::Sleeping { .. }) {
                self.shared.wake_bell.notify_one();
            }
            let settled = self.lifecycle().wait_for(|state| !state.is_on_its_way());
            if tokio::time::timeout_at(until.into(), settled)
                .await
                .is_err()
            {
                return self.check_ready();
            }
        }
    }

    /// Whether requests may use the models now.
    pub(crate) fn check_ready(&self) -> Result<(), ApiError> {
        self.check_ready_in(&self.lifecycle().state())
    }

    fn check_ready_in(&self, state: &LifecycleState) -> Result<(), ApiError> {
        match state {
            LifecycleState::Ready if self.has_models() => self.check_audit_log(),
            _ => Err(reply::unavailable(state, self.loading_retry_s(state))),
        }
    }

    /// Whether the audit log lets requests in.
    fn check_audit_log(&self) -> Result<(), ApiError> {
        let log = self.shared.config.audit_log.as_ref();
        match log.is_none_or(AuditRecorder::admits) {
            true => Ok(()),
            false => Err(reply::audit_log_unavailable()),
        }
    }

    /// Writes into the audit log, if there is one, which models are served.
    pub fn record_models(&self) {
        let generating = self.installed().map(|model| &model.served.provenance);
        let encoders = self.encoders().all();
        let encoders = encoders.map(|encoder| &encoder.served.provenance);
        let models = generating.into_iter().chain(encoders);
        let models = models.map(Provenance::served_as).collect();
        if let Some(log) = &self.shared.config.audit_log {
            log.record(Entry::Ready { models }, None);
        }
    }

    /// Whether there is anything that could answer.
    pub(crate) fn has_models(&self) -> bool {
        self.installed().is_some() || self.encoders().all().next().is_some()
    }

    /// The model that generates, for requests that were let in.
    pub(crate) fn generating_model(&self) -> Result<&Arc<InstalledModel>, ApiError> {
        self.installed()
            .ok_or_else(|| ApiError::no_model_that("generates text", &self.shown_names()))
    }

    /// The model that generates, if requests may use it now.
    pub(crate) fn ready_model(&self) -> Result<&Arc<InstalledModel>, ApiError> {
        self.check_ready()?;
        self.generating_model()
    }

    /// All names that a list of models shows.
    pub(crate) fn shown_names(&self) -> Vec<&str> {
        let generating = self.installed().into_iter();
        let generating =
            generating.flat_map(|model| model.served.names().shown(&model.served.root));
        let encoders = self.encoders().all();
        let encoders = encoders.flat_map(|encoder| encoder.names().shown(&encoder.served.root));
        generating.chain(encoders).collect()
    }

    /// Where the answers of a route come from.
    pub(crate) fn provenance_of(&self, route: &str) -> &Provenance {
        let encoder = self.encoders().of_route(route);
        encoder.map_or_else(|| self.provenance(), |encoder| &encoder.served.provenance)
    }

    /// Where answers come from, unless their route says more: from the model that generates, or else from an encoder.
    pub(crate) fn provenance(&self) -> &Provenance {
        let generating = self.installed().map(|model| &model.served.provenance);
        let encoder = || {
            let first = self.encoders().all().next();
            first.map(|encoder| &encoder.served.provenance)
        };
        let known = generating.or_else(encoder);
        known.unwrap_or(&self.shared.unknown)
    }

    /// How long loading will go on at the pace so far.
    pub(crate) fn loading_retry_s(&self, state: &LifecycleState) -> Option<u32> {
        let LifecycleState::Loading {
            bytes_done,
            bytes_total,
        } = *state
        else {
            return None;
        };
        remaining(self.shared.started.elapsed(), bytes_done, bytes_total)
    }
}

fn remaining(elapsed: Duration, done: u64, total: u64) -> Option<u32> {
    if done == 0 || total < done {
        return None;
    }
    let seconds = elapsed.as_secs_f64() * (total - done) as f64 / done as f64;
    // The conversion saturates, and the error table has the last word on the bounds.
    Some(seconds.ceil() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_so_far_tells_the_rest() {
        let elapsed = Duration::from_secs(10);
        assert_eq!(remaining(elapsed, 0, 100), None);
        assert_eq!(remaining(elapsed, 25, 100), Some(30));
        assert_eq!(remaining(elapsed, 100, 100), Some(0));
    }
}
