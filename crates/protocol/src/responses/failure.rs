//! The failure of a stream that has not begun.

use serde::Serialize;

use crate::error::{ApiError, BodyError};
use crate::sse::sse_event;

/// Name of the event, and its type.
const KIND: &str = "error";

#[derive(Serialize)]
struct Failure<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    sequence_number: u64,
    code: Option<&'static str>,
    message: &'a str,
    param: Option<&'a str>,
    error: BodyError<'a>,
}

/// The only event of a stream that failed before there was a response that could be said to have
/// failed. The error stands in it as the API has it and, for clients that look for errors of any
/// stream in one place, under `error` as well.
pub fn sse_failure(error: &ApiError) -> String {
    let failure = Failure {
        kind: KIND,
        sequence_number: 0,
        code: error.code,
        message: &error.message,
        param: error.param.as_deref(),
        error: error.body(),
    };
    sse_event(KIND, &failure)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_error_stands_where_clients_look_for_it() {
        let error = ApiError::engine_failure();
        let event = sse_failure(&error);
        let data = event.strip_prefix("event: error\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["type"], "error");
        assert_eq!(data["code"], "engine_failure");
        assert_eq!(data["error"]["message"], data["message"]);
    }
}
