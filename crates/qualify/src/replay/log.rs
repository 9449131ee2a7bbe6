//! A gateway's log, line by line: chats in the forms that gateways and clients write.
//!
//! Taken are bodies of `/v1/chat/completions`, lines of OpenAI's batches, LiteLLM's logging payload, its callbacks' and
//! its spend logs' entries, and bodies within `request` or `body`. What else a line has is never repeated anywhere.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};

use backstop_input::ValueAllowance;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::QualifyError;

/// A longer line is passed over.
pub(crate) const LINE_BYTES_MAX: u64 = 16 << 20;
const LINE_VALUES_MAX: usize = 1_000_000;
/// Wrappers around a body.
const DEPTH_MAX: u32 = 3;
/// Numbers of bad lines that are named, for each reason.
const NAMED_MAX: usize = 20;
/// What LiteLLM puts in the place of what it was told not to log.
const REDACTED: &str = "redacted-by-litellm";
const PATH: &str = "/v1/chat/completions";
/// What of a body is sent. Whatever else there is belongs to the gateway or to its provider: keys, users, tags,
/// biases of another vocabulary.
const FIELDS: [&str; 16] = [
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "response_format",
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "reasoning_effort",
];

/// A chat that was logged.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Logged {
    /// From 1 on.
    pub(crate) line: u64,
    /// What of it is sent.
    pub(crate) body: Map<String, Value>,
}

/// Why a line is no chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It is longer than a line may be, or has more values.
    TooLong,
    /// It is no JSON.
    NoJson,
    /// It is a request of another kind, such as embeddings.
    AnotherKind,
    /// Its messages were left out when it was logged.
    Redacted,
    /// It has no messages.
    NoMessages,
}

/// Lines that are no chats.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadLines {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub lines: Vec<u64>,
}

/// Reads a log to its end.
pub(crate) struct Log<R> {
    reader: R,
    line: u64,
    buffer: Vec<u8>,
    pub(crate) bad: BTreeMap<Fault, BadLines>,
}

