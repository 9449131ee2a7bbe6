//! Lines of a server-sent event stream.

use serde::Serialize;

use crate::error::ApiError;

/// The last event of a stream that ended well. A stream that failed ends without it.
pub const SSE_DONE: &str = "data: [DONE]\n\n";

/// `value` as one event. JSON escapes line breaks, so that one `data:` line always suffices.
pub fn sse_data(value: &impl Serialize) -> String {
    match serde_json::to_string(value) {
        Ok(json) => format!("data: {json}\n\n"),
        Err(_) => sse_error(&ApiError::internal()),
    }
}

/// `value` as one event with a name.
pub fn sse_event(name: &str, value: &impl Serialize) -> String {
    format!("event: {name}\n{}", sse_data(value))
}

/// The event that ends a stream which failed after it began; the connection closes after it.
pub fn sse_error(error: &ApiError) -> String {
    format!("data: {}\n\n", error.to_json_string())
}
