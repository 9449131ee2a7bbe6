//! What stands before all routes: keys, request ids, counting, what browsers are told, patience with
//! those who have little, and the net that catches panics.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use backstop_engine::LifecycleState;
use backstop_protocol::ApiError;
use futures::FutureExt;

use crate::cors::Cors;
use crate::entropy::random_u128;
use crate::keys::{Caller, Ticket};
use crate::patience::{self, Intervals, LateFailure, WriteFailure};
use crate::reply::ErrorReply;
use crate::routes::{Access, BodyUse, Rules, manner};
use crate::serve::{HeadFault, Visit};
use crate::server::Server;
use crate::{body, cors, messages, ollama};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of a client's request id that are kept.
const REQUEST_ID_CHARS_MAX: usize = 128;
/// What is read at most of bodies that are thrown away where no key is asked for, or none was right:
/// enough for a long prompt whose sender has an old key, and shall learn it.
pub(crate) const DISCARDED_OF_STRANGERS_BYTES_MAX: usize = 4 << 20;

/// Name of the route of all preflights, which are answered whatever they are for.
const PREFLIGHT: &str = "preflight";

/// In whose shape the errors of a request are written.
#[derive(Clone, Copy, Debug)]
enum Dialect {
    OpenAi,
    Anthropic,
    Ollama,
}

impl Dialect {
    fn of(request: &Request) -> Self {
        if ollama::is_ollama(request) {
            Self::Ollama
        } else if messages::is_anthropic(request) {
            Self::Anthropic
        } else {
            Self::OpenAi
        }
    }

    /// Brings an answer into this shape.
    fn reshape(self, response: &mut Response, id: &HeaderValue) {
        match self {
            Self::OpenAi => {}
            Self::Anthropic => messages::reshape(response, id),
            Self::Ollama => ollama::reshape(response),
        }
    }

    /// Writes errors where there is no answer to be reshaped.
    fn writer(self, id: &HeaderValue) -> WriteFailure {
        let id = id.to_str().ok().map(str::to_owned);
        match self {
            Self::OpenAi => Box::new(ApiError::to_json_string),
            Self::Ollama => Box::new(ApiError::to_ollama_json_string),
            Self::Anthropic => Box::new(move |error| error.to_anthropic_json_string(id.as_deref())),
        }
    }
}

