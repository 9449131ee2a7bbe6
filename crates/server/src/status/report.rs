//! The shape of `GET /backstop/status`. Times are seconds, points in time are seconds since 1970.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backstop_engine::LifecycleState;
use backstop_protocol::ModelOrigin;
use serde::Serialize;

use super::errors::ErrorGroup;
use super::load::{LoadSample, SAMPLE_INTERVAL};
use super::{CanaryResult, seconds, unix_s};
use crate::encoders::InstalledEncoder;
use crate::keys::Caller;
use crate::metrics::{Quantiles, Used, kv_usage, used_by_name};
use crate::model::InstalledModel;
use crate::probes::{StartPart, VERSION, timeline};
use crate::server::Server;

/// All that is told.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    version: &'static str,
    at: f64,
    state: State,
    /// The changes of the state, oldest first.
    states: Vec<Change>,
    timeline: Vec<StartPart>,
    profile: &'static str,
    requests_in_flight: usize,
    models: Vec<Model>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<Engine>,
    canary: Canary,
    load: Load,
    errors: Vec<ErrorRow>,
    /// Absent where there are no keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<KeyRow>>,
}

#[derive(Debug, Serialize)]
struct State {
    name: &'static str,
    /// There is work, and no progress.
    stalled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_done: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_total: Option<u64>,
    /// While it sleeps: 1 or 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    sleep_level: Option<u8>,
    /// While it sleeps: how long waking is expected to take.
    #[serde(skip_serializing_if = "Option::is_none")]
    wake_s: Option<u32>,
    /// While it is suspect: how its answer was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct Change {
    name: &'static str,
    at: f64,
}

/// A model that is served.
#[derive(Debug, Serialize)]
struct Model {
    task: &'static str,
    /// The name that answers have for requests that name none.
    name: String,
    root: String,
    /// `NAME@DIGEST`, as in `x-backstop-model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    provenance: Option<String>,
    origin: ModelOrigin,
    max_model_len: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number_format: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    /// Requests of an encoder, sequences of the model that generates.
    running: u32,
    waiting: u32,
    seconds_since_progress: f64,
}

/// The engine of the model that generates.
#[derive(Debug, Serialize)]
struct Engine {
    running: u32,
    max_running: u32,
    waiting: u32,
    max_waiting: u32,
    queued_tokens: u64,
    queue_timeout_s: f64,
    /// Absent while nothing is known of the pace.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_drain_per_s: Option<f64>,
    retry_after_s: u32,
    kv_usage: f64,
    kv_block_size: u32,
    kv_groups: Vec<KvGroup>,
    prompt_tokens: u64,
    generation_tokens: u64,
    prefix_cache_queries: u64,
    prefix_cache_hits: u64,
    preemptions: u64,
    steps_completed: u64,
    steps_failed: u64,
}

/// Blocks of one pool, by use.
#[derive(Debug, Serialize)]
struct KvGroup {
    referenced: u32,
    cached: u32,
    free: u32,
}

#[derive(Debug, Serialize)]
struct Canary {
    runs: u64,
    failures: u64,
    /// The latest, oldest first.
    results: Vec<CanaryRow>,
}

#[derive(Debug, Serialize)]
struct CanaryRow {
    at: f64,
    passed: bool,
    seconds: f64,
    difference: Option<f32>,
}

/// The last hour in columns, oldest first.
#[derive(Debug, Default, Serialize)]
struct Load {
    interval_s: f64,
    at: Vec<f64>,
    prompt_tokens_per_s: Vec<f64>,
    generation_tokens_per_s: Vec<f64>,
    errors_per_s: Vec<f64>,
    running: Vec<u32>,
    waiting: Vec<u32>,
    kv_usage: Vec<Option<f64>>,
    first_token_p50_s: Vec<Option<f64>>,
    first_token_p99_s: Vec<Option<f64>>,
    inter_token_p50_s: Vec<Option<f64>>,
    inter_token_p99_s: Vec<Option<f64>>,
}

/// Errors of one kind.
#[derive(Debug, Serialize)]
struct ErrorRow {
    route: &'static str,
    status: u16,
    code: Option<&'static str>,
    late: bool,
    /// Name of the key, if it has one.
    key: Option<String>,
    count: u64,
    first_at: f64,
    last_at: f64,
    request_id: String,
}

