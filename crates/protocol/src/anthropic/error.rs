//! The error table in Anthropic's shape.

use serde::Serialize;

use crate::error::ApiError;
use crate::spaced_json;

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    error: BodyError<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

#[derive(Serialize)]
struct BodyError<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: &'a str,
}

impl ApiError {
    /// The response body in Anthropic's shape: `{"type": "error", "error": {"type", "message"},
    /// "request_id"}`.
    pub fn to_anthropic_json_string(&self, request_id: Option<&str>) -> String {
        let error = BodyError {
            kind: anthropic_type(self.status),
            message: &self.message,
        };
        let body = Body {
            kind: "error",
            error,
            request_id,
        };
        spaced_json::to_string(&body).unwrap_or_default()
    }
}

/// Every 503 is `overloaded_error`: coding agents take it, and nothing else, for a reason to
/// wait, or to go on with their second model.
fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 => "overloaded_error",
        _ => "api_error",
    }
}
