//! A conversation, checked and brought into the one form that chat templates read.
//!
//! Invariant: every message has `role` (system, user, assistant or tool) and a `content`, which is a
//! string, or, of others than the assistant, a list of two text parts or more.
//! Assistant messages may have `reasoning` with `reasoning_content` (always equal, as templates
//! differ in the name), `tool_calls`, and [`QUOTES`]; tool messages have `tool_call_id`.

use serde_json::{Map, Value};

use crate::calls::CallHistory;
use crate::error::ApiError;
use crate::fields::{Fields, element};
use crate::foreign::{self, Speaker, UnsupportedContent};
use crate::limits::{MAX_CONTENT_PARTS, MAX_MESSAGES, MAX_OPAQUE_BYTES};

/// Says of an assistant's message that its content repeats what others wrote, such as a page that
/// its provider found. Tags in it are not the model's own.
pub(crate) const QUOTES: &str = "quotes";

/// Fields by which reasoning comes back; the first that holds text counts.
const REASONING: [&str; 4] = [
    "reasoning",
    "reasoning_content",
    "thinking",
    "reasoning_details",
];

/// Media that providers put beside the content of their answers.
const MEDIA: [(&str, &str); 2] = [("audio", "audio"), ("images", "image")];

/// A conversation in the form that chat templates read.
pub(crate) struct Conversation {
    /// At least one message.
    pub(crate) messages: Vec<Value>,
    /// The final message is the assistant's and says `"prefix": true`.
    pub(crate) final_is_prefix: bool,
    /// The final message is the assistant's and holds text alone.
    pub(crate) final_is_open: bool,
}

/// The text of a message, and what else is found among its parts.
#[derive(Default)]
struct Content {
    text: Option<String>,
    /// The same as several parts, if it came so.
    parts: Vec<String>,
    reasoning: Option<String>,
    /// It has words that its author only repeats.
    quotes: bool,
}

impl Content {
    /// One text, or several parts: templates that read parts put them together in their own way.
    fn for_template(self) -> Option<Value> {
        let part = |text| serde_json::json!({"type": "text", "text": text});
        match self.parts.len() {
            0 | 1 => self.text.map(Value::String),
            _ => Some(self.parts.into_iter().map(part).collect()),
        }
    }
}

pub(crate) fn parse_messages(
    body: &Fields<'_>,
    unsupported: UnsupportedContent,
) -> Result<Conversation, ApiError> {
    let elements = body
        .array("messages", MAX_MESSAGES)?
        .ok_or_else(|| body.missing("messages"))?;
    let Some(last) = elements.len().checked_sub(1) else {
        return Err(body.invalid("messages", "must have at least one message"));
    };
    let latest = foreign::latest_user_message(elements, speaker);
    let mut messages = Vec::with_capacity(elements.len());
    let mut history = CallHistory::new();
    let mut final_is_prefix = false;
    for (index, value) in elements.iter().enumerate() {
        let fields = Fields::of_value(value, element("messages", index))?;
        // A prefix further up is one that an earlier gateway hop left behind: history by now.
        final_is_prefix = fields.flag("prefix", false)? && index == last;
        let unsupported = match index < latest {
            true => UnsupportedContent::Note,
            false => unsupported,
        };
        messages.push(parse_message(&fields, unsupported, &mut history)?);
    }
    let is_assistant = messages[last]["role"] == "assistant";
    if final_is_prefix && !is_assistant {
        let requirement = "is allowed on a final assistant message only";
        return Err(ApiError::invalid_field(
            format!("messages.{last}.prefix"),
            requirement,
        ));
    }
    let final_is_open = is_assistant && messages[last].get("tool_calls").is_none();
    Ok(Conversation {
        messages,
        final_is_prefix,
        final_is_open,
    })
}

fn speaker(message: &Value) -> Speaker {
    match message["role"].as_str() {
        Some("user") => Speaker::User,
        Some("system" | "developer") => Speaker::Instructions,
        _ => Speaker::Assistant,
    }
}

fn parse_message(
    message: &Fields<'_>,
    unsupported: UnsupportedContent,
    history: &mut CallHistory,
) -> Result<Value, ApiError> {
    let role = message
        .string("role")?
        .ok_or_else(|| message.missing("role"))?;
    let mut entries = Map::new();
    let mut set = |name: &str, value: Value| {
        entries.insert(name.to_owned(), value);
    };
    match role {
        "system" | "developer" | "user" => {
            set(
                "role",
                Value::from(if role == "user" { "user" } else { "system" }),
            );
            let content = parse_content(message, role, unsupported)?.for_template();
            set(
                "content",
                content.ok_or_else(|| message.missing("content"))?,
            );
        }
        "assistant" => return parse_assistant(message, history),
        "tool" | "function" => {
            let given = message.label("tool_call_id", MAX_OPAQUE_BYTES)?;
            set("role", Value::from("tool"));
            set("content", parse_result(message)?);
            set("tool_call_id", Value::from(history.id_of_result(given)));
        }
        _ => {
            let requirement = "must be 'system', 'developer', 'user', 'assistant' or 'tool'";
            return Err(message.invalid("role", requirement));
        }
    }
    insert_name(message, &mut entries)?;
    Ok(Value::Object(entries))
}