/// What the keys of one name have used.
#[derive(Debug, Serialize)]
struct KeyRow {
    key: String,
    requests: u64,
    prompt_tokens: u64,
    generation_tokens: u64,
    in_flight: u32,
}

impl Report {
    /// What `viewer` may see.
    pub(super) fn of(server: &Server, viewer: &Caller) -> Self {
        let records = server.records();
        let state = server.lifecycle().state();
        let changes = records.states.changes().into_iter();
        let generating = server.installed();
        let encoders = server.encoders().all();
        let errors = records.errors.latest().into_iter();
        Self {
            version: VERSION,
            at: unix_s(SystemTime::now()),
            states: changes
                .map(|change| Change {
                    name: change.name,
                    at: unix_s(change.at),
                })
                .collect(),
            state: State::of(server, &state),
            timeline: timeline(server.lifecycle()),
            profile: server.admission_profile().name(),
            requests_in_flight: server.requests_in_flight(),
            models: generating
                .map(Model::generating)
                .into_iter()
                .chain(encoders.map(Model::encoder))
                .collect(),
            engine: generating.map(|model| Engine::of(server, model)),
            canary: Canary::of(server),
            load: Load::of(&records.load.samples()),
            errors: errors
                .filter(|group| server.may_see(viewer, group.caller.as_ref()))
                .map(ErrorRow::from)
                .collect(),
            keys: server.keys().map(|keys| key_rows(&keys.visible_to(viewer))),
        }
    }
}

impl State {
    fn of(server: &Server, state: &LifecycleState) -> Self {
        let (bytes_done, bytes_total) = match *state {
            LifecycleState::Loading {
                bytes_done,
                bytes_total,
            } => (Some(bytes_done), Some(bytes_total)),
            _ => (None, None),
        };
        let (sleep_level, wake_s) = match *state {
            LifecycleState::Sleeping { level, wake_s } => (Some(level.number()), Some(wake_s)),
            _ => (None, None),
        };
        let reason = match state {
            LifecycleState::Suspect(reason) => Some(reason.clone()),
            _ => None,
        };
        Self {
            name: state.name(),
            stalled: server.stalled(Duration::ZERO).is_some(),
            bytes_done,
            bytes_total,
            sleep_level,
            wake_s,
            reason,
        }
    }
}

impl Model {
    fn generating(model: &Arc<InstalledModel>) -> Self {
        let served = &model.served;
        let stats = served.engine.stats().scheduler;
        let liveness = served.engine.liveness();
        Self {
            task: "generate",
            name: served.default_name().to_owned(),
            root: served.root.clone(),
            provenance: served.provenance.model().map(str::to_owned),
            origin: served.provenance.origin().clone(),
            max_model_len: served.max_model_len,
            device: known(&served.facts.device),
            number_format: known(&served.facts.number_format),
            memory_bytes: Some(served.facts.memory_bytes).filter(|bytes| *bytes > 0),
            running: stats.running,
            waiting: stats.waiting,
            seconds_since_progress: seconds(liveness.without_progress()),
        }
    }

    fn encoder(encoder: &Arc<InstalledEncoder>) -> Self {
        let liveness = encoder.liveness();
        let served = &encoder.served;
        Self {
            task: encoder.task().name(),
            name: encoder.answering_name(None),
            root: served.root.clone(),
            provenance: served.provenance.model().map(str::to_owned),
            origin: served.provenance.origin().clone(),
            max_model_len: encoder.facts().max_tokens,
            device: None,
            number_format: None,
            memory_bytes: None,
            running: liveness.running,
            waiting: liveness.waiting,
            seconds_since_progress: seconds(liveness.since_progress),
        }
    }
}

/// What is told of a fact, of which an empty text says nothing.
fn known(fact: &str) -> Option<String> {
    Some(fact.to_owned()).filter(|fact| !fact.is_empty())
}

