//! Everything that is asked about the server rather than of it: health, readiness, version,
//! metrics and the list of models. Nothing here waits for the engine.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use backstop_engine::{Lifecycle, LifecycleState, StartPhase};
use backstop_protocol::{ApiError, ModelCard, ModelList};
use serde::Serialize;

use crate::condition::Condition;
use crate::encoders::{AnyModel, InstalledEncoder};
use crate::keys::Caller;
use crate::metrics::Exposition;
use crate::model::InstalledModel;
use crate::page;
use crate::reply::{self, ErrorReply};
use crate::server::Server;

/// Version of this build.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What probes read; every field but the status is for people.
#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    timeline: Vec<StartPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<EngineHealth>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    encoders: Vec<EncoderHealth>,
}

#[derive(Debug, Serialize)]
struct Progress {
    bytes_done: u64,
    bytes_total: u64,
    /// For how long nothing has been read.
    seconds_since_progress: f64,
}

/// A part of the start; the last one is under way until the server is ready.
#[derive(Debug, Serialize)]
pub(crate) struct StartPart {
    phase: &'static str,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct EngineHealth {
    running: u32,
    waiting: u32,
    seconds_since_progress: f64,
}

#[derive(Debug, Serialize)]
struct EncoderHealth {
    task: &'static str,
    #[serde(flatten)]
    queue: EngineHealth,
}

/// `GET /health` and `/ping`: whether to restart the process. 200 once the models are loaded, for
/// as long as engine and encoders make progress, asleep and draining included.
pub(crate) async fn health(State(server): State<Server>) -> Response {
    let Condition {
        state,
        stalled,
        healthy,
    } = server.condition();
    let mut body = describe(&server, &state);
    if stalled.is_some() {
        body.status = "stalled";
        body.reason = stalled;
    }
    respond(&server, &state, healthy, &body)
}

/// `GET /ready`: whether to send traffic, and what the start took its time for.
pub(crate) async fn ready(State(server): State<Server>) -> Response {
    let state = server.lifecycle().state();
    let refusal = server.check_ready().err();
    let mut body = describe(&server, &state);
    if let Some(error) = refusal.as_ref().filter(|_| state == LifecycleState::Ready) {
        body.reason = Some(error.message.clone());
    }
    body.timeline = timeline(server.lifecycle());
    respond(&server, &state, refusal.is_none(), &body)
}

/// What the start took its time for.
pub(crate) fn timeline(lifecycle: &Lifecycle) -> Vec<StartPart> {
    let phases = lifecycle.timeline().phases().into_iter();
    let part = |(phase, took): (StartPhase, Duration)| StartPart {
        phase: phase.name(),
        seconds: took.as_secs_f64(),
    };
    phases.map(part).collect()
}

fn describe(server: &Server, state: &LifecycleState) -> Health {
    let engine = server.installed().map(|model| {
        let liveness = model.served.engine.liveness();
        let stats = model.served.engine.stats();
        EngineHealth {
            running: stats.scheduler.running,
            waiting: stats.scheduler.waiting,
            seconds_since_progress: liveness.without_progress().as_secs_f64(),
        }
    });
    let pause = server.loading_pause();
    let progress = match *state {
        LifecycleState::Loading {
            bytes_done,
            bytes_total,
        } => Some(Progress {
            bytes_done,
            bytes_total,
            seconds_since_progress: pause.unwrap_or_default().as_secs_f64(),
        }),
        _ => None,
    };
    // Why it failed may name paths of the host; that is for the log.
    Health {
        status: state.name(),
        reason: pause.and_then(|pause| long_pause(server, pause)),
        progress,
        timeline: Vec::new(),
        engine,
        encoders: server.encoders().all().map(encoder_health).collect(),
    }
}

/// What is said of loading that reads nothing, once that lasts.
fn long_pause(server: &Server, pause: Duration) -> Option<String> {
    (pause > server.config().watchdog_timeout).then(|| {
        let seconds = pause.as_secs();
        format!("nothing of the model's files has been read for {seconds} s")
    })
}

fn encoder_health(encoder: &Arc<InstalledEncoder>) -> EncoderHealth {
    let liveness = encoder.liveness();
    EncoderHealth {
        task: encoder.task().name(),
        queue: EngineHealth {
            running: liveness.running,
            waiting: liveness.waiting,
            seconds_since_progress: liveness.since_progress.as_secs_f64(),
        },
    }
}

fn respond(server: &Server, state: &LifecycleState, good: bool, body: &Health) -> Response {
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut response = reply::json(status, body);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !good {
        let error = reply::unavailable(state, server.loading_retry_s(state));
        let seconds = error.retry_after_s.unwrap_or(1);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// `GET /version`. What computes is known once the model is ready.
pub(crate) async fn version(State(server): State<Server>) -> Response {
    let mut body = serde_json::json!({"version": VERSION});
    if let Ok(model) = server.ready_model() {
        let facts = &model.served.facts;
        body["device"] = facts.device.as_str().into();
        body["batch_invariant"] = facts.batch_invariant.into();
    }
    reply::json(StatusCode::OK, &body)
}

/// `GET /` and `HEAD /`, with which some clients begin, and people.
pub(crate) async fn root(State(server): State<Server>, headers: HeaderMap) -> Response {
    if page::is_wanted(&headers) {
        return page::answer(server.keys().is_some());
    }
    let status = server.lifecycle().state().name();
    let body = serde_json::json!({"name": "backstop", "version": VERSION, "status": status});
    let mut response = reply::json(StatusCode::OK, &body);
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept"));
    response
}

/// `GET /metrics`. Each key sees what it has used itself, and some see what all have.
pub(crate) async fn metrics(
    State(server): State<Server>,
    Extension(viewer): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    let exposition = Exposition::accepted(&headers);
    let callers = server.keys().map(|keys| keys.visible_to(&viewer));
    match server.metrics().encode(exposition, callers) {
        Ok(text) => ([(CONTENT_TYPE, exposition.content_type())], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot write the metrics");
            ErrorReply(ApiError::internal()).into_response()
        }
    }
}

/// `GET /v1/models`.
pub(crate) async fn models(State(server): State<Server>) -> Result<Response, ErrorReply> {
    server.check_ready()?;
    let mut cards = Vec::new();
    if let Some(model) = server.installed() {
        let names = model.served.names().shown(&model.served.root);
        cards.extend(names.into_iter().map(|name| card(name, model)));
    }
    for encoder in server.encoders().all() {
        let names = encoder.names().shown(&encoder.served.root);
        cards.extend(names.into_iter().map(|name| encoder.card(name)));
    }
    Ok(reply::json(StatusCode::OK, &ModelList::new(cards)))
}

/// `GET /v1/models/{id}`.
pub(crate) async fn model(
    State(server): State<Server>,
    Path(id): Path<String>,
) -> Result<Response, ErrorReply> {
    server.check_ready()?;
    let card = match server.model_named(&id)? {
        AnyModel::Generating(model) => card(&id, model),
        AnyModel::Encoder(encoder) => encoder.card(&id),
    };
    Ok(reply::json(StatusCode::OK, &card))
}

fn card(name: &str, model: &InstalledModel) -> ModelCard {
    let served = &model.served;
    ModelCard::new(
        name.to_owned(),
        served.root.clone(),
        served.created_s,
        served.max_model_len,
        served.max_model_len,
    )
    .from(served.provenance.origin().clone())
}
