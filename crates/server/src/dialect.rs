//! In whose shape the errors of a request are written.

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::response::Response;
use backstop_protocol::ApiError;

use crate::patience::WriteFailure;
use crate::{messages, ollama};

/// An API whose clients read errors in a shape of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dialect {
    OpenAi,
    Anthropic,
    Ollama,
}

impl Dialect {
    pub(crate) fn of(request: &Request) -> Self {
        if ollama::is_ollama(request) {
            Self::Ollama
        } else if messages::is_anthropic(request) {
            Self::Anthropic
        } else {
            Self::OpenAi
        }
    }

    /// Brings an answer into this shape.
    pub(crate) fn reshape(self, response: &mut Response, id: &HeaderValue) {
        match self {
            Self::OpenAi => {}
            Self::Anthropic => messages::reshape(response, id),
            Self::Ollama => ollama::reshape(response),
        }
    }

    /// Writes errors where there is no answer to be reshaped.
    pub(crate) fn writer(self, id: &HeaderValue) -> WriteFailure {
        let id = id.to_str().ok().map(str::to_owned);
        match self {
            Self::OpenAi => Box::new(ApiError::to_json_string),
            Self::Ollama => Box::new(ApiError::to_ollama_json_string),
            Self::Anthropic => Box::new(move |error| error.to_anthropic_json_string(id.as_deref())),
        }
    }
}
