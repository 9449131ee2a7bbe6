//! A conversation, checked and brought into the one form that chat templates read.
//!
//! Invariant: every message has `role` (system, user, assistant or tool) and a string `content`.
//! Assistant messages may have `reasoning` with `reasoning_content` (always equal, as templates
//! differ in the name) and `tool_calls`; tool messages have `tool_call_id`.

use backstop_input::ValueAllowance;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::fields::{Fields, element};
use crate::limits::{MAX_CONTENT_PARTS, MAX_LABEL_BYTES, MAX_MESSAGES};
use crate::tools::{function_call, parse_tool_calls, values_in_strings};

/// A conversation in the form that chat templates read.
pub(crate) struct Conversation {
    /// At least one message.
    pub(crate) messages: Vec<Value>,
    /// The final message is the assistant's and says `"prefix": true`.
    pub(crate) final_is_prefix: bool,
    /// The final message is the assistant's and holds text alone.
    pub(crate) final_is_open: bool,
}

/// The text of a message, and the reasoning found among its parts.
#[derive(Default)]
struct Content {
    text: Option<String>,
    reasoning: Option<String>,
}

/// What later messages need of earlier ones' calls.
struct CallHistory {
    /// The id of the latest call of the legacy form, which has none itself.
    legacy_id: String,
    /// What the arguments may still hold.
    allowance: ValueAllowance,
}

pub(crate) fn parse_messages(body: &Fields<'_>) -> Result<Conversation, ApiError> {
    let elements = body
        .array("messages", MAX_MESSAGES)?
        .ok_or_else(|| body.missing("messages"))?;
    let Some(last) = elements.len().checked_sub(1) else {
        return Err(body.invalid("messages", "must have at least one message"));
    };
    let mut messages = Vec::with_capacity(elements.len());
    let mut history = CallHistory {
        legacy_id: String::from("function_call"),
        allowance: values_in_strings(),
    };
    let mut final_is_prefix = false;
    for (index, value) in elements.iter().enumerate() {
        let fields = Fields::of_value(value, element("messages", index))?;
        // A prefix further up is one that an earlier gateway hop left behind: history by now.
        final_is_prefix = fields.flag("prefix", false)? && index == last;
        messages.push(parse_message(&fields, index, &mut history)?);
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

fn parse_message(
    message: &Fields<'_>,
    index: usize,
    history: &mut CallHistory,
) -> Result<Value, ApiError> {
    let role = message
        .string("role")?
        .ok_or_else(|| message.missing("role"))?;
    let mut entries = Map::new();
    let mut set = |name: &str, value: &str| {
        entries.insert(name.to_owned(), Value::String(value.to_owned()));
    };
    match role {
        "system" | "developer" | "user" => {
            set("role", if role == "user" { "user" } else { "system" });
            let text = parse_content(message, role)?.text;
            set("content", &text.ok_or_else(|| message.missing("content"))?);
        }
        "assistant" => return parse_assistant(message, index, history),
        "tool" => {
            let id = message.label("tool_call_id", MAX_LABEL_BYTES)?;
            set("role", "tool");
            set(
                "content",
                &parse_content(message, role)?.text.unwrap_or_default(),
            );
            set(
                "tool_call_id",
                id.ok_or_else(|| message.missing("tool_call_id"))?,
            );
        }
        "function" => {
            set("role", "tool");
            set(
                "content",
                &parse_content(message, role)?.text.unwrap_or_default(),
            );
            set("tool_call_id", &history.legacy_id);
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
    if let Some(name) = message.label("name", MAX_LABEL_BYTES)? {
        entries.insert("name".to_owned(), Value::String(name.to_owned()));
    }
    Ok(())
}

fn parse_assistant(
    message: &Fields<'_>,
    index: usize,
    history: &mut CallHistory,
) -> Result<Value, ApiError> {
    let content = parse_content(message, "assistant")?;
    let refusal = message.string("refusal")?.map(str::to_owned);
    let text = content.text.or(refusal).unwrap_or_default();
    let mut entries = Map::new();
    entries.insert("role".to_owned(), Value::String("assistant".to_owned()));
    entries.insert("content".to_owned(), Value::String(text));
    insert_name(message, &mut entries)?;
    if let Some(reasoning) = parse_reasoning(message, content.reasoning)? {
        entries.insert("reasoning".to_owned(), Value::String(reasoning.clone()));
        entries.insert("reasoning_content".to_owned(), Value::String(reasoning));
    }
    let mut calls = parse_tool_calls(message, &history.allowance)?;
    if let Some(function) = message.object("function_call")?
        && calls.is_empty()
    {
        // The legacy form has no ids: the answer that follows belongs to the latest call.
        history.legacy_id = format!("function_call_{index}");
        let call = function_call(&history.legacy_id, &function, &history.allowance)?;
        calls.push(call);
    }
    if !calls.is_empty() {
        entries.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    Ok(Value::Object(entries))
}

/// The reasoning of an assistant's message. Clients send it back under the name by which they
/// read it; the first name that holds text counts.
fn parse_reasoning(
    message: &Fields<'_>,
    in_content: Option<String>,
) -> Result<Option<String>, ApiError> {
    let mut found = None;
    for name in ["reasoning", "reasoning_content", "thinking"] {
        let text = message.string(name)?.filter(|text| !text.is_empty());
        found = found.or(text.map(str::to_owned));
    }
    let path = message.path("thinking_blocks");
    let blocks = message
        .array("thinking_blocks", MAX_CONTENT_PARTS)?
        .unwrap_or_default();
    let mut texts = Vec::new();
    for (index, value) in blocks.iter().enumerate() {
        let block = Fields::of_value(value, element(&path, index))?;
        // A redacted block has no text that could be shown to this model.
        texts.extend(block.string("thinking")?);
    }
    let in_blocks = (!texts.is_empty()).then(|| texts.join("\n"));
    Ok(found.or(in_blocks).or(in_content))
}

/// The content as one text; parts are joined by line breaks.
fn parse_content(message: &Fields<'_>, role: &str) -> Result<Content, ApiError> {
    let elements = match message.get("content") {
        None => return Ok(Content::default()),
        Some(Value::String(text)) => {
            return Ok(Content {
                text: Some(text.clone()),
                reasoning: None,
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
    for (index, value) in elements.iter().enumerate() {
        if let Value::String(text) = value {
            texts.push(text.as_str());
            continue;
        }
        let part = Fields::of_value(value, element(&path, index))?;
        let kind = part.string("type")?.ok_or_else(|| part.missing("type"))?;
        match (kind, role) {
            ("text" | "input_text" | "output_text", _) => texts.push(required_text(&part, "text")?),
            ("refusal", "assistant") => texts.push(required_text(&part, "refusal")?),
            ("thinking", "assistant") => reasoning.push(required_text(&part, "thinking")?),
            ("redacted_thinking", "assistant") => {}
            _ => return Err(part.unsupported("type", "this model reads text only")),
        }
    }
    let reasoning = (!reasoning.is_empty()).then(|| reasoning.join("\n"));
    Ok(Content {
        text: Some(texts.join("\n")),
        reasoning,
    })
}

fn required_text<'a>(part: &Fields<'a>, name: &str) -> Result<&'a str, ApiError> {
    part.string(name)?.ok_or_else(|| part.missing(name))
}