impl Engine {
    fn of(server: &Server, model: &Arc<InstalledModel>) -> Self {
        let stats = model.served.engine.stats();
        let scheduler = &stats.scheduler;
        let limits = server.gate().limits();
        let groups = scheduler.kv_blocks.iter();
        Self {
            running: scheduler.running,
            max_running: scheduler.max_running,
            waiting: scheduler.waiting,
            max_waiting: limits.max_requests,
            queued_tokens: server.gate().waiting_tokens(),
            queue_timeout_s: seconds(limits.timeout),
            queue_drain_per_s: server.queue_drain_per_s().map(to_thousandths),
            retry_after_s: server.queue_retry_after_s(),
            kv_usage: to_thousandths(kv_usage(&stats)),
            kv_block_size: stats.kv.block_size,
            kv_groups: groups
                .map(|group| KvGroup {
                    referenced: group.referenced,
                    cached: group.cached,
                    free: group.free,
                })
                .collect(),
            prompt_tokens: model.metrics.prompt_tokens.get(),
            generation_tokens: model.metrics.generation_tokens.get(),
            prefix_cache_queries: scheduler.prefix_cache_queries,
            prefix_cache_hits: scheduler.prefix_cache_hits,
            preemptions: scheduler.preemptions,
            steps_completed: stats.steps_completed,
            steps_failed: stats.steps_failed,
        }
    }
}

impl Canary {
    fn of(server: &Server) -> Self {
        let history = &server.records().canary;
        let totals = history.totals();
        let results = history.results().into_iter();
        Self {
            runs: totals.runs,
            failures: totals.failures,
            results: results.map(CanaryRow::from).collect(),
        }
    }
}

impl From<CanaryResult> for CanaryRow {
    fn from(result: CanaryResult) -> Self {
        Self {
            at: unix_s(result.at),
            passed: result.passed,
            seconds: seconds(result.took),
            // JSON has no word for what is not a number.
            difference: result
                .difference
                .filter(|difference| difference.is_finite()),
        }
    }
}

impl Load {
    fn of(samples: &[LoadSample]) -> Self {
        type Read<T> = fn(&LoadSample) -> T;
        fn column<T>(samples: &[LoadSample], read: Read<T>) -> Vec<T> {
            samples.iter().map(read).collect()
        }
        let p50 = |quantiles: Option<Quantiles>| quantiles.map(|both| to_millionths(both.p50));
        let p99 = |quantiles: Option<Quantiles>| quantiles.map(|both| to_millionths(both.p99));
        let quantiles = |read: Read<Option<Quantiles>>| column(samples, read).into_iter();
        let rate = |read: Read<f64>| column(samples, read).into_iter().map(to_thousandths);
        Self {
            interval_s: seconds(SAMPLE_INTERVAL),
            at: column(samples, |sample| unix_s(sample.at)),
            prompt_tokens_per_s: rate(|sample| sample.prompt_tokens_per_s).collect(),
            generation_tokens_per_s: rate(|sample| sample.generation_tokens_per_s).collect(),
            errors_per_s: rate(|sample| sample.errors_per_s).collect(),
            running: column(samples, |sample| sample.running),
            waiting: column(samples, |sample| sample.waiting),
            kv_usage: column(samples, |sample| sample.kv_usage.map(to_thousandths)),
            first_token_p50_s: quantiles(|sample| sample.first_token).map(p50).collect(),
            first_token_p99_s: quantiles(|sample| sample.first_token).map(p99).collect(),
            inter_token_p50_s: quantiles(|sample| sample.inter_token).map(p50).collect(),
            inter_token_p99_s: quantiles(|sample| sample.inter_token).map(p99).collect(),
        }
    }
}

fn to_thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn to_millionths(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

impl From<ErrorGroup> for ErrorRow {
    fn from(group: ErrorGroup) -> Self {
        let key = group.caller.as_ref().and_then(Caller::name);
        Self {
            route: group.kind.route,
            status: group.kind.status,
            code: group.kind.code,
            late: group.kind.late,
            key: key.map(str::to_owned),
            count: group.count,
            first_at: unix_s(group.first_at),
            last_at: unix_s(group.last_at),
            request_id: group.request_id,
        }
    }
}

fn key_rows(callers: &[Caller]) -> Vec<KeyRow> {
    let row = |(key, used): (&str, Used)| KeyRow {
        key: key.to_owned(),
        requests: used.requests,
        prompt_tokens: used.prompt_tokens,
        generation_tokens: used.generated_tokens,
        in_flight: used.in_flight,
    };
    used_by_name(callers).into_iter().map(row).collect()
}
