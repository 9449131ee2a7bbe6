//! What came back for one request, as a client of OpenAI's API reads it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::verdict::ENDLESS;
use backstop_client::{Endpoint, backstop_model, explain, message_of};

/// A longer answer is cut off, and counts as lost.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Of what a gateway says of an error.
const MESSAGE_CHARACTERS_MAX: usize = 200;
/// Fingerprints of one answer.
const FINGERPRINTS_MAX: usize = 8;

/// A chat request.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) model: String,
    pub(crate) nonce: String,
    pub(crate) is_stream: bool,
    pub(crate) max_tokens: u32,
}

impl Question {
    fn body(&self) -> Vec<u8> {
        let text = format!(
            "This is a drill. Answer with one short sentence. Request {}.",
            self.nonce
        );
        json!({
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": self.is_stream,
        })
        .to_string()
        .into()
    }
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    /// `NAME@DIGEST` of the model, if Backstop's header came through.
    pub(crate) backstop_model: Option<String>,
    pub(crate) fingerprints: BTreeSet<String>,
    pub(crate) text: String,
    pub(crate) reasoning: String,
    pub(crate) finish_reason: Option<String>,
    /// How often the answer ended.
    pub(crate) ends: u32,
    /// Text came after an end.
    pub(crate) goes_on_after_end: bool,
    /// Why it is no answer.
    pub(crate) failure: Option<String>,
    pub(crate) first_token: Option<Duration>,
    pub(crate) total: Duration,
}

/// Asks, and reads the answer to its end or as long as the client is patient.
pub(crate) async fn ask(
    endpoint: &Endpoint,
    question: &Question,
    patience: Duration,
) -> Transcript {
    let begun = Instant::now();
    let mut transcript = Transcript::default();
    let reading = read(endpoint, question, begun, &mut transcript);
    let outcome = tokio::time::timeout(patience, reading).await;
    transcript.total = begun.elapsed();
    match outcome {
        Ok(Ok(())) => transcript.check_end(),
        Ok(Err(failure)) => transcript.failure = Some(failure),
        Err(_) => {
            let failure = format!("{ENDLESS} {} s", patience.as_secs_f64());
            transcript.failure = Some(failure);
        }
    }
    transcript
}

async fn read(
    endpoint: &Endpoint,
    question: &Question,
    begun: Instant,
    transcript: &mut Transcript,
) -> Result<(), String> {
    let path = "/v1/chat/completions";
    let mut exchange = endpoint.send(Method::POST, path, question.body()).await?;
    let head = exchange.response.headers();
    transcript.backstop_model = backstop_model(head).as_deref().map(shortened);
    let status = exchange.response.status();
    let body = exchange.response.body_mut();
    if status != StatusCode::OK {
        let text = read_all(body).await.unwrap_or_default();
        return Err(format!(
            "{}: {}",
            status.as_u16(),
            shortened(&message_of(&text))
        ));
    }
    if question.is_stream {
        return read_events(body, begun, transcript).await;
    }
    let answer = read_all(body).await?;
    let answer: Value = serde_json::from_slice(&answer).map_err(|_| "the answer is no JSON")?;
    transcript.first_token = Some(begun.elapsed());
    transcript.take(&answer, "message", begun)
}

async fn read_events(
    body: &mut Incoming,
    begun: Instant,
    transcript: &mut Transcript,
) -> Result<(), String> {
    let (mut bytes, mut line) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the stream broke off: {}", explain(&error)))?;
        let data = frame.into_data().unwrap_or_default();
        bytes += data.len();
        if bytes > ANSWER_BYTES_MAX {
            return Err(format!(
                "the answer is longer than {ANSWER_BYTES_MAX} bytes"
            ));
        }
        for byte in data {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            if let Some(event) = line.strip_prefix(b"data:") {
                transcript.take_event(event.trim_ascii(), begun)?;
            }
            line.clear();
        }
    }
    Ok(())
}

