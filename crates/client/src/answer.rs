//! An answer of OpenAI's API, whole or streamed, and when its pieces came.

use std::time::{Duration, Instant, SystemTime};

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::endpoint::{Endpoint, explain};

/// Of what a server says of an error.
const MESSAGE_CHARACTERS_MAX: usize = 300;
/// Calls of one answer; further ones are not kept.
const CALLS_MAX: usize = 256;
/// Backstop's own header, and what LiteLLM makes of it.
const MODEL_HEADERS: [&str; 2] = ["x-backstop-model", "llm_provider-x-backstop-model"];

/// What a client puts up with.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long it waits for the end of an answer.
    pub patience: Duration,
    /// A longer answer is cut off, and counts as a failure.
    pub bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(600),
            bytes_max: 16 << 20,
        }
    }
}

/// What became of one request. It always has what came, up to a failure if there was one.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// Backstop's `NAME@DIGEST` of the model, if its header came through.
    pub backstop_model: Option<String>,
    /// The model's name as the server has it.
    pub model: Option<String>,
    /// `system_fingerprint`.
    pub fingerprint: Option<String>,
    /// The first choice's text (`message.content`, or a completion's `text`).
    pub text: String,
    /// Its reasoning.
    pub reasoning: String,
    /// `message.refusal`.
    pub refusal: Option<String>,
    /// Its calls of tools.
    pub tool_calls: Vec<ToolCall>,
    /// Why it ended.
    pub finish_reason: Option<String>,
    /// Tokens, as the server counted them.
    pub usage: Option<Usage>,
    /// Why it is no answer, or not a whole one.
    pub failure: Option<Failure>,
    /// `Retry-After`: how long the server asks to wait.
    pub retry_after: Option<Duration>,
    /// When pieces of text, reasoning or calls came, since the request was sent. A whole answer has one.
    pub pieces: Vec<Duration>,
    /// When events with a choice came, those too that have no piece: a role, part of a character, the reason of the end.
    pub choices: Vec<Duration>,
    /// From sending the request to the end.
    pub total: Duration,
}

/// A call of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Its id.
    pub id: String,
    /// The tool.
    pub name: String,
    /// JSON, as the model wrote it.
    pub arguments: String,
}

/// Tokens, as a server counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: u64,
    /// Of the prompt, from a cache.
    pub cached_tokens: u64,
    /// Of the answer.
    pub completion_tokens: u64,
}

/// Why there is no whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind, to count by.
    pub kind: FailureKind,
    /// For people.
    pub message: String,
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// There was no answer at all.
    Connection,
    /// The status says no.
    Status,
    /// An error in a stream.
    Event,
    /// The answer broke off, was no JSON or had no end.
    Broken,
    /// It took longer than the client waits.
    Timeout,
    /// It was longer than the client reads.
    TooLong,
}

impl Answer {
    /// Time to the first piece.
    pub fn first(&self) -> Option<Duration> {
        self.pieces.first().copied()
    }

    /// Whether a whole answer came.
    pub fn is_whole(&self) -> bool {
        self.failure.is_none()
    }
}

/// Sends a chat (`/v1/chat/completions`) or a completion (`/v1/completions`), and reads the answer to its end or as long as
/// the client is patient.
pub async fn ask(endpoint: &Endpoint, path: &str, body: &Value, limits: Limits) -> Answer {
    ask_encoded(endpoint, path, body.to_string().into_bytes(), limits).await
}

/// The same with a body that is text already, for those who measure.
pub async fn ask_encoded(endpoint: &Endpoint, path: &str, body: Vec<u8>, limits: Limits) -> Answer {
    let begun = Instant::now();
    let mut answer = Answer::default();
    let reading = Reading {
        answer: &mut answer,
        begun,
        arrived: Duration::ZERO,
        bytes_left: limits.bytes_max,
        silence_max: endpoint.silence_max(),
    };
    let asking = reading.run(endpoint, path, body);
    let outcome = tokio::time::timeout(limits.patience, asking).await;
    answer.total = begun.elapsed();
    answer.failure = match outcome {
        Ok(Ok(())) if answer.finish_reason.is_none() => Some(Failure {
            kind: FailureKind::Broken,
            message: "it ended without a finish_reason".into(),
        }),
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(_) => Some(Failure {
            kind: FailureKind::Timeout,
            message: format!("no end after {} s", limits.patience.as_secs_f64()),
        }),
    };
    answer
}

