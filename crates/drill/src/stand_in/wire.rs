//! What the stand-in says, in the shape of OpenAI's chat completions.

use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::faults::Error;
use crate::nonces;

/// What every text of the stand-in begins with; it goes on with the request's nonce.
pub(crate) const TEXT_BEGINS: &str = "Stand-in primary";
const FINGERPRINT: &str = "fp_stand_in";
/// What a request without a nonce is known by: those that people make by hand, and probes of gateways.
const NO_NONCE: &str = "without a nonce";
/// The word up to which a broken stream comes.
const HALF_WORDS: usize = 7;

/// What matters of a request.
pub(super) struct Asked {
    pub(super) nonce: String,
    pub(super) is_stream: bool,
    wants_usage: bool,
    model: String,
}

impl Asked {
    /// `None` if it is no JSON object.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let object = value.as_object()?;
        // The last message is the question, and later ones are what a gateway appends.
        let text = object
            .get("messages")
            .map(Value::to_string)
            .unwrap_or_default();
        let model = object.get("model").and_then(Value::as_str);
        let asked = Self {
            nonce: nonces::in_text(&text).last().unwrap_or(NO_NONCE).to_owned(),
            is_stream: object
                .get("stream")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            wants_usage: value["stream_options"]["include_usage"] == json!(true),
            model: model.unwrap_or("stand-in").chars().take(200).collect(),
        };
        Some(asked)
    }
}

/// The text with which a request is answered.
pub(crate) fn whole_text(nonce: &str) -> String {
    format!(
        "{TEXT_BEGINS}, request {nonce}: one two three four five six seven eight, and that is all."
    )
}

/// As words, each with the space behind it.
fn words(nonce: &str) -> Vec<String> {
    let text = whole_text(nonce);
    text.split_inclusive(' ').map(str::to_owned).collect()
}

/// All of an answer: one piece, or the events of a stream.
pub(super) fn complete(asked: &Asked) -> Vec<Bytes> {
    if !asked.is_stream {
        return vec![answer(asked, &whole_text(&asked.nonce), "stop")];
    }
    let mut events = vec![role(asked)];
    events.extend(
        words(&asked.nonce)
            .iter()
            .map(|word| text_event(asked, word)),
    );
    events.extend(ending(asked, "stop"));
    events
}

/// The first half of a stream.
pub(super) fn half(asked: &Asked) -> Vec<Bytes> {
    let words = words(&asked.nonce);
    let half = words[..HALF_WORDS]
        .iter()
        .map(|word| text_event(asked, word));
    std::iter::once(role(asked)).chain(half).collect()
}

/// The first half of an answer in one piece.
pub(super) fn half_of_whole(asked: &Asked) -> Bytes {
    let answer = answer(asked, &whole_text(&asked.nonce), "stop");
    answer.slice(..answer.len() / 2)
}

/// An answer that is nothing but its `finish_reason`.
pub(super) fn filtered(asked: &Asked) -> Vec<Bytes> {
    if !asked.is_stream {
        return vec![answer(asked, "", "content_filter")];
    }
    let mut events = vec![role(asked)];
    events.extend(ending(asked, "content_filter"));
    events
}

/// The event with which a stream begins, before any text.
pub(super) fn role(asked: &Asked) -> Bytes {
    chunk(asked, json!({"role": "assistant", "content": ""}), None)
}

pub(super) fn done() -> Bytes {
    Bytes::from_static(b"data: [DONE]\n\n")
}

pub(super) fn garbage(asked: &Asked) -> Bytes {
    let text: &[u8] = if asked.is_stream {
        b"data: {\"id\": \"chatcmpl-stand-in\", \"choices\": [{\"delta\": {\"conten\n\n"
    } else {
        b"{\"id\": \"chatcmpl-stand-in\", \"choices\": [{\"message\": {\"conten"
    };
    Bytes::from_static(text)
}

/// Content type and body of an error.
pub(super) fn error(error: &Error) -> (&'static str, Bytes) {
    match error {
        Error::Json {
            message,
            kind,
            code,
        } => ("application/json", error_body(message, kind, *code).into()),
        Error::Page(title) => (
            "text/html",
            format!(
                "<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
            )
            .into(),
        ),
    }
}

pub(super) fn models() -> Vec<u8> {
    let model =
        json!({"id": "stand-in", "object": "model", "created": 0, "owned_by": "backstop-drill"});
    json!({"object": "list", "data": [model]})
        .to_string()
        .into()
}

pub(super) fn not_here() -> Vec<u8> {
    let message = "The stand-in has POST /v1/chat/completions and GET /v1/models alone.";
    error_body(message, "invalid_request_error", None)
}

pub(super) fn not_understood() -> Vec<u8> {
    error_body(
        "The body is no JSON object of at most 4 MiB.",
        "invalid_request_error",
        None,
    )
}

fn error_body(message: &str, kind: &str, code: Option<&str>) -> Vec<u8> {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
        .to_string()
        .into()
}

fn answer(asked: &Asked, text: &str, finish_reason: &str) -> Bytes {
    let message = json!({"role": "assistant", "content": text, "refusal": null});
    let choice =
        json!({"index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason});
    let mut answer = envelope(asked, "chat.completion", vec![choice]);
    answer["usage"] = usage(asked);
    answer.to_string().into()
}

fn text_event(asked: &Asked, word: &str) -> Bytes {
    chunk(asked, json!({"content": word}), None)
}

/// What comes behind the text of a stream.
fn ending(asked: &Asked, finish_reason: &str) -> Vec<Bytes> {
    let mut events = vec![chunk(asked, json!({}), Some(finish_reason))];
    if asked.wants_usage {
        let mut last = envelope(asked, "chat.completion.chunk", Vec::new());
        last["usage"] = usage(asked);
        events.push(event(&last));
    }
    events.push(done());
    events
}

fn chunk(asked: &Asked, delta: Value, finish_reason: Option<&str>) -> Bytes {
    let choice =
        json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason});
    event(&envelope(asked, "chat.completion.chunk", vec![choice]))
}

fn event(value: &Value) -> Bytes {
    format!("data: {value}\n\n").into()
}

fn envelope(asked: &Asked, object: &str, choices: Vec<Value>) -> Value {
    json!({
        "id": format!("chatcmpl-{}", asked.nonce.replace(' ', "-")),
        "object": object,
        "created": 1,
        "model": asked.model,
        "system_fingerprint": FINGERPRINT,
        "choices": choices,
    })
}

fn usage(asked: &Asked) -> Value {
    let words = words(&asked.nonce).len();
    json!({"prompt_tokens": 1, "completion_tokens": words, "total_tokens": 1 + words})
}