async fn read_all(body: &mut Incoming) -> Result<Vec<u8>, String> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the answer broke off: {}", explain(&error)))?;
        read.extend(frame.into_data().unwrap_or_default());
        if read.len() > ANSWER_BYTES_MAX {
            return Err(format!(
                "the answer is longer than {ANSWER_BYTES_MAX} bytes"
            ));
        }
    }
    Ok(read)
}

impl Transcript {
    fn take_event(&mut self, event: &[u8], begun: Instant) -> Result<(), String> {
        if event == b"[DONE]" {
            return Ok(());
        }
        let value: Value =
            serde_json::from_slice(event).map_err(|_| "an event of the stream is no JSON")?;
        self.take(&value, "delta", begun)
    }

    /// Takes a whole answer, or an event of a stream.
    fn take(&mut self, value: &Value, part: &str, begun: Instant) -> Result<(), String> {
        if value.get("error").is_some_and(|error| !error.is_null()) {
            let text = value.to_string();
            return Err(format!(
                "an error: {}",
                shortened(&message_of(text.as_bytes()))
            ));
        }
        if let Some(fingerprint) = value["system_fingerprint"].as_str()
            && self.fingerprints.len() < FINGERPRINTS_MAX
        {
            self.fingerprints.insert(shortened(fingerprint));
        }
        let choice = &value["choices"][0];
        let text = choice[part]["content"].as_str().unwrap_or_default();
        let reasoning = ["reasoning_content", "reasoning"]
            .iter()
            .find_map(|name| choice[part][*name].as_str())
            .unwrap_or_default();
        if !(text.is_empty() && reasoning.is_empty()) {
            self.first_token.get_or_insert_with(|| begun.elapsed());
            self.goes_on_after_end |= self.ends > 0;
        }
        self.text.push_str(text);
        self.reasoning.push_str(reasoning);
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(shortened(reason));
            self.ends += 1;
        }
        Ok(())
    }

    fn check_end(&mut self) {
        if self.ends == 0 {
            self.failure = Some("it ended without a finish_reason".into());
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(MESSAGE_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(events: &[&str]) -> Result<Transcript, String> {
        let mut transcript = Transcript::default();
        for event in events {
            transcript.take_event(event.as_bytes(), Instant::now())?;
        }
        transcript.check_end();
        Ok(transcript)
    }

    #[test]
    fn a_stream_is_put_together() {
        let read = transcript(&[
            r#"{"system_fingerprint": "fp", "choices": [{"delta": {"role": "assistant", "content": ""}}]}"#,
            r#"{"choices": [{"delta": {"reasoning_content": "well"}}]}"#,
            r#"{"choices": [{"delta": {"content": "a"}}]}"#,
            r#"{"choices": [{"delta": {"content": "b"}, "finish_reason": "stop"}]}"#,
            r#"{"choices": [], "usage": {}}"#,
            "[DONE]",
        ])
        .unwrap();
        assert_eq!(
            (read.text.as_str(), read.reasoning.as_str()),
            ("ab", "well")
        );
        assert!(read.fingerprints.contains("fp") && read.failure.is_none());
        assert!(read.first_token.is_some() && !read.goes_on_after_end);
    }

    #[test]
    fn what_is_no_answer_is_a_failure() {
        let endless =
            transcript(&[r#"{"choices": [{"delta": {"content": "a"}}]}"#, "[DONE]"]).unwrap();
        assert!(endless.failure.unwrap().contains("finish_reason"));
        let error = transcript(&[r#"{"error": {"message": "it broke"}}"#]).unwrap_err();
        assert!(error.contains("it broke"), "{error}");
        assert!(transcript(&["{"]).is_err());
    }

    #[test]
    fn text_behind_the_end_is_noticed() {
        let ended = r#"{"choices": [{"delta": {"content": "b"}, "finish_reason": "stop"}]}"#;
        let read = transcript(&[ended, ended]).unwrap();
        assert!(read.goes_on_after_end);
        assert_eq!(read.ends, 2);
    }
}