/// `GET path`: the status, the head and the body, of at most `limits.bytes_max` bytes.
///
/// # Errors
///
/// If there is no answer in time. Errors are for people.
pub async fn get(
    endpoint: &Endpoint,
    path: &str,
    limits: Limits,
) -> Result<(u16, HeaderMap, Vec<u8>), String> {
    let asking = async {
        let mut exchange = endpoint.send(Method::GET, path, Vec::new()).await?;
        let mut bytes_left = limits.bytes_max;
        let mut body = Vec::new();
        while let Some(data) = next_piece(exchange.response.body_mut(), &mut bytes_left)
            .await
            .map_err(|failure| failure.message)?
        {
            body.extend_from_slice(&data);
        }
        let (head, _) = exchange.response.into_parts();
        Ok((head.status.as_u16(), head.headers, body))
    };
    let outcome = tokio::time::timeout(limits.patience, asking).await;
    outcome.unwrap_or_else(|_| {
        Err(format!(
            "no answer after {} s",
            limits.patience.as_secs_f64()
        ))
    })
}

struct Reading<'a> {
    answer: &'a mut Answer,
    begun: Instant,
    /// When what is read at present came, since the request was sent.
    arrived: Duration,
    bytes_left: usize,
    silence_max: Option<Duration>,
}

