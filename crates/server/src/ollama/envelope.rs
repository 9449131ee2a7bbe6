//! What surrounds every answer to a client that speaks Ollama's API: the table of errors is one,
//! and its OpenAI form is rewritten here.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use backstop_protocol::ApiError;

/// Whether a request is answered in Ollama's shape.
pub(crate) fn is_ollama(request: &Request) -> bool {
    request.uri().path().starts_with("/api/")
}

/// Brings an answer into Ollama's shape, if it is an error.
pub(crate) fn reshape(response: &mut Response) {
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        *response.body_mut() = Body::from(error.to_ollama_json_string());
    }
}