/// Wraps every request: stamps and counts its answer.
pub(crate) async fn envelope(
    State(server): State<Server>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let dialect = Dialect::of(&request);
    let origin = request.headers().get(ORIGIN).cloned();
    let Answered {
        label,
        caller,
        mut response,
    } = answer(&server, request, next, &id).await;
    let status = response.status().as_u16();
    let name = caller.as_ref().and_then(Caller::name);
    server.metrics().responded(label, status);
    tracing::debug!(route = label, status, key = name, request_id = ?id, elapsed = ?started.elapsed(), "answered");
    dialect.reshape(&mut response, &id);
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    if let Some(caller) = caller {
        caller.tell_limits(headers);
    }
    server.config().provenance.stamp(headers);
    if let Some(cors) = &server.config().cors {
        cors.stamp(origin.as_ref(), headers);
    }
    if server.lifecycle().state() == LifecycleState::Draining {
        // Lets go of kept-alive connections without cutting them off.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// An answer, and what is counted of it.
struct Answered {
    label: &'static str,
    /// Absent if the request was let in by no check.
    caller: Option<Caller>,
    response: Response,
}

/// Answers a request: a preflight at once, and all others if they may call.
async fn answer(server: &Server, mut request: Request, next: Next, id: &HeaderValue) -> Answered {
    let rules = Rules::of(request.uri().path());
    let label = rules.path;
    let caller = match request.extensions().get::<HeadFault>() {
        Some(fault) => Err(ApiError::from(*fault)),
        None => {
            let cors = server.config().cors.as_ref();
            if let Some(cors) = cors.filter(|_| cors::is_preflight(&request)) {
                return preflight(cors, request).await;
            }
            check_access(server, rules.access, request.headers())
        }
    };
    let visit = request.extensions().get::<Visit>();
    let is_open = rules.access.is_open(server.config());
    if let Some(visit) = visit.filter(|_| caller.is_ok() && !is_open) {
        visit.let_in();
    }
    if let Ok(caller) = &caller {
        request.extensions_mut().insert(caller.clone());
    }
    let response = match &caller {
        Err(error) => {
            body::discard(request, DISCARDED_OF_STRANGERS_BYTES_MAX).await;
            ErrorReply(error.clone()).into_response()
        }
        Ok(caller) if is_counted(&request, rules) => {
            counted(server, caller, request, async |request| {
                respond(server, request, next, (rules, id)).await
            })
            .await
        }
        Ok(_) => respond(server, request, next, (rules, id)).await,
    };
    Answered {
        label,
        caller: caller.ok(),
        response,
    }
}

/// Answers a browser's question whether a page may send a request. No key comes with it.
async fn preflight(cors: &Cors, request: Request) -> Answered {
    let request = body::discard(request, DISCARDED_OF_STRANGERS_BYTES_MAX).await;
    let answer = cors.preflight(request.headers()).map_err(ErrorReply);
    Answered {
        label: PREFLIGHT,
        caller: None,
        response: answer.into_response(),
    }
}

/// Whether a request counts against the limits of its key: those that bring something to compute.
fn is_counted(request: &Request, rules: Rules) -> bool {
    request.method() == Method::POST && rules.body == BodyUse::Read
}

/// Answers a request within its caller's limits.
async fn counted(
    server: &Server,
    caller: &Caller,
    mut request: Request,
    respond: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    match caller.begin() {
        Err(error) => {
            body::discard(request, server.config().max_body_bytes).await;
            ErrorReply(error).into_response()
        }
        Ok(ticket) => {
            request.extensions_mut().insert(ticket);
            let response = respond(request).await;
            if is_no_fault_of_the_caller(response.status().as_u16()) {
                caller.refund();
            }
            response
        }
    }
}

/// Hands a request to its route, and looks after its client until there is an answer.
async fn respond(
    server: &Server,
    request: Request,
    next: Next,
    (rules, id): (Rules, &HeaderValue),
) -> Response {
    let (label, id) = (rules.path, id.clone());
    let Some(manner) = manner(label).filter(|_| request.method() == Method::POST) else {
        let request = match rules.body {
            BodyUse::Read => request,
            BodyUse::Discarded => body::discard(request, DISCARDED_OF_STRANGERS_BYTES_MAX).await,
        };
        return caught(next.run(request), label, id).await;
    };
    let intervals = Intervals {
        streamed: server.config().keep_alive_interval,
        whole: server.config().response_keep_alive,
    };
    let late_failure = late_failure(server, &request, (label, &id));
    let respond = move |request| caught(next.run(request), label, id);
    patience::keep(intervals, manner, late_failure, request, respond).await
}

/// What becomes of a request's failure that comes too late for a status: the same, but for that.
fn late_failure(
    server: &Server,
    request: &Request,
    (label, id): (&'static str, &HeaderValue),
) -> LateFailure {
    let server = server.clone();
    let ticket = request.extensions().get::<Ticket>().cloned();
    let request_id = id.clone();
    let note = move |error: &ApiError| {
        let status = error.status;
        tracing::debug!(route = label, status, ?request_id, "failed late");
        server.metrics().failed_late(label, status);
        if let Some(ticket) = ticket
            .as_ref()
            .filter(|_| is_no_fault_of_the_caller(status))
        {
            ticket.caller().refund();
        }
    };
    LateFailure {
        write: Dialect::of(request).writer(id),
        note: Box::new(note),
    }
}

/// Whether a request was refused for want of room, or by a fault of the server's.
fn is_no_fault_of_the_caller(status: u16) -> bool {
    matches!(status, 429 | 500..)
}

/// The answer of a route, whatever becomes of it.
async fn caught(
    answering: impl Future<Output = Response>,
    label: &'static str,
    id: HeaderValue,
) -> Response {
    match AssertUnwindSafe(answering).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(route = label, request_id = ?id, "a request handler panicked");
            ErrorReply(ApiError::internal()).into_response()
        }
    }
}

/// Who calls, if they may.
fn check_access(server: &Server, access: Access, headers: &HeaderMap) -> Result<Caller, ApiError> {
    if access == Access::Open {
        return Ok(server.anybody().clone());
    }
    if access == Access::Ready {
        server.ready_model()?;
    }
    match server.keys() {
        Some(keys) => match keys.find(headers) {
            Some(caller) => Ok(caller),
            None if access.is_open(server.config()) => Ok(server.anybody().clone()),
            None => Err(ApiError::unauthorized()),
        },
        None => Ok(server.anybody().clone()),
    }
}

/// The client's own id as far as it is harmless in a log, or a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kept: String = given
        .chars()
        .filter(|character| character.is_ascii_alphanumeric() || "-_.:/".contains(*character))
        .take(REQUEST_ID_CHARS_MAX)
        .collect();
    let id = if kept.is_empty() {
        format!("{:032x}", random_u128())
    } else {
        kept
    };
    // Cannot fail, for only visible ASCII characters are left.
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use backstop_engine::Lifecycle;

    use super::*;
    use crate::routes::ROUTES;
    use crate::{KeySet, ServerConfig};

    fn id_for(given: &'static [u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(given).unwrap());
        request_id(&headers).to_str().unwrap().to_owned()
    }

    #[test]
    fn request_ids_are_kept_bounded_and_clean() {
        assert_eq!(id_for(b"abc-1.2_3"), "abc-1.2_3");
        assert_eq!(id_for(b"a b\"c\tforged=1"), "abcforged1");
        assert_eq!(id_for(&[b'x'; 500]).len(), REQUEST_ID_CHARS_MAX);
        assert_eq!(id_for(b"").len(), 32);
        assert_eq!(id_for(b"\xff\xfe").len(), 32);
        assert_eq!(request_id(&HeaderMap::new()).len(), 32);
    }

    #[test]
    fn nothing_but_probes_is_open_when_there_are_keys() {
        let config = ServerConfig {
            api_keys: Some(KeySet::new(["a-good-key"])),
            ..ServerConfig::default()
        };
        let server = Server::new(config, Lifecycle::new());
        let known = ROUTES.iter().map(|route| route.rules.path);
        for path in known.chain(["/nowhere", "/v1/models/x"]) {
            let Rules { access, .. } = Rules::of(path);
            let allowed = check_access(&server, access, &HeaderMap::new());
            let probe = ["/health", "/ready", "/ping"].contains(&path);
            match allowed {
                Ok(_) => assert!(probe, "{path}"),
                // There is no model yet, which comes first.
                Err(error) if access == Access::Ready => assert_eq!(error.status, 503, "{path}"),
                Err(error) => assert_eq!(error.status, 401, "{path}"),
            }
        }
    }
}