impl Reading<'_> {
    async fn run(mut self, endpoint: &Endpoint, path: &str, body: Vec<u8>) -> Result<(), Failure> {
        let sent = within(self.silence_max, endpoint.send(Method::POST, path, body)).await?;
        let mut exchange = sent.map_err(|message| failure(FailureKind::Connection, message))?;
        let status = exchange.response.status();
        self.answer.status = Some(status.as_u16());
        let head = exchange.response.headers();
        self.answer.retry_after = head.get(RETRY_AFTER).and_then(retry_after);
        self.answer.backstop_model = backstop_model(head);
        let is_stream = head
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("text/event-stream"));
        let body = exchange.response.body_mut();
        if status != StatusCode::OK {
            let text = self.read_all(body).await.unwrap_or_default();
            let message = format!("{}: {}", status.as_u16(), message_of(&text));
            return Err(failure(FailureKind::Status, message));
        }
        if is_stream {
            return self.read_events(body).await;
        }
        let text = self.read_all(body).await?;
        let value: Value = serde_json::from_slice(&text)
            .map_err(|_| failure(FailureKind::Broken, "the answer is no JSON"))?;
        self.take(&value)
    }

    async fn read_events(&mut self, body: &mut Incoming) -> Result<(), Failure> {
        let mut line = Vec::new();
        while let Some(data) = self.next(body).await? {
            let mut rest = data.as_ref();
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                line.extend_from_slice(&rest[..end]);
                rest = &rest[end + 1..];
                if let Some(event) = line.strip_prefix(b"data:") {
                    self.take_event(event.trim_ascii())?;
                }
                line.clear();
            }
            line.extend_from_slice(rest);
        }
        Ok(())
    }

    async fn read_all(&mut self, body: &mut Incoming) -> Result<Vec<u8>, Failure> {
        let mut read = Vec::new();
        while let Some(data) = self.next(body).await? {
            read.extend_from_slice(&data);
        }
        Ok(read)
    }

    async fn next(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, Failure> {
        let reading = next_piece(body, &mut self.bytes_left);
        let piece = within(self.silence_max, reading).await?;
        self.arrived = self.begun.elapsed();
        piece
    }

    fn take_event(&mut self, event: &[u8]) -> Result<(), Failure> {
        if event == b"[DONE]" {
            return Ok(());
        }
        let value: Value = serde_json::from_slice(event)
            .map_err(|_| failure(FailureKind::Broken, "an event of the stream is no JSON"))?;
        self.take(&value)
    }

    /// Takes a whole answer, or an event of a stream.
    fn take(&mut self, value: &Value) -> Result<(), Failure> {
        if value.get("error").is_some_and(|error| !error.is_null()) {
            let message = message_of(value.to_string().as_bytes());
            return Err(failure(FailureKind::Event, message));
        }
        let answer = &mut *self.answer;
        take_text(&value["model"], &mut answer.model);
        take_text(&value["system_fingerprint"], &mut answer.fingerprint);
        if let Some(usage) = usage(&value["usage"]) {
            answer.usage = Some(usage);
        }
        let choice = &value["choices"][0];
        if !choice.is_null() {
            answer.choices.push(self.arrived);
        }
        let part = ["delta", "message"]
            .iter()
            .find_map(|name| choice.get(*name))
            .unwrap_or(choice);
        let text = [&part["content"], &part["text"]]
            .iter()
            .find_map(|text| text.as_str())
            .unwrap_or_default();
        let reasoning = ["reasoning_content", "reasoning"]
            .iter()
            .find_map(|name| part[*name].as_str())
            .unwrap_or_default();
        if let Some(refusal) = part["refusal"].as_str() {
            answer.refusal.get_or_insert_default().push_str(refusal);
        }
        let calls = part["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
        if !(text.is_empty() && reasoning.is_empty() && calls.is_empty()) {
            answer.pieces.push(self.arrived);
        }
        answer.text.push_str(text);
        answer.reasoning.push_str(reasoning);
        for (number, call) in calls.iter().enumerate() {
            take_call(&mut answer.tool_calls, number, call);
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            answer.finish_reason = Some(shortened(reason));
        }
        Ok(())
    }
}

/// Takes a call, or a piece of one, which says by its `index` which it belongs to.
fn take_call(calls: &mut Vec<ToolCall>, number: usize, piece: &Value) {
    let index = piece["index"]
        .as_u64()
        .map_or(number, |index| index as usize);
    if index >= CALLS_MAX {
        return;
    }
    if calls.len() <= index {
        calls.resize_with(index + 1, ToolCall::default);
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (call, function) = (&mut calls[index], &piece["function"]);
    call.id.push_str(&text(&piece["id"]));
    call.name.push_str(&text(&function["name"]));
    call.arguments.push_str(&text(&function["arguments"]));
}

fn take_text(value: &Value, into: &mut Option<String>) {
    if let (None, Some(text)) = (&into, value.as_str()) {
        *into = Some(shortened(text));
    }
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    if let Ok(seconds) = text.trim().parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

fn usage(value: &Value) -> Option<Usage> {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    Some(Usage {
        prompt_tokens: value["prompt_tokens"].as_u64()?,
        cached_tokens: number(&value["prompt_tokens_details"]["cached_tokens"]),
        completion_tokens: number(&value["completion_tokens"]),
    })
}

/// Waits for something that a server says, but not for longer than it may be silent.
async fn within<T>(
    silence_max: Option<Duration>,
    saying: impl Future<Output = T>,
) -> Result<T, Failure> {
    let Some(silence_max) = silence_max else {
        return Ok(saying.await);
    };
    tokio::time::timeout(silence_max, saying)
        .await
        .map_err(|_| {
            let seconds = silence_max.as_secs_f64();
            let message = format!("the server said nothing for {seconds} s");
            failure(FailureKind::Timeout, message)
        })
}

async fn next_piece(body: &mut Incoming, bytes_left: &mut usize) -> Result<Option<Bytes>, Failure> {
    let Some(frame) = body.frame().await else {
        return Ok(None);
    };
    let frame = frame.map_err(|error| {
        failure(
            FailureKind::Broken,
            format!("the answer broke off: {}", explain(&error)),
        )
    })?;
    let data = frame.into_data().unwrap_or_default();
    *bytes_left = bytes_left
        .checked_sub(data.len())
        .ok_or_else(|| failure(FailureKind::TooLong, "the answer is too long"))?;
    Ok(Some(data))
}

/// Backstop's `NAME@DIGEST` of the model in the head of an answer, if it came through.
pub fn backstop_model(head: &HeaderMap) -> Option<String> {
    let found = MODEL_HEADERS
        .iter()
        .find_map(|name| head.get(*name)?.to_str().ok());
    found.map(shortened)
}

/// The message of an error in a body, or the beginning of what is there instead.
pub fn message_of(body: &[u8]) -> String {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let message = value
        .as_ref()
        .and_then(|value| value["error"]["message"].as_str());
    let text = String::from_utf8_lossy(body);
    shortened(message.unwrap_or(&text))
}

fn shortened(text: &str) -> String {
    text.chars().take(MESSAGE_CHARACTERS_MAX).collect()
}

fn failure(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure {
        kind,
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(events: &[&str]) -> Result<Answer, Failure> {
        let mut answer = Answer::default();
        let mut reading = Reading {
            answer: &mut answer,
            begun: Instant::now(),
            arrived: Duration::ZERO,
            bytes_left: 0,
            silence_max: None,
        };
        for event in events {
            reading.take_event(event.as_bytes())?;
        }
        Ok(answer)
    }

    #[test]
    fn a_stream_is_put_together() {
        let read = answer(&[
            r#"{"system_fingerprint": "fp", "choices": [{"delta": {"role": "assistant", "content": ""}}]}"#,
            r#"{"choices": [{"delta": {"reasoning_content": "well"}}]}"#,
            r#"{"choices": [{"delta": {"content": "a"}}]}"#,
            r#"{"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": ""}}]}}]}"#,
            r#"{"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}, "finish_reason": "tool_calls"}]}"#,
            r#"{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}"#,
            "[DONE]",
        ])
        .unwrap();
        assert_eq!((read.text.as_str(), read.reasoning.as_str()), ("a", "well"));
        assert_eq!(read.tool_calls[0].name, "f");
        assert_eq!(read.tool_calls[0].arguments, "{}");
        assert_eq!(read.usage.unwrap().completion_tokens, 2);
        assert_eq!((read.pieces.len(), read.choices.len()), (4, 5));
        assert_eq!(read.fingerprint.as_deref(), Some("fp"));
    }

    #[test]
    fn whole_chats_and_completions_are_read() {
        let chat = answer(&[
            r#"{"choices": [{"message": {"content": null, "refusal": "no"}, "finish_reason": "stop"}]}"#,
        ])
        .unwrap();
        assert_eq!(chat.refusal.as_deref(), Some("no"));
        let completion =
            answer(&[r#"{"choices": [{"text": "hi", "finish_reason": "length"}]}"#]).unwrap();
        assert_eq!(completion.text, "hi");
        assert_eq!(completion.finish_reason.as_deref(), Some("length"));
    }

    #[test]
    fn what_is_no_answer_is_a_failure() {
        let error = answer(&[r#"{"error": {"message": "it broke"}}"#]).unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (FailureKind::Event, "it broke")
        );
        assert_eq!(answer(&["{"]).unwrap_err().kind, FailureKind::Broken);
    }

    #[test]
    fn the_wait_that_a_server_asks_for_is_seconds_or_a_date() {
        let of = |text: &'static str| retry_after(&HeaderValue::from_static(text));
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        let later = SystemTime::now() + Duration::from_secs(3600);
        let later = HeaderValue::from_str(&httpdate::fmt_http_date(later)).unwrap();
        assert!(retry_after(&later) > Some(Duration::from_secs(3500)));
        for none in ["", "soon", "-1", "NaN", "1e300"] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn a_made_up_index_costs_nothing() {
        let read = answer(&[
            r#"{"choices": [{"delta": {"tool_calls": [{"index": 4000000000, "function": {"name": "f"}}]}}]}"#,
        ]);
        assert!(read.unwrap().tool_calls.is_empty());
    }
}
