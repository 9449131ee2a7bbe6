//! What surrounds every answer to a client that speaks Anthropic's API, errors above all: the
//! table of errors is one, and its OpenAI form is rewritten here.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use backstop_protocol::ApiError;

/// Where Anthropic's clients look for the request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// Every client of Anthropic's sends it.
const VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// Whether a request is answered in Anthropic's shape wherever there are two.
pub(crate) fn is_anthropic(request: &Request) -> bool {
    let path = request.uri().path();
    path == "/v1/messages"
        || path.starts_with("/v1/messages/")
        || request.headers().contains_key(VERSION)
}

/// Brings an answer into Anthropic's shape, if it is an error.
pub(crate) fn reshape(response: &mut Response, request_id: &HeaderValue) {
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let id = request_id.to_str().ok();
        *response.body_mut() = Body::from(error.to_anthropic_json_string(id));
    }
    response
        .headers_mut()
        .insert(REQUEST_ID, request_id.clone());
}
