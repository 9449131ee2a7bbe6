//! The table of routes, and what stands before them: keys, request ids, counting, and the net
//! that catches panics.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONNECTION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use backstop_engine::LifecycleState;
use backstop_protocol::ApiError;
use futures::FutureExt;

use crate::entropy::random_u128;
use crate::keys::Caller;
use crate::reply::ErrorReply;
use crate::serve::{HeadFault, Visit};
use crate::server::Server;
use crate::{
    body, chat, completions, infill, messages, mistral_fim, openapi, probes, responses, tokens,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of a client's request id that are kept.
const REQUEST_ID_CHARS_MAX: usize = 128;
/// What is read at most of bodies that are thrown away where no key is asked for, or none was right:
/// enough for a long prompt whose sender has an old key, and shall learn it.
const DISCARDED_OF_STRANGERS_BYTES_MAX: usize = 4 << 20;

/// Who may call a route, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody, at any time: probes.
    Open,
    /// Holders of a key, at any time.
    Key,
    /// Holders of a key, once the model is ready. Not being ready comes first: a gateway takes a
    /// 401 or a 404 for a reason to stay away, a 503 for a reason to come back.
    Ready,
}

/// Paths and who may call them. Everything else is `("other", Access::Ready)`.
pub(crate) const ACCESS: [(&str, Access); 18] = [
    ("/health", Access::Open),
    ("/ready", Access::Open),
    ("/ping", Access::Open),
    ("/", Access::Key),
    ("/version", Access::Key),
    ("/metrics", Access::Key),
    ("/openapi.json", Access::Key),
    ("/v1/models", Access::Ready),
    ("/v1/chat/completions", Access::Ready),
    ("/v1/completions", Access::Ready),
    ("/v1/fim/completions", Access::Ready),
    ("/infill", Access::Ready),
    ("/v1/responses", Access::Ready),
    ("/v1/messages", Access::Ready),
    ("/v1/messages/count_tokens", Access::Ready),
    ("/tokenize", Access::Ready),
    ("/detokenize", Access::Ready),
    ("/tokenizer_info", Access::Ready),
];

/// Routes whose handlers read the body. Of every other request it is thrown away beforehand.
const WITH_BODY: [&str; 9] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/fim/completions",
    "/infill",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/tokenize",
    "/detokenize",
];

/// A path's name for metrics, of which there are finitely many, and its access.
fn route(path: &str) -> (&'static str, Access) {
    let known = ACCESS.into_iter().find(|(known, _)| *known == path);
    known.unwrap_or(if path.starts_with("/v1/models/") {
        ("/v1/models/{id}", Access::Ready)
    } else {
        ("other", Access::Ready)
    })
}

impl Server {
    /// All routes, for [`serve`](crate::serve) or for a server of one's own.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/chat/completions", post(chat::handle))
            .route("/v1/completions", post(completions::handle))
            .route("/v1/fim/completions", post(mistral_fim::handle))
            .route("/infill", post(infill::handle))
            .route("/v1/responses", post(responses::handle))
            .route("/v1/messages", post(messages::handle))
            .route("/v1/messages/count_tokens", post(messages::count_tokens))
            .route("/tokenize", post(tokens::tokenize))
            .route("/detokenize", post(tokens::detokenize))
            .route("/tokenizer_info", get(tokens::info))
            .route("/v1/models", get(probes::models))
            .route("/v1/models/{*id}", get(probes::model))
            .route("/health", get(probes::health))
            .route("/ping", get(probes::health).post(probes::health))
            .route("/ready", get(probes::ready))
            .route("/version", get(probes::version))
            .route("/metrics", get(probes::metrics))
            .route("/openapi.json", get(openapi::handle))
            .route("/", get(probes::root))
            .fallback(async || ErrorReply(ApiError::route_not_found()))
            .method_not_allowed_fallback(method_not_allowed)
            .layer(middleware::from_fn_with_state(self.clone(), envelope))
            .with_state(self.clone())
    }

    /// The routes that say whether the server is well, and no others.
    pub(crate) fn probe_router(&self) -> Router {
        Router::new()
            .route("/health", get(probes::health))
            .route("/ping", get(probes::health).post(probes::health))
            .route("/ready", get(probes::ready))
            .fallback(async || ErrorReply(ApiError::route_not_found()))
            .method_not_allowed_fallback(method_not_allowed)
            .layer(middleware::from_fn_with_state(self.clone(), envelope))
            .with_state(self.clone())
    }
}

