//! The error table: every error that a client can see, with its status, type, code and wording.
//!
//! Gateways decide on a fallback by searching these texts, so the wording is part of the
//! contract. Invariants, each of them tested over the whole table:
//! - `invalid_request_error` never stands on a 5xx, 401 or on a route's 404;
//! - "rate limit", in any spelling, stands on a 429 alone, and a bare 429 stands nowhere;
//! - no 4xx says "overloaded";
//! - only the context overflow uses the phrases by which gateways know one;
//! - no value from the request is repeated: the field is named, and what is allowed.
//!
//! 429 or 503? **429 is a refusal at the door**: the server is well, and the queue, the caller's
//! share of it or the limits of its key are used up. Nothing was lost; the caller goes elsewhere or
//! comes back after `Retry-After`, which is measured, not made up. Gateways read it so: LiteLLM
//! leaves a deployment alone for as long as the header says, but never the only one of its group;
//! OpenRouter does not count it against the uptime; inference gateways answer 429 themselves when
//! capacity is contended. **503 means that the server is not able**: there is no model, or there is
//! no more, or it took a request and could not keep its promise to start it in time. vLLM answers
//! 503 without `Retry-After` to a full queue, which gateways cannot tell from a broken server.

use serde::Serialize;

use crate::limits::MAX_RETRY_AFTER_S;
use crate::spaced_json;

const INVALID_REQUEST: &str = "invalid_request_error";
const RATE_LIMIT: &str = "rate_limit_error";
const LIMIT_EXCEEDED: &str = "rate_limit_exceeded";
const UNAVAILABLE: &str = "service_unavailable_error";
const SERVER: &str = "server_error";

/// An error as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// The `type` field.
    pub kind: &'static str,
    /// The `code` field.
    pub code: Option<&'static str>,
    /// The field of the request that is at fault, as a dotted path.
    pub param: Option<String>,
    /// What is wrong, and what is allowed.
    pub message: String,
    /// The `Retry-After` header, in seconds.
    pub retry_after_s: Option<u32>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: BodyError<'a>,
}

#[derive(Serialize)]
pub(crate) struct BodyError<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: Option<&'static str>,
}

impl ApiError {
    fn new(status: u16, kind: &'static str, code: &'static str, message: String) -> Self {
        Self {
            status,
            kind,
            code: Some(code),
            param: None,
            message,
            retry_after_s: None,
        }
    }

