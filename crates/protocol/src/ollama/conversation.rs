//! From Ollama's messages to those that chat templates read.
//!
//! Invariant: as in [`crate::messages`]. What differs: images stand beside the text, calls may have no
//! id, and results of tools say whose they are by the tool's name, or by coming in the order of the
//! calls.

use serde_json::{Map, Value, json};

use super::settings::{image_notes, with_notes};
use crate::calls::CallHistory;
use crate::error::ApiError;
use crate::fields::{Fields, element};
use crate::foreign::{self, Speaker, UnsupportedContent};
use crate::limits::MAX_OPAQUE_BYTES;

/// A conversation in the form that chat templates read.
pub(super) struct Conversation {
    /// As many as there were.
    pub(super) messages: Vec<Value>,
    /// The final message is the beginning of the answer.
    pub(super) is_prefill: bool,
}

/// A call that has no result yet.
struct OpenCall {
    id: String,
    name: String,
}

/// What later messages need of earlier ones' calls.
struct History {
    calls: CallHistory,
    /// Those of the latest message that had any.
    open: Vec<OpenCall>,
}

pub(super) fn parse_conversation(
    elements: &[Value],
    unsupported: UnsupportedContent,
) -> Result<Conversation, ApiError> {
    let latest = foreign::latest_user_message(elements, speaker);
    let mut history = History {
        calls: CallHistory::new(),
        open: Vec::new(),
    };
    let mut messages = Vec::with_capacity(elements.len());
    for (index, value) in elements.iter().enumerate() {
        let message = Fields::of_value(value, element("messages", index))?;
        let unsupported = match index < latest {
            true => UnsupportedContent::Note,
            false => unsupported,
        };
        messages.push(parse_message(&message, unsupported, &mut history)?);
    }
    let is_open = |last: &Value| last["role"] == "assistant" && last.get("tool_calls").is_none();
    Ok(Conversation {
        is_prefill: messages.last().is_some_and(is_open),
        messages,
    })
}

/// Ollama reads roles in either case.
fn known_role(role: &str) -> Option<&'static str> {
    const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];
    let mut roles = ROLES.into_iter();
    roles.find(|known| known.eq_ignore_ascii_case(role))
}

fn speaker(message: &Value) -> Speaker {
    match message["role"].as_str().and_then(known_role) {
        Some("user") => Speaker::User,
        Some("system" | "developer") => Speaker::Instructions,
        _ => Speaker::Assistant,
    }
}

fn parse_message(
    message: &Fields<'_>,
    unsupported: UnsupportedContent,
    history: &mut History,
) -> Result<Value, ApiError> {
    let role = message
        .string("role")?
        .ok_or_else(|| message.missing("role"))?;
    let text = message.string("content")?.unwrap_or_default();
    let content = with_notes(text, &image_notes(message, unsupported)?);
    match known_role(role) {
        Some("user") => Ok(json!({"role": "user", "content": content})),
        Some("system" | "developer") => Ok(json!({"role": "system", "content": content})),
        Some("assistant") => parse_assistant(message, content, history),
        Some("tool") => parse_result(message, &content, history),
        _ => {
            let requirement = "must be 'system', 'user', 'assistant' or 'tool'";
            Err(message.invalid("role", requirement))
        }
    }
}

fn parse_assistant(
    message: &Fields<'_>,
    content: String,
    history: &mut History,
) -> Result<Value, ApiError> {
    let mut entries = Map::new();
    entries.insert("role".to_owned(), Value::from("assistant"));
    entries.insert("content".to_owned(), Value::from(content));
    if let Some(thinking) = message.string("thinking")?.filter(|text| !text.is_empty()) {
        entries.insert("reasoning".to_owned(), Value::from(thinking));
        entries.insert("reasoning_content".to_owned(), Value::from(thinking));
    }
    let calls = history.calls.parse_calls(message)?;
    if !calls.is_empty() {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let open = calls.iter().map(|call| OpenCall {
            id: text(&call["id"]),
            name: text(&call["function"]["name"]),
        });
        history.open = open.collect();
        entries.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    Ok(Value::Object(entries))
}

/// The result of the call with the id that it names, or else of the first open call of the tool
/// that it names, or else of the first open call, or of an earlier one.
fn parse_result(
    message: &Fields<'_>,
    content: &str,
    history: &mut History,
) -> Result<Value, ApiError> {
    let named = message.label("tool_name", MAX_OPAQUE_BYTES)?;
    let named = named.or(message.label("name", MAX_OPAQUE_BYTES)?);
    let given = message.label("tool_call_id", MAX_OPAQUE_BYTES)?;
    let given = given.filter(|id| !id.is_empty());
    let open = &mut history.open;
    let place = match given {
        Some(id) => open.iter().position(|call| call.id == id),
        None => {
            let same = |call: &OpenCall| named.is_some_and(|name| name == call.name);
            let same = open.iter().position(same);
            same.or((!open.is_empty()).then_some(0))
        }
    };
    let answered = place.map(|place| open.remove(place));
    let id = given.map(str::to_owned);
    let id = id.or_else(|| answered.as_ref().map(|call| call.id.clone()));
    let id = id.unwrap_or_else(|| history.calls.id_of_result(None));
    let mut result = json!({"role": "tool", "content": content, "tool_call_id": id});
    let name = named.map(str::to_owned).or(answered.map(|call| call.name));
    if let Some(name) = name {
        result["name"] = Value::from(name);
    }
    Ok(result)
}
