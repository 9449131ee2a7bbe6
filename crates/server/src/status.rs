//! What the server remembers of itself, for the people who look after it: `GET /backstop/status`.
//!
//! Invariant: everything kept here has a fixed bound, and none of it holds a prompt, an answer or a key.

mod canary;
mod errors;
mod load;
mod report;
mod ring;
mod states;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Extension, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

pub(crate) use self::canary::CanaryHistory;
pub use self::canary::CanaryResult;
pub(crate) use self::errors::{ErrorKind, ErrorLog};
use self::load::LoadHistory;
use self::report::Report;
use self::states::StateHistory;
use crate::keys::Caller;
use crate::reply;
use crate::server::Server;

/// What a server remembers of itself.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) canary: Arc<CanaryHistory>,
    pub(crate) errors: ErrorLog,
    states: StateHistory,
    load: LoadHistory,
}

impl Server {
    /// Takes note of a comparison with the recorded answer, for metrics and for those who look at the server.
    pub fn record_canary(&self, result: CanaryResult) {
        self.records().canary.record(result);
    }

    /// What `GET /backstop/status` says to somebody who may see everything: the operator, who asks on a way of his own.
    pub fn status(&self) -> serde_json::Value {
        // It has neither maps with keys of other types nor anything that fails.
        serde_json::to_value(Report::of(self, &Caller::operator())).unwrap_or_default()
    }

    /// Whether `viewer` may see what another caller did; `None` is somebody whom no key let in.
    fn may_see(&self, viewer: &Caller, other: Option<&Caller>) -> bool {
        self.keys().is_none() || viewer.may_see(other)
    }
}

/// Keeps the records up to date for as long as the server serves.
pub(crate) async fn keep(server: &Server) {
    tokio::join!(states::follow(server), load::follow(server));
}

/// `GET /backstop/status`. Each key sees its own use and errors, and some see those of all.
pub(crate) async fn handle(
    State(server): State<Server>,
    Extension(viewer): Extension<Caller>,
) -> Response {
    let mut response = reply::json(StatusCode::OK, &Report::of(&server, &viewer));
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Seconds since 1970, to the millisecond.
fn unix_s(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as f64 / 1000.0
}

/// Seconds, to the millisecond.
fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1000.0
}