async fn method_not_allowed(request: Request) -> ErrorReply {
    body::discard(request, DISCARDED_OF_STRANGERS_BYTES_MAX).await;
    ErrorReply(ApiError::method_not_allowed())
}

/// Wraps every request: checks its access, counts it against its key's limits, catches its panics,
/// stamps and counts its answer.
async fn envelope(State(server): State<Server>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let (label, access) = route(request.uri().path());
    let anthropic = messages::is_anthropic(&request);
    let caller = match request.extensions().get::<HeadFault>() {
        Some(fault) => Err(ApiError::from(*fault)),
        None => check_access(&server, access, label, request.headers()),
    };
    let visit = request.extensions().get::<Visit>();
    if let Some(visit) = visit.filter(|_| caller.is_ok() && !is_open(&server, access, label)) {
        visit.let_in();
    }
    if let Ok(caller) = &caller {
        request.extensions_mut().insert(caller.clone());
    }
    let mut response = match &caller {
        Err(error) => {
            body::discard(request, DISCARDED_OF_STRANGERS_BYTES_MAX).await;
            ErrorReply(error.clone()).into_response()
        }
        Ok(caller) if is_counted(&request, label) => {
            counted(&server, caller, request, async |request| {
                respond(request, next, label, &id).await
            })
            .await
        }
        Ok(_) => respond(request, next, label, &id).await,
    };
    let caller = caller.ok();
    let status = response.status().as_u16();
    let name = caller.as_ref().and_then(Caller::name);
    server.metrics().responded(label, status);
    tracing::debug!(route = label, status, key = name, request_id = ?id, elapsed = ?started.elapsed(), "answered");
    if anthropic {
        messages::reshape(&mut response, &id);
    }
    response.headers_mut().insert(REQUEST_ID, id);
    if let Some(caller) = caller {
        caller.tell_limits(response.headers_mut());
    }
    if server.lifecycle().state() == LifecycleState::Draining {
        // Lets go of kept-alive connections without cutting them off.
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether a request counts against the limits of its key: those that bring something to compute.
fn is_counted(request: &Request, label: &str) -> bool {
    request.method() == Method::POST && WITH_BODY.contains(&label)
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
            // Refused for want of room, or by a fault of the server's.
            if matches!(response.status().as_u16(), 429 | 500..) {
                caller.refund();
            }
            response
        }
    }
}

/// Hands a request to its route.
async fn respond(request: Request, next: Next, label: &str, id: &HeaderValue) -> Response {
    let request = match WITH_BODY.contains(&label) {
        true => request,
        false => body::discard(request, DISCARDED_OF_STRANGERS_BYTES_MAX).await,
    };
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(route = label, request_id = ?id, "a request handler panicked");
            ErrorReply(ApiError::internal()).into_response()
        }
    }
}

/// Whether anybody may call, without a key.
fn is_open(server: &Server, access: Access, label: &str) -> bool {
    access == Access::Open || (label == "/metrics" && server.config().public_metrics)
}

/// Who calls, if they may.
fn check_access(
    server: &Server,
    access: Access,
    label: &str,
    headers: &HeaderMap,
) -> Result<Caller, ApiError> {
    if access == Access::Open {
        return Ok(server.anybody().clone());
    }
    if access == Access::Ready {
        server.ready_model()?;
    }
    match server.keys() {
        Some(keys) => match keys.find(headers) {
            Some(caller) => Ok(caller),
            None if label == "/metrics" && server.config().public_metrics => {
                Ok(server.anybody().clone())
            }
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
        let unknown = [("/nowhere", Access::Ready), ("/v1/models/x", Access::Ready)];
        for (path, _) in ACCESS.into_iter().chain(unknown) {
            let (label, access) = route(path);
            let allowed = check_access(&server, access, label, &HeaderMap::new());
            let probe = ["/health", "/ready", "/ping"].contains(&path);
            match allowed {
                Ok(_) => assert!(probe, "{path}"),
                Err(error) if access == Access::Key => assert_eq!(error.status, 401, "{path}"),
                // There is no model yet, which comes first.
                Err(error) => assert_eq!(error.status, 503, "{path}"),
            }
        }
        for path in WITH_BODY {
            assert_eq!(route(path), (path, Access::Ready));
        }
    }

    #[test]
    fn unknown_paths_share_one_label() {
        assert_eq!(route("/health"), ("/health", Access::Open));
        assert_eq!(route("/v1/models/a/b").0, "/v1/models/{id}");
        assert_eq!(route("/whatever"), ("other", Access::Ready));
    }
}