impl<R: BufRead> Log<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self {
            reader,
            line: 0,
            buffer: Vec::new(),
            bad: BTreeMap::new(),
        }
    }

    /// The next chat; lines that are none are counted.
    pub(crate) fn next(&mut self) -> Result<Option<Logged>, QualifyError> {
        while self.read_line()? {
            let line = self.buffer.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let read = if self.buffer.len() as u64 > LINE_BYTES_MAX {
                Err(Fault::TooLong)
            } else {
                parse(line).and_then(|value| chat(value, DEPTH_MAX))
            };
            match read {
                Ok(body) => {
                    let line = self.line;
                    return Ok(Some(Logged { line, body }));
                }
                Err(fault) => {
                    let bad = self.bad.entry(fault).or_default();
                    bad.count += 1;
                    if bad.lines.len() < NAMED_MAX {
                        bad.lines.push(self.line);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Reads a line, of which no more is kept than shows that it is too long.
    fn read_line(&mut self) -> Result<bool, QualifyError> {
        let fail = |error: std::io::Error| QualifyError::new(format!("the log: {error}"));
        self.buffer.clear();
        self.line += 1;
        let mut limited = self.reader.by_ref().take(LINE_BYTES_MAX + 1);
        limited.read_until(b'\n', &mut self.buffer).map_err(fail)?;
        if self.buffer.len() as u64 > LINE_BYTES_MAX && !self.buffer.ends_with(b"\n") {
            self.reader.skip_until(b'\n').map_err(fail)?;
        }
        Ok(!self.buffer.is_empty())
    }
}

fn parse(line: &[u8]) -> Result<Value, Fault> {
    use backstop_input::JsonError;
    ValueAllowance::new(LINE_VALUES_MAX)
        .parse(line)
        .map_err(|error| match error {
            JsonError::TooManyValues => Fault::TooLong,
            JsonError::Syntax(_) => Fault::NoJson,
        })
}

/// Finds the chat in what was logged.
fn chat(value: Value, depth: u32) -> Result<Map<String, Value>, Fault> {
    let Value::Object(mut logged) = value else {
        return Err(Fault::NoMessages);
    };
    check_kind(&logged)?;
    for name in [
        "body",
        "request",
        "standard_logging_object",
        "proxy_server_request",
    ] {
        let inner = match logged.get_mut(name).map(Value::take) {
            Some(inner @ Value::Object(_)) => inner,
            // LiteLLM's spend logs have JSON in JSON.
            Some(Value::String(text)) => match parse(text.as_bytes()) {
                Ok(inner @ Value::Object(_)) => inner,
                _ => continue,
            },
            _ => continue,
        };
        let is_empty = inner.as_object().is_none_or(Map::is_empty);
        if depth > 0 && !is_empty {
            return chat(inner, depth - 1);
        }
    }
    // LiteLLM keeps what else a request had beside its messages.
    if let Some(Value::Object(parameters)) = logged.remove("model_parameters") {
        for (name, value) in parameters {
            logged.entry(name).or_insert(value);
        }
    }
    check_messages(logged.get("messages"))?;
    logged.retain(|name, value| FIELDS.contains(&name.as_str()) && !value.is_null());
    Ok(logged)
}

/// Refuses what says of itself that it is something else than a chat.
fn check_kind(logged: &Map<String, Value>) -> Result<(), Fault> {
    let text = |name: &str| logged.get(name).and_then(Value::as_str);
    let is_other_path = text("url").is_some_and(|url| {
        let path = url.split(['?', '#']).next().unwrap_or_default();
        !path
            .trim_end_matches('/')
            .ends_with(PATH.trim_start_matches("/v1"))
    });
    let is_other_call =
        text("call_type").is_some_and(|call| !matches!(call, "completion" | "acompletion"));
    let is_other_method = text("method").is_some_and(|method| !method.eq_ignore_ascii_case("POST"));
    match is_other_path || is_other_call || is_other_method {
        true => Err(Fault::AnotherKind),
        false => Ok(()),
    }
}

fn check_messages(messages: Option<&Value>) -> Result<(), Fault> {
    let is_redacted = |value: &Value| value.as_str() == Some(REDACTED);
    match messages {
        Some(text) if is_redacted(text) => Err(Fault::Redacted),
        Some(Value::Array(messages)) if !messages.is_empty() => {
            if !messages.iter().all(Value::is_object) {
                return Err(Fault::NoMessages);
            }
            match messages
                .iter()
                .any(|message| is_redacted(&message["content"]))
            {
                true => Err(Fault::Redacted),
                false => Ok(()),
            }
        }
        _ => Err(Fault::NoMessages),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(lines: &[Value]) -> (Vec<Logged>, BTreeMap<Fault, BadLines>) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        read_text(&text)
    }

    fn read_text(text: &str) -> (Vec<Logged>, BTreeMap<Fault, BadLines>) {
        let mut log = Log::new(text.as_bytes());
        let mut read = Vec::new();
        while let Some(logged) = log.next().unwrap() {
            read.push(logged);
        }
        (read, log.bad)
    }

    #[test]
    fn every_form_of_a_log_is_the_same_chat() {
        let messages = json!([{"role": "user", "content": "Hi"}]);
        let body = json!({"model": "m", "messages": messages, "temperature": 0.5, "api_key": "sk-secret", "user": "u"});
        let forms = [
            body.clone(),
            json!({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}),
            json!({"timestamp": 1, "request": body, "response": {"messages": []}}),
            json!({"request": {"method": "POST", "url": "https://g/v1/chat/completions?x=1", "body": body}}),
            json!({"id": "x", "call_type": "acompletion", "messages": messages, "response": {"choices": []},
                   "model_parameters": {"temperature": 0.5, "stream": true}}),
            json!({"kwargs": 1, "standard_logging_object": {"call_type": "completion", "messages": messages,
                   "model_parameters": {"temperature": 0.5}}}),
            json!({"call_type": "acompletion", "messages": {}, "proxy_server_request": body.to_string()}),
            json!({"call_type": "acompletion", "proxy_server_request": {"url": "http://g/chat/completions", "method": "POST",
                   "headers": {"authorization": "secret"}, "body": body}}),
        ];
        let (logged, bad) = read(&forms);
        assert!(bad.is_empty(), "{bad:?}");
        assert_eq!(logged.len(), forms.len());
        let expected = json!({"messages": messages, "temperature": 0.5});
        for (number, logged) in logged.into_iter().enumerate() {
            assert_eq!(Value::Object(logged.body), expected, "form {number}");
            assert_eq!(logged.line, number as u64 + 1);
        }
    }

    #[test]
    fn what_is_no_chat_is_counted_by_its_number() {
        let (logged, bad) = read_text(concat!(
            "not json\n",
            "\n",
            "{\"custom_id\": \"1\", \"method\": \"POST\", \"url\": \"/v1/embeddings\", \"body\": {\"input\": \"x\"}}\n",
            "{\"call_type\": \"aembedding\", \"messages\": [{}]}\n",
            "{\"messages\": \"redacted-by-litellm\"}\n",
            "{\"messages\": [{\"role\": \"user\", \"content\": \"redacted-by-litellm\"}]}\n",
            "{\"messages\": []}\n",
            "{\"messages\": [1]}\n",
            "[]\n",
            "{\"messages\": [{\"role\": \"user\", \"content\": \"last, without an end\"}]}",
        ));
        assert_eq!(logged.len(), 1);
        assert_eq!(logged[0].line, 10);
        let lines = |fault| bad[&fault].lines.clone();
        assert_eq!(lines(Fault::NoJson), [1]);
        assert_eq!(lines(Fault::AnotherKind), [3, 4]);
        assert_eq!(lines(Fault::Redacted), [5, 6]);
        assert_eq!(lines(Fault::NoMessages), [7, 8, 9]);
    }

    #[test]
    fn a_line_without_end_costs_no_memory_and_the_next_is_read() {
        let mut text = vec![b'x'; LINE_BYTES_MAX as usize + 5];
        text.extend(b"\n{\"messages\": [{}]}\n");
        let mut log = Log::new(text.as_slice());
        assert_eq!(log.next().unwrap().unwrap().line, 2);
        assert!(log.buffer.len() < 1000);
        assert_eq!(log.bad[&Fault::TooLong].count, 1);
        assert_eq!(log.next().unwrap(), None);
    }
}