    fn with_param(self, param: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..self
        }
    }

    /// A zero or a long wait would be ignored by the gateways that read it.
    fn with_retry_after(self, seconds: u32) -> Self {
        Self {
            retry_after_s: Some(seconds.clamp(1, MAX_RETRY_AFTER_S)),
            ..self
        }
    }

    /// The response body: `{"error": {"message": …, "type": …, "param": …, "code": …}}` with a
    /// space after every colon and comma.
    pub fn to_json_string(&self) -> String {
        let error = self.body();
        spaced_json::to_string(&Body { error }).unwrap_or_default()
    }

    /// What stands under `error` in a response body.
    pub(crate) fn body(&self) -> BodyError<'_> {
        BodyError {
            message: &self.message,
            kind: self.kind,
            param: self.param.as_deref(),
            code: self.code,
        }
    }

    /// 400: the body is not JSON.
    pub fn invalid_json(error: &serde_json::Error) -> Self {
        let message = format!(
            "The request body is not valid JSON (near line {}, column {}).",
            error.line(),
            error.column()
        );
        let message = without_bare_429(message, "The request body is not valid JSON.");
        Self::new(400, INVALID_REQUEST, "invalid_json", message)
    }

    /// 400: the body is JSON, but not an object.
    pub fn not_an_object() -> Self {
        let message = "The request body must be a JSON object.".to_owned();
        Self::new(400, INVALID_REQUEST, "invalid_json", message)
    }

    /// 400: `param` has a bad value. `requirement` completes "`param` …", for example
    /// "must be a number between 0 and 2".
    pub fn invalid_field(param: impl Into<String>, requirement: &str) -> Self {
        let param = without_index_429(param.into());
        let message = format!("Invalid value for '{param}': {requirement}.");
        Self::new(400, INVALID_REQUEST, "invalid_value", message).with_param(param)
    }

    /// 400: `param` asks for something that the server does not do. `explanation` is a sentence
    /// without its full stop.
    pub fn unsupported_field(param: impl Into<String>, explanation: &str) -> Self {
        let param = without_index_429(param.into());
        let message = format!("Unsupported value for '{param}': {explanation}.");
        Self::new(400, INVALID_REQUEST, "unsupported_parameter", message).with_param(param)
    }

    /// 400: `param` is required.
    pub fn missing_field(param: impl Into<String>) -> Self {
        let param = without_index_429(param.into());
        let message = format!("Missing required field '{param}'.");
        Self::new(400, INVALID_REQUEST, "missing_required_parameter", message).with_param(param)
    }

    /// 400: the prompt, or the prompt with what `max_tokens` asks for, does not fit the context.
    /// `param` is `messages` or `prompt`; `completion_tokens` is what the request asked for. The
    /// words begin as OpenAI's and hold Anthropic's, because clients look for either.
    pub fn context_length(
        param: &'static str,
        max_tokens: u32,
        prompt_tokens: u32,
        completion_tokens: Option<u32>,
    ) -> Self {
        let head = format!("This model's maximum context length is {max_tokens} tokens. However, ");
        let fallback = format!("{head}the request does not fit. Please shorten the {param}.");
        let message = match completion_tokens {
            Some(completion_tokens) if prompt_tokens < max_tokens => format!(
                "{head}you requested {} tokens ({prompt_tokens} in the {param}, \
                 {completion_tokens} in the completion). Please shorten the {param} or the \
                 completion.",
                u64::from(prompt_tokens) + u64::from(completion_tokens),
            ),
            _ => format!(
                "{head}your {param} resulted in {prompt_tokens} tokens (prompt is too long: \
                 {prompt_tokens} tokens > {max_tokens} maximum). Please shorten the {param}.",
            ),
        };
        let message = without_bare_429(message, &fallback);
        Self::new(400, INVALID_REQUEST, "context_length_exceeded", message).with_param(param)
    }

    /// 400: a text that is to be encoded has more tokens than the model takes; how many is not known if
    /// they were not counted to the end. The words are those of [`ApiError::context_length`].
    pub fn input_too_long(param: impl Into<String>, max_tokens: u32, tokens: Option<u32>) -> Self {
        let param = without_index_429(param.into());
        let head = format!("This model's maximum context length is {max_tokens} tokens. However, ");
        let fallback = format!("{head}the input does not fit. Please shorten it.");
        let counted = tokens.map(|tokens| {
            format!(
                "{head}your input resulted in {tokens} tokens (prompt is too long: {tokens} tokens > \
                 {max_tokens} maximum). Please shorten it."
            )
        });
        let message = without_bare_429(counted.unwrap_or_else(|| fallback.clone()), &fallback);
        Self::new(400, INVALID_REQUEST, "context_length_exceeded", message).with_param(param)
    }

    /// 400: the grammar that the request's format, tools or pattern make cannot be followed within
    /// the limits.
    pub fn constraint_failed() -> Self {
        let message = "The answer's required format is too complex to be enforced.".to_owned();
        Self::new(400, INVALID_REQUEST, "constraint_failed", message)
    }

    /// 401: the API key is missing or wrong.
    pub fn unauthorized() -> Self {
        let message =
            "Incorrect API key provided. Send it as 'Authorization: Bearer <key>'.".to_owned();
        Self::new(401, "authentication_error", "invalid_api_key", message)
    }

    /// 404: the server does not serve the model that was asked for, whose name is not repeated.
    pub fn model_not_found(served: &str) -> Self {
        let message =
            format!("The requested model does not exist here. This server serves '{served}'.");
        Self::new(404, INVALID_REQUEST, "model_not_found", message).with_param("model")
    }

    /// 404: the server has no model that does what the route is for. `ability` completes "No model that …";
    /// `served` are the names of the models that it has.
    pub fn no_model_that(ability: &str, served: &[&str]) -> Self {
        let served = served.join("', '");
        let message =
            format!("No model that {ability} is served here. This server serves '{served}'.");
        Self::new(404, INVALID_REQUEST, "model_not_found", message).with_param("model")
    }

    /// 404: no such route.
    pub fn route_not_found() -> Self {
        let message = "There is no such endpoint.".to_owned();
        Self::new(404, "not_found_error", "route_not_found", message)
    }

    /// 400: the route is another server's, and `reason` says why it is none of this one's: a sentence
    /// without its full stop.
    pub fn unsupported_route(reason: &str) -> Self {
        let message = format!("This endpoint is not available: {reason}.");
        Self::new(400, INVALID_REQUEST, "unsupported_endpoint", message)
    }

    /// 400: the head of the request is not HTTP/1.1 as the server insists on it. `explanation` is a
    /// sentence without its full stop.
    pub fn malformed_head(explanation: &str) -> Self {
        let message = format!("The request's head is malformed: {explanation}.");
        Self::new(400, INVALID_REQUEST, "malformed_head", message)
    }

    /// 408: the client was too slow to send its request's head.
    pub fn head_timeout() -> Self {
        let message = "The request's head did not arrive in time.".to_owned();
        Self::new(408, "timeout_error", "head_timeout", message)
    }

    /// 400: the request came in plain HTTP where the server speaks TLS.
    pub fn https_required() -> Self {
        let message = "This port speaks HTTPS: the address must begin with https://.".to_owned();
        Self::new(400, INVALID_REQUEST, "https_required", message)
    }

    /// 414: the request line, most of which is the target, is longer than the server reads.
    pub fn target_too_long(max_bytes: usize) -> Self {
        let message = format!("The request line is longer than {max_bytes} bytes.");
        Self::new(414, INVALID_REQUEST, "target_too_long", message)
    }

    /// 431: the head of the request is longer than the server reads.
    pub fn head_too_large(max_bytes: usize, max_fields: usize) -> Self {
        let message = format!(
            "The request's head has more than {max_bytes} bytes or {max_fields} header fields."
        );
        Self::new(431, INVALID_REQUEST, "head_too_large", message)
    }

    /// 405: the route exists, under another method.
    pub fn method_not_allowed() -> Self {
        let message = "This endpoint does not accept this HTTP method.".to_owned();
        Self::new(405, INVALID_REQUEST, "method_not_allowed", message)
    }

    /// 408: the client was too slow to send its body.
    pub fn body_timeout() -> Self {
        let message = "The request body did not arrive in time.".to_owned();
        Self::new(408, "timeout_error", "body_timeout", message)
    }

    /// 413: the body is longer than the server reads.
    pub fn body_too_large(max_bytes: usize) -> Self {
        let message = format!("The request body is longer than {max_bytes} bytes.");
        Self::new(413, INVALID_REQUEST, "body_too_large", message)
    }

    /// 413: the body has more JSON values than the server parses.
    pub fn too_many_values(max_values: usize) -> Self {
        let message = format!("The request body has more than {max_values} JSON values and keys.");
        Self::new(413, INVALID_REQUEST, "body_too_large", message)
    }

    /// 413: parsing the body would take more memory than the server has set aside for all bodies.
    pub fn body_takes_too_much_memory() -> Self {
        let message = "The request body would take too much memory to parse.".to_owned();
        Self::new(413, INVALID_REQUEST, "body_too_large", message)
    }

    /// 400: the body is not what its `Content-Encoding` says.
    pub fn body_not_unpacked() -> Self {
        let message = "The request body is not one whole gzip stream, and nothing else, as its \
                       Content-Encoding says."
            .to_owned();
        Self::new(400, INVALID_REQUEST, "invalid_body_encoding", message)
    }

    /// 400: the body was encoded more than once.
    pub fn several_content_encodings() -> Self {
        let message = "The Content-Encoding header names more than one coding.".to_owned();
        Self::new(400, INVALID_REQUEST, "invalid_body_encoding", message)
    }

    /// 415: the body has an encoding that the server does not read.
    pub fn unsupported_content_encoding() -> Self {
        let message = "The Content-Encoding of the request body is not supported. Accepted are \
                       gzip and identity."
            .to_owned();
        Self::new(
            415,
            INVALID_REQUEST,
            "unsupported_content_encoding",
            message,
        )
    }

    /// 415: the body's `Content-Type` says that its text is in another character set.
    pub fn unsupported_charset() -> Self {
        let message = "The charset in the Content-Type of the request body is not supported. \
                       Accepted is utf-8."
            .to_owned();
        Self::new(415, INVALID_REQUEST, "unsupported_charset", message)
    }

    /// 400: a browser asked whether a page may call, and it may not. `part` says what is not
    /// allowed: its origin, method or headers.
    pub fn cross_origin_refused(part: &'static str) -> Self {
        let message = format!("This server's settings do not allow the {part} of this preflight.");
        Self::new(400, INVALID_REQUEST, "cross_origin_refused", message)
    }

    /// 429: the queue is full.
    pub fn queue_full(retry_after_s: u32) -> Self {
        let message = "The server's queue is full. Please retry later.".to_owned();
        Self::new(429, RATE_LIMIT, "queue_full", message).with_retry_after(retry_after_s)
    }

    /// 429: the caller's key has its share of the queue, and others want in.
    pub fn queue_share_used(retry_after_s: u32) -> Self {
        let message = "This key's share of the server's queue is used. Please retry later.";
        Self::new(429, RATE_LIMIT, "queue_full", message.to_owned()).with_retry_after(retry_after_s)
    }

    /// 429: an outage has filled the server, and batch requests wait until it is over.
    pub fn lane_closed(retry_after_s: u32) -> Self {
        let message = "Batch requests are not taken at present. Please retry later.".to_owned();
        Self::new(429, RATE_LIMIT, "lane_closed", message).with_retry_after(retry_after_s)
    }

    /// 429: the key has sent as many requests as it may in a minute.
    pub fn key_requests_used(retry_after_s: u32) -> Self {
        let message = "This key's requests per minute are used. Please retry later.".to_owned();
        Self::new(429, RATE_LIMIT, LIMIT_EXCEEDED, message).with_retry_after(retry_after_s)
    }

    /// 429: the key has used as many tokens as it may in a minute.
    pub fn key_tokens_used(retry_after_s: u32) -> Self {
        let message = "This key's tokens per minute are used. Please retry later.".to_owned();
        Self::new(429, RATE_LIMIT, LIMIT_EXCEEDED, message).with_retry_after(retry_after_s)
    }

    /// 429: the key has as many requests in the server as it may have at once.
    pub fn key_concurrency_used(retry_after_s: u32) -> Self {
        let message = "This key has too many requests at once. Please retry later.".to_owned();
        Self::new(429, RATE_LIMIT, LIMIT_EXCEEDED, message).with_retry_after(retry_after_s)
    }

    /// 503: the model is being loaded or warmed.
    pub fn loading(retry_after_s: u32) -> Self {
        let message = "The model is being loaded. Please retry later.".to_owned();
        Self::new(503, UNAVAILABLE, "model_loading", message).with_retry_after(retry_after_s)
    }

    /// 503: the server is shutting down.
    pub fn draining(retry_after_s: u32) -> Self {
        let message = "The server is shutting down. Please retry elsewhere.".to_owned();
        Self::new(503, UNAVAILABLE, "server_draining", message).with_retry_after(retry_after_s)
    }

    /// 503: the model sleeps, or is waking.
    pub fn sleeping(retry_after_s: u32) -> Self {
        let message = "The model is asleep. Please retry later.".to_owned();
        Self::new(503, UNAVAILABLE, "model_sleeping", message).with_retry_after(retry_after_s)
    }

    /// 503: the model failed its own proof, and is not trusted until it passes.
    pub fn unproven(retry_after_s: u32) -> Self {
        let message = "The model failed its last self-test and answers nothing until it passes. Please retry elsewhere.";
        Self::new(503, UNAVAILABLE, "model_unproven", message.to_owned())
            .with_retry_after(retry_after_s)
    }

    /// 503: the request waited in the queue past its deadline.
    pub fn deadline_exceeded(retry_after_s: u32) -> Self {
        let message = "The request was not started before its deadline.".to_owned();
        Self::new(503, UNAVAILABLE, "deadline_exceeded", message).with_retry_after(retry_after_s)
    }

    /// 503: what is answered must be written down, and cannot be.
    pub fn audit_log_unavailable(retry_after_s: u32) -> Self {
        let message = "The audit log cannot be written. Please retry later.".to_owned();
        Self::new(503, UNAVAILABLE, "audit_log_unavailable", message)
            .with_retry_after(retry_after_s)
    }

    /// 503: the engine does not answer, or has stopped for good.
    pub fn engine_unavailable(retry_after_s: u32) -> Self {
        let message = "The engine is not available.".to_owned();
        Self::new(503, UNAVAILABLE, "engine_unavailable", message).with_retry_after(retry_after_s)
    }

    /// 500: the engine failed on this request.
    pub fn engine_failure() -> Self {
        let message = "The engine failed while it ran this request.".to_owned();
        Self::new(500, SERVER, "engine_failure", message)
    }

    /// 500: a defect of the server.
    pub fn internal() -> Self {
        let message = "The server failed to answer this request.".to_owned();
        Self::new(500, SERVER, "internal_error", message)
    }
}

