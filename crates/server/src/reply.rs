//! Errors and JSON as HTTP responses, and which error each failure of the engine is.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use backstop_engine::{LifecycleState, Rejection, SubmitError};
use backstop_protocol::ApiError;
use futures::stream;
use serde::Serialize;

use crate::gate::Refusal;
use crate::unpacking::ACCEPTED_CODINGS;

/// Advice to a client whose engine stopped: a supervisor restarts it.
const GONE_RETRY_S: u32 = 5;
/// Advice while the server goes away: its successor needs a moment.
const DRAINING_RETRY_S: u32 = 15;
/// Advice when only a restart can help.
const FAILED_RETRY_S: u32 = 60;
/// Advice while the model is not trusted; whether it is again is found out once a minute at most.
const SUSPECT_RETRY_S: u32 = 60;
/// Advice while the model proves itself.
const WARMING_RETRY_S: u32 = 5;
/// Advice while nothing is known about the progress of loading.
const LOADING_RETRY_S: u32 = 10;

/// Advice while the audit log's disk takes nothing: it is tried again every second.
const AUDIT_LOG_RETRY_S: u32 = 5;

/// Bytes of a long answer that are handed over at once.
const PIECE_BYTES: usize = 64 << 10;

/// An error on its way to the client.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ErrorReply(pub(crate) ApiError);

impl From<ApiError> for ErrorReply {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for ErrorReply {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let status =
            StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json_text(status, error.to_json_string());
        let headers = response.headers_mut();
        if let Some(seconds) = error.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED_CODINGS));
        }
        // For who has to write it in another shape.
        response.extensions_mut().insert(error);
        response
    }
}

/// A value as a JSON response.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match json_of(value) {
        Ok(text) => json_text(status, text),
        Err(error) => ErrorReply(error).into_response(),
    }
}

/// A value as JSON.
pub(crate) fn json_of(value: &impl Serialize) -> Result<String, ApiError> {
    serde_json::to_string(value).map_err(|error| {
        tracing::error!(%error, "cannot serialise a response");
        ApiError::internal()
    })
}

/// A response of JSON that may be long. It is handed over in pieces, and holds something until the last is taken, so
/// that what bounds the number of those things bounds the memory of answers that nobody reads.
pub(crate) fn long_json(text: String, held: impl Send + 'static) -> Response {
    let length = text.len();
    let state = (Bytes::from(text), held);
    let pieces = stream::unfold(state, |(mut rest, held)| async move {
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        let is_over = piece.is_empty();
        (!is_over).then_some((Ok::<_, Infallible>(piece), (rest, held)))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn json_text(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The answer to a request that cannot be served in `state`. `loading_retry_s` is the estimate of
/// how long loading will go on.
pub(crate) fn unavailable(state: &LifecycleState, loading_retry_s: Option<u32>) -> ApiError {
    match state {
        LifecycleState::Loading { .. } => {
            ApiError::loading(loading_retry_s.unwrap_or(LOADING_RETRY_S))
        }
        LifecycleState::Warming => ApiError::loading(WARMING_RETRY_S),
        // Ready, and yet there is no model: it is installed at any moment.
        LifecycleState::Ready => ApiError::loading(1),
        LifecycleState::Sleeping { wake_s, .. } => ApiError::sleeping((*wake_s).max(1)),
        LifecycleState::Suspect(_) => ApiError::unproven(SUSPECT_RETRY_S),
        LifecycleState::Draining | LifecycleState::Stopped => ApiError::draining(DRAINING_RETRY_S),
        LifecycleState::Failed(_) => ApiError::engine_unavailable(FAILED_RETRY_S),
    }
}

/// The answer to a request whose engine stopped under it.
pub(crate) fn engine_gone() -> ApiError {
    ApiError::engine_unavailable(GONE_RETRY_S)
}

/// The answer to a request that could not be written down.
pub(crate) fn audit_log_unavailable() -> ApiError {
    ApiError::audit_log_unavailable(AUDIT_LOG_RETRY_S)
}

/// The answer to a request that the gate did not let in.
pub(crate) fn not_let_in(refusal: Refusal, retry_after_s: u32) -> ApiError {
    match refusal {
        Refusal::Requests | Refusal::Tokens => ApiError::queue_full(retry_after_s),
        Refusal::Share => ApiError::queue_share_used(retry_after_s),
        Refusal::Lane => ApiError::lane_closed(retry_after_s),
    }
}

/// The answer to a request that the engine did not accept. `param` is the field that held the
/// prompt, `retry_after_s` when the queue may have emptied.
pub(crate) fn not_accepted(
    error: &SubmitError,
    param: &'static str,
    retry_after_s: u32,
) -> ApiError {
    let rejection = match error {
        SubmitError::NotReady(state) => return unavailable(state, None),
        SubmitError::InboxFull => return ApiError::queue_full(retry_after_s),
        SubmitError::Rejected(rejection) => rejection,
    };
    match *rejection {
        Rejection::QueueFull { .. } => ApiError::queue_full(retry_after_s),
        Rejection::PromptTooLong {
            prompt_tokens,
            max_model_len,
        } => ApiError::context_length(param, max_model_len, prompt_tokens, None),
        Rejection::EmptyPrompt => ApiError::invalid_field(param, "must not be empty"),
        Rejection::NeverFits { .. } => {
            ApiError::invalid_field("max_tokens", "asks for more than the KV cache can hold")
        }
        Rejection::DuplicateSequence { .. } | Rejection::InvalidLimits => {
            tracing::error!(%error, "the engine refused a valid request");
            ApiError::internal()
        }
    }
}

#[cfg(test)]
mod tests {
    use backstop_types::SleepLevel;

    use super::*;

    #[test]
    fn every_state_but_ready_is_a_503_with_advice() {
        let states = [
            LifecycleState::Loading {
                bytes_done: 0,
                bytes_total: 0,
            },
            LifecycleState::Warming,
            LifecycleState::Sleeping {
                level: SleepLevel::KeepWeights,
                wake_s: 0,
            },
            LifecycleState::Suspect("wrong".into()),
            LifecycleState::Draining,
            LifecycleState::Stopped,
            LifecycleState::Failed("broken".into()),
        ];
        for state in states {
            let response = ErrorReply(unavailable(&state, Some(600))).into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            let advice = response.headers()[RETRY_AFTER]
                .to_str()
                .unwrap()
                .parse::<u32>()
                .unwrap();
            assert!((1..=60).contains(&advice));
        }
    }

    #[test]
    fn a_full_queue_is_a_429() {
        let full = SubmitError::Rejected(Rejection::QueueFull { waiting: 3 });
        for error in [full, SubmitError::InboxFull] {
            let reply = not_accepted(&error, "messages", 7);
            assert_eq!((reply.status, reply.retry_after_s), (429, Some(7)));
        }
    }
}
