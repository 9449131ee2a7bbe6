//! In whose shape errors are written: the table of errors is one, and its OpenAI form is rewritten for
//! clients of other APIs.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use backstop_protocol::ApiError;

/// Where Anthropic's clients look for the request's id.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// Every client of Anthropic's sends it.
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// An API whose clients read errors in a shape of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dialect {
    OpenAi,
    Anthropic,
    Ollama,
}

impl Dialect {
    pub(crate) fn of(request: &Request) -> Self {
        let path = request.uri().path();
        if path.starts_with("/api/") {
            Self::Ollama
        } else if path == "/v1/messages"
            || path.starts_with("/v1/messages/")
            || request.headers().contains_key(ANTHROPIC_VERSION)
        {
            Self::Anthropic
        } else {
            Self::OpenAi
        }
    }

    /// Writes an error that answers the request with this id.
    pub(crate) fn write(self, error: &ApiError, id: &HeaderValue) -> String {
        match self {
            Self::OpenAi => error.to_json_string(),
            Self::Anthropic => error.to_anthropic_json_string(id.to_str().ok()),
            Self::Ollama => error.to_ollama_json_string(),
        }
    }

    /// Brings an answer into this shape, if it is an error.
    pub(crate) fn reshape(self, response: &mut Response, id: &HeaderValue) {
        if matches!(self, Self::OpenAi) {
            return;
        }
        if let Some(error) = response.extensions_mut().remove::<ApiError>() {
            *response.body_mut() = Body::from(self.write(&error, id));
        }
        if matches!(self, Self::Anthropic) {
            let headers = response.headers_mut();
            headers.insert(ANTHROPIC_REQUEST_ID, id.clone());
        }
    }
}
