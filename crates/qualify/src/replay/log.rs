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

/// Lines that are no chats, for people.
pub(crate) fn told(bad: &BTreeMap<Fault, BadLines>) -> String {
    let told: Vec<String> = bad
        .iter()
        .map(|(fault, bad)| {
            let lines: Vec<String> = bad.lines.iter().map(u64::to_string).collect();
            let more = if bad.count > bad.lines.len() as u64 {
                ", …"
            } else {
                ""
            };
            format!(
                "{} {} (line {}{more})",
                bad.count,
                fault.text(),
                lines.join(", ")
            )
        })
        .collect();
    told.join("; ")
}

impl Fault {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::TooLong => "too long",
            Self::NoJson => "no JSON",
            Self::AnotherKind => "of another kind than chats",
            Self::Redacted => "without their messages, which the gateway was told not to log",
            Self::NoMessages => "without messages",
        }
    }
}

#[cfg(test)]
mod tests;