fn insert_name(message: &Fields<'_>, entries: &mut Map<String, Value>) -> Result<(), ApiError> {
    if let Some(name) = message.label("name", MAX_OPAQUE_BYTES)? {
        entries.insert("name".to_owned(), Value::String(name.to_owned()));
    }
    Ok(())
}

fn parse_assistant(message: &Fields<'_>, history: &mut CallHistory) -> Result<Value, ApiError> {
    let content = parse_content(message, "assistant", UnsupportedContent::Note)?;
    let refusal = message.string("refusal")?.map(str::to_owned);
    let text = content.text.or(refusal);
    let mut lines: Vec<String> = text.into_iter().filter(|text| !text.is_empty()).collect();
    for (name, medium) in MEDIA {
        if let Some(value) = message.get(name) {
            lines.push(foreign::note(medium));
            let transcript = foreign::transcript(value);
            lines.extend((!transcript.is_empty()).then(|| transcript.to_owned()));
        }
    }
    let mut entries = Map::new();
    entries.insert("role".to_owned(), Value::String("assistant".to_owned()));
    entries.insert("content".to_owned(), Value::String(lines.join("\n")));
    if content.quotes {
        entries.insert(QUOTES.to_owned(), Value::Bool(true));
    }
    insert_name(message, &mut entries)?;
    if let Some(reasoning) = parse_reasoning(message)?.or(content.reasoning) {
        entries.insert("reasoning".to_owned(), Value::String(reasoning.clone()));
        entries.insert("reasoning_content".to_owned(), Value::String(reasoning));
    }
    let calls = history.parse_calls(message)?;
    if !calls.is_empty() {
        entries.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    Ok(Value::Object(entries))
}

/// The reasoning of an assistant's message, as far as it can be read. Clients send it back under
/// the name by which they read it.
fn parse_reasoning(message: &Fields<'_>) -> Result<Option<String>, ApiError> {
    let found = REASONING
        .iter()
        .filter_map(|name| message.get(name))
        .map(foreign::words)
        .find(|text| !text.is_empty());
    if found.is_some() {
        return Ok(found);
    }
    let blocks = message
        .array("thinking_blocks", MAX_CONTENT_PARTS)?
        .unwrap_or_default();
    // A redacted block has no text that could be shown to this model.
    let texts = blocks.iter().filter_map(|block| block.get("thinking"));
    let texts: Vec<String> = texts.map(foreign::words).collect();
    Ok((!texts.is_empty()).then(|| texts.join("\n")))
}

/// What came of a call. Some clients send the value that it gave.
fn parse_result(message: &Fields<'_>) -> Result<Value, ApiError> {
    match message.get("content") {
        Some(Value::String(_) | Value::Array(_)) | None => {
            let content = parse_content(message, "tool", UnsupportedContent::Note)?;
            Ok(content.for_template().unwrap_or_else(|| Value::from("")))
        }
        Some(value) => Ok(Value::from(value.to_string())),
    }
}

/// The content as one text; parts are joined by line breaks, and kept beside it.
fn parse_content(
    message: &Fields<'_>,
    role: &str,
    unsupported: UnsupportedContent,
) -> Result<Content, ApiError> {
    let elements = match message.get("content") {
        None => return Ok(Content::default()),
        Some(Value::String(text)) => {
            return Ok(Content {
                text: Some(text.clone()),
                ..Content::default()
            });
        }
        Some(Value::Array(_)) => message
            .array("content", MAX_CONTENT_PARTS)?
            .unwrap_or_default(),
        Some(_) => {
            return Err(message.invalid("content", "must be a string or an array of parts"));
        }
    };
    let path = message.path("content");
    let mut texts = Vec::new();
    let mut reasoning = Vec::new();
    let mut quotes = false;
    for (index, value) in elements.iter().enumerate() {
        if let Value::String(text) = value {
            texts.push(text.clone());
            continue;
        }
        let part = Fields::of_value(value, element(&path, index))?;
        let kind = part.string("type")?.ok_or_else(|| part.missing("type"))?;
        match (kind, role) {
            ("text" | "input_text" | "output_text", _) => texts.push(required_text(&part, "text")?),
            ("refusal", "assistant") => texts.push(required_text(&part, "refusal")?),
            ("thinking", "assistant") => reasoning.extend(part.get("thinking").map(foreign::words)),
            _ => {
                let shown = foreign::show(&part, unsupported)?;
                quotes |= shown.is_some();
                texts.extend(shown);
            }
        }
    }
    let reasoning = (!reasoning.is_empty()).then(|| reasoning.join("\n"));
    Ok(Content {
        text: Some(texts.join("\n")),
        // Beside what is shown in words of our own, all is one text.
        parts: if quotes { Vec::new() } else { texts },
        reasoning,
        quotes,
    })
}

fn required_text(part: &Fields<'_>, name: &str) -> Result<String, ApiError> {
    let text = part.string(name)?.ok_or_else(|| part.missing(name))?;
    Ok(text.to_owned())
}
