//! What a request is called where it is told of: in logs, in metrics and in errors.

use std::panic::AssertUnwindSafe;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use backstop_protocol::ApiError;
use futures::FutureExt;

use crate::dialect::Dialect;
use crate::entropy::random_u128;
use crate::in_flight::RequestGuard;
use crate::keys::Ticket;
use crate::record::Record;
use crate::reply::ErrorReply;
use crate::routes::Rules;
use crate::server::Server;
use crate::status::ErrorKind;
use crate::trace_context::TraceContext;

/// The header that has a request's id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of a client's request id that are kept.
const REQUEST_ID_CHARS_MAX: usize = 128;

/// What is known of a request before it is let in. Those that are handed to a route carry it in their
/// extensions.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// What holds for its route.
    pub(crate) rules: Rules,
    pub(crate) id: HeaderValue,
    pub(crate) dialect: Dialect,
    /// The span by which it was made.
    pub(crate) trace: Option<TraceContext>,
}

impl Identity {
    pub(crate) fn of(request: &Request) -> Self {
        Self {
            rules: Rules::of(request.uri().path()),
            id: request_id(request.headers()),
            dialect: Dialect::of(request),
            trace: TraceContext::of(request.headers()),
        }
    }

    /// What comes of answering the request, whatever becomes of it.
    pub(crate) async fn caught(
        self,
        answering: impl Future<Output = impl IntoResponse>,
    ) -> Response {
        match AssertUnwindSafe(answering).catch_unwind().await {
            Ok(answer) => answer.into_response(),
            Err(_) => {
                let Self { rules, id, .. } = self;
                tracing::error!(route = rules.path, request_id = ?id, "a request handler panicked");
                ErrorReply(ApiError::internal()).into_response()
            }
        }
    }
}

/// What becomes of a request's failure that comes too late for a status: the same, but for that.
pub(crate) struct LateFailure {
    identity: Identity,
    server: Server,
    ticket: Ticket,
    record: Record,
}

impl LateFailure {
    /// Of a request in flight.
    pub(crate) fn of(identity: Identity, request: &RequestGuard) -> Self {
        let RequestGuard {
            server,
            ticket,
            record,
            ..
        } = request;
        Self {
            identity,
            server: server.clone(),
            ticket: ticket.clone(),
            record: record.clone(),
        }
    }

    /// Takes note of it.
    pub(crate) fn note(&self, error: &ApiError) {
        self.record.failed(error);
        let (route, status) = (self.identity.rules.path, error.status);
        self.server.metrics().failed_late(route, status);
        let kind = ErrorKind {
            route,
            status,
            code: error.code,
            late: true,
        };
        let errors = &self.server.records().errors;
        errors.record(kind, Some(self.ticket.caller()), id_text(&self.identity.id));
        self.ticket.caller().refund_unless_at_fault(status);
    }

    /// Writes it where the answer is not streamed.
    pub(crate) fn write(&self, error: &ApiError) -> String {
        self.identity.dialect.write(error, &self.identity.id)
    }
}

/// An id, which has visible ASCII characters alone.
pub(crate) fn id_text(id: &HeaderValue) -> &str {
    id.to_str().unwrap_or_default()
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
    use super::*;

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
}
