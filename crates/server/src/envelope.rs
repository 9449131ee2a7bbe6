//! What stands before all routes: keys, limits of keys, counting, what browsers are told, and the net
//! that catches panics.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use backstop_engine::LifecycleState;
use backstop_protocol::ApiError;

use crate::cors::Cors;
use crate::exchange::Exchange;
use crate::identity::{Identity, REQUEST_ID, id_text};
use crate::keys::Caller;
use crate::record::Record;
use crate::reply::ErrorReply;
use crate::routes::{Access, BodyUse, Rules};
use crate::serve::{HeadFault, Peer, Visit};
use crate::server::Server;
use crate::status::ErrorKind;
use crate::{body, cors};

/// What is read at most of bodies that are thrown away where no key is asked for, or none was right:
/// enough for a long prompt whose sender has an old key, and shall learn it.
pub(crate) const DISCARDED_OF_STRANGERS_BYTES_MAX: usize = 4 << 20;

/// Name of the route of all preflights, which are answered whatever they are for.
const PREFLIGHT: &str = "preflight";

/// Wraps every request: stamps and counts its answer, and follows it to its end.
pub(crate) async fn envelope(
    State(server): State<Server>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let identity = Identity::of(&request);
    let record = Record::begin(&server, &request, &identity);
    request.extensions_mut().insert(record.clone());
    let method = request.method().clone();
    let peer = request.extensions().get::<Peer>().cloned();
    let origin = request.headers().get(ORIGIN).cloned();
    let Answered {
        route,
        caller,
        mut response,
    } = answer(&server, request, next, &identity).await;
    let status = response.status().as_u16();
    server.metrics().responded(route, status);
    if let Some(error) = response.extensions().get::<ApiError>() {
        let kind = ErrorKind {
            route,
            status,
            code: error.code,
            late: false,
        };
        let errors = &server.records().errors;
        errors.record(kind, caller.as_ref(), id_text(&identity.id));
    }
    let name = caller.as_ref().and_then(Caller::name);
    record.answered(route, name, &response);
    identity.dialect.reshape(&mut response, &identity.id);
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, identity.id.clone());
    if let Some(caller) = &caller {
        caller.tell_limits(headers);
    }
    server.provenance_of(route).stamp(headers);
    if let Some(cors) = &server.config().cors {
        cors.stamp(origin.as_ref(), headers);
    }
    if server.lifecycle().state() == LifecycleState::Draining {
        // Lets go of kept-alive connections without cutting them off.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let exchange = Exchange {
        method,
        route,
        body_use: identity.rules.body,
        id: identity.id,
        trace: identity.trace,
        peer,
        caller,
        model: server.provenance_of(route).model_header().cloned(),
        status,
        started,
    };
    exchange.follow(response, record, server)
}

/// An answer, and what is counted of it.
struct Answered {
    route: &'static str,
    /// Absent if the request was let in by no check.
    caller: Option<Caller>,
    response: Response,
}

/// Answers a request: a preflight at once, and all others if they may call.
async fn answer(server: &Server, request: Request, next: Next, identity: &Identity) -> Answered {
    let rules = identity.rules;
    let caller = match request.extensions().get::<HeadFault>() {
        Some(fault) => Err(ApiError::from(*fault)),
        None => {
            let cors = server.config().cors.as_ref();
            if let Some(cors) = cors.filter(|_| cors::is_preflight(&request)) {
                return preflight(cors, request).await;
            }
            let may_wake =
                wants_model(&rules, &request) && find_caller(server, request.headers()).is_some();
            let ready = readiness(server, may_wake).await;
            check_access(server, rules.access, request.headers(), ready)
        }
    };
    let response = match &caller {
        Err(error) => {
            body::discard(request, DISCARDED_OF_STRANGERS_BYTES_MAX).await;
            ErrorReply(error.clone()).into_response()
        }
        Ok(caller) => let_in(server, request, next, caller, identity).await,
    };
    Answered {
        route: rules.path,
        caller: caller.ok(),
        response,
    }
}

/// Answers a browser's question whether a page may send a request. No key comes with it.
async fn preflight(cors: &Cors, request: Request) -> Answered {
    let request = body::discard(request, DISCARDED_OF_STRANGERS_BYTES_MAX).await;
    let answer = cors.preflight(request.headers()).map_err(ErrorReply);
    Answered {
        route: PREFLIGHT,
        caller: None,
        response: answer.into_response(),
    }
}

/// Answers a request whose sender may call.
async fn let_in(
    server: &Server,
    mut request: Request,
    next: Next,
    caller: &Caller,
    identity: &Identity,
) -> Response {
    let rules = identity.rules;
    let is_open = rules.access.is_open(server.config(), request.headers());
    let visit = request.extensions().get::<Visit>();
    if let Some(visit) = visit.filter(|_| !is_open) {
        visit.let_in();
    }
    request.extensions_mut().insert(caller.clone());
    let identity = identity.clone();
    match rules.body {
        // Those that bring something to compute.
        BodyUse::Read if request.method() == Method::POST => {
            counted(server, request, next, caller, identity).await
        }
        // Another method, which no route has.
        BodyUse::Read => identity.caught(next.run(request)).await,
        BodyUse::Discarded => {
            let request = body::discard(request, DISCARDED_OF_STRANGERS_BYTES_MAX).await;
            identity.caught(next.run(request)).await
        }
    }
}

/// Answers a request within its caller's limits.
async fn counted(
    server: &Server,
    mut request: Request,
    next: Next,
    caller: &Caller,
    identity: Identity,
) -> Response {
    let ticket = match caller.begin() {
        Ok(ticket) => ticket,
        Err(error) => {
            body::discard(request, server.config().max_body_bytes).await;
            return ErrorReply(error).into_response();
        }
    };
    let extensions = request.extensions_mut();
    extensions.insert(ticket);
    extensions.insert(identity.clone());
    let response = identity.caught(next.run(request)).await;
    caller.refund_unless_at_fault(response.status().as_u16());
    response
}

/// Whether a request brings something to compute.
fn wants_model(rules: &Rules, request: &Request) -> bool {
    rules.access == Access::Ready && rules.body == BodyUse::Read && request.method() == Method::POST
}

/// Who calls, where keys are asked for.
fn find_caller(server: &Server, headers: &HeaderMap) -> Option<Caller> {
    match server.keys() {
        Some(keys) => keys.find(headers),
        None => Some(server.anybody().clone()),
    }
}

/// Whether the models are ready; a request that may wake them waits for it.
async fn readiness(server: &Server, may_wake: bool) -> Result<(), ApiError> {
    let patience = Instant::now() + server.queue_timeout();
    match may_wake {
        true => server.check_ready_or_wake(patience).await,
        false => server.check_ready(),
    }
}

/// Who calls, if they may.
fn check_access(
    server: &Server,
    access: Access,
    headers: &HeaderMap,
    ready: Result<(), ApiError>,
) -> Result<Caller, ApiError> {
    if access == Access::Open {
        return Ok(server.anybody().clone());
    }
    if access == Access::Ready {
        ready?;
    }
    match find_caller(server, headers) {
        Some(caller) => Ok(caller),
        None if access.is_open(server.config(), headers) => Ok(server.anybody().clone()),
        None => Err(ApiError::unauthorized()),
    }
}

#[cfg(test)]
mod tests {
    use backstop_engine::Lifecycle;

    use super::*;
    use crate::routes::ROUTES;
    use crate::{KeySet, ServerConfig};

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
            let ready = server.check_ready();
            let allowed = check_access(&server, access, &HeaderMap::new(), ready);
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