/// `message`, or `fallback` if a bare 429 stands in it: gateways can take that number, wherever
/// it stands in the body, for the status.
fn without_bare_429(message: String, fallback: &str) -> String {
    let has = message
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .any(|word| word == "429");
    if has { fallback.to_owned() } else { message }
}

/// `path`, ended before an array index that would be a bare 429 in the body.
fn without_index_429(path: String) -> String {
    match path.split_once(".429") {
        Some((head, tail)) if tail.is_empty() || tail.starts_with('.') => head.to_owned(),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Vec<ApiError> {
        let json_error = serde_json::from_slice::<serde_json::Value>(b"{").unwrap_err();
        vec![
            ApiError::invalid_json(&json_error),
            ApiError::not_an_object(),
            ApiError::invalid_field("temperature", "must be a number between 0 and 2"),
            ApiError::invalid_field("messages.429.content.429", "must be a string"),
            ApiError::unsupported_field("messages.429", "only text is understood"),
            ApiError::missing_field("messages"),
            ApiError::missing_field("messages.429.role"),
            ApiError::context_length("messages", 4096, 5000, None),
            ApiError::context_length("messages", 4096, 5000, Some(10)),
            ApiError::context_length("messages", 4096, 4000, Some(429)),
            ApiError::context_length("prompt", 4096, 429, Some(u32::MAX)),
            ApiError::context_length("prompt", u32::MAX, u32::MAX - 1, Some(u32::MAX)),
            ApiError::input_too_long("input.429", 512, Some(513)),
            ApiError::input_too_long("input", 512, Some(429)),
            ApiError::input_too_long("documents.3", 512, None),
            ApiError::constraint_failed(),
            ApiError::unauthorized(),
            ApiError::model_not_found("north-mini-code"),
            ApiError::no_model_that("makes embeddings", &["north-mini-code", "other"]),
            ApiError::route_not_found(),
            ApiError::method_not_allowed(),
            ApiError::body_timeout(),
            ApiError::unsupported_route("this model does not support embeddings"),
            ApiError::malformed_head("a line does not end with CRLF"),
            ApiError::head_timeout(),
            ApiError::https_required(),
            ApiError::target_too_long(1 << 13),
            ApiError::head_too_large(1 << 15, 100),
            ApiError::body_too_large(1 << 20),
            ApiError::too_many_values(1 << 20),
            ApiError::body_takes_too_much_memory(),
            ApiError::body_not_unpacked(),
            ApiError::several_content_encodings(),
            ApiError::unsupported_content_encoding(),
            ApiError::unsupported_charset(),
            ApiError::cross_origin_refused("origin"),
            ApiError::queue_full(3),
            ApiError::queue_share_used(3),
            ApiError::lane_closed(3),
            ApiError::key_requests_used(61),
            ApiError::key_tokens_used(u32::MAX),
            ApiError::key_concurrency_used(0),
            ApiError::loading(0),
            ApiError::draining(5),
            ApiError::sleeping(600),
            ApiError::deadline_exceeded(5),
            ApiError::audit_log_unavailable(5),
            ApiError::engine_unavailable(5),
            ApiError::engine_failure(),
            ApiError::internal(),
        ]
    }

    /// "rate limit" with anything or nothing between the words, as gateways search for it.
    fn speaks_of_rate_limits(text: &str) -> bool {
        let squeezed: String = text
            .to_lowercase()
            .chars()
            .filter(|c| !" _-\n\t".contains(*c))
            .collect();
        squeezed.contains("ratelimit")
    }

    const CONTEXT_PHRASES: &[&str] = &[
        "prompt is too long",
        "this model's maximum context length is",
        "exceed context limit",
        "string too long",
        "model's maximum context limit",
        "is longer than the model's context length",
        "input tokens exceed the configured limit",
        "exceeds the available context size",
        "exceeds the maximum number of tokens allowed",
        "maximum input length is",
        "current length is",
    ];

    #[test]
    fn every_error_keeps_the_rules_of_the_table() {
        for error in table() {
            let body = error.to_json_string();
            let lower = body.to_lowercase();
            assert!((400..600).contains(&error.status), "{body}");
            assert!(
                !error.message.is_empty() && error.message.ends_with('.'),
                "{body}"
            );
            if error.status >= 500 || error.status == 401 || error.kind == "not_found_error" {
                assert!(!body.contains(INVALID_REQUEST), "{body}");
            }
            assert_eq!(speaks_of_rate_limits(&body), error.status == 429, "{body}");
            if error.status < 500 {
                assert!(!lower.contains("overloaded"), "{body}");
            }
            assert!(
                !error
                    .message
                    .split(|c: char| !c.is_alphanumeric())
                    .any(|w| w == "429")
            );
            assert!(!speaks_of_rate_limits(&error.message), "{body}");
            let overflow = error.code == Some("context_length_exceeded");
            let phrase = CONTEXT_PHRASES.iter().any(|phrase| lower.contains(phrase));
            assert_eq!(phrase, overflow, "{body}");
            for phrase in [
                "Request too large",
                "A timeout occurred",
                "could not be verified",
            ] {
                assert!(!body.contains(phrase), "{body}");
            }
            assert_eq!(
                error.retry_after_s.is_some(),
                matches!(error.status, 429 | 503),
                "a busy server says when to come back: {body}"
            );
            assert!(
                error
                    .retry_after_s
                    .is_none_or(|seconds| (1..=60).contains(&seconds))
            );
        }
    }

    #[test]
    fn bodies_are_spaced_like_python_writes_them() {
        let error = ApiError::context_length("messages", 4096, 4000, Some(200));
        assert_eq!(
            error.to_json_string(),
            "{\"error\": {\"message\": \"This model's maximum context length is 4096 tokens. \
             However, you requested 4200 tokens (4000 in the messages, 200 in the completion). \
             Please shorten the messages or the completion.\", \
             \"type\": \"invalid_request_error\", \"param\": \"messages\", \
             \"code\": \"context_length_exceeded\"}}"
        );
        assert_eq!(error.status, 400);
        let parsed: serde_json::Value =
            serde_json::from_str(&ApiError::internal().to_json_string()).unwrap();
        assert_eq!(parsed["error"]["param"], serde_json::Value::Null);
    }

    #[test]
    fn an_overflow_of_the_prompt_alone_says_so() {
        let error = ApiError::context_length("messages", 4096, 5000, Some(10));
        assert!(
            error
                .message
                .contains("your messages resulted in 5000 tokens")
        );
    }
}
