//! From Anthropic's messages of content blocks to the messages that chat templates read.
//!
//! Invariant: as in [`crate::messages`]. What differs: results of tools stand in messages of the
//! user, reasoning and calls are blocks, and neighbours of one role are one turn.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::calls::{CallHistory, function_call};
use crate::error::ApiError;
use crate::fields::{Fields, element};
use crate::foreign::{self, Speaker, UnsupportedContent};
use crate::limits::{MAX_CONTENT_PARTS, MAX_MESSAGES, MAX_OPAQUE_BYTES};
use crate::messages::QUOTES;

/// The mark of a system block that tells Anthropic whom to bill. It is no instruction, and as it
/// changes from request to request it would keep conversations out of the prefix cache.
const BILLING_MARK: &str = "x-anthropic-billing-header:";
/// What stands before the result of a tool that failed, as chat templates have no place for it.
const ERROR_MARK: &str = "Error: ";

/// A conversation in the form that chat templates read.
pub(super) struct Conversation {
    /// At least one message.
    pub(super) messages: Vec<Value>,
    /// The final message is the beginning of the answer.
    pub(super) is_prefill: bool,
}

/// One message's blocks, by kind.
#[derive(Default)]
struct Blocks<'a> {
    texts: Vec<Cow<'a, str>>,
    thoughts: Vec<Cow<'a, str>>,
    calls: Vec<Value>,
    results: Vec<Value>,
    /// Texts that their author only repeats are among them.
    quotes: bool,
}

/// How the blocks of a message are read. What has no place there is shown as text.
struct Reading<'a> {
    /// Whose they are: `user`, `assistant`, or another's.
    role: &'a str,
    unsupported: UnsupportedContent,
    history: &'a mut CallHistory,
}

pub(super) fn parse_conversation(
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
    let mut history = CallHistory::new();
    let mut messages = Vec::with_capacity(elements.len() + 1);
    // Instructions are of now, whoever has written what follows.
    let mut reading = Reading {
        role: "system",
        unsupported: UnsupportedContent::Refuse,
        history: &mut history,
    };
    push_system(&mut messages, body, "system", &mut reading)?;
    let mut is_prefill = false;
    for (index, value) in elements.iter().enumerate() {
        let message = Fields::of_value(value, element("messages", index))?;
        let role = message
            .string("role")?
            .ok_or_else(|| message.missing("role"))?;
        if message.get("content").is_none() {
            return Err(message.missing("content"));
        }
        is_prefill = role == "assistant";
        reading.role = role;
        reading.unsupported = match role == "user" && index >= latest {
            true => unsupported,
            false => UnsupportedContent::Note,
        };
        match role {
            "user" => push_user(&mut messages, &message, &mut reading)?,
            "assistant" => push_assistant(&mut messages, &message, &mut reading)?,
            "system" if is_over(&message, &elements[index + 1..])? => {}
            "system" => push_system(&mut messages, &message, "content", &mut reading)?,
            _ => return Err(message.invalid("role", "must be 'user', 'assistant' or 'system'")),
        }
    }
    let calls = |message: &Value| message.get("tool_calls").is_some();
    if is_prefill && messages.last().is_some_and(calls) {
        let requirement = "must not call tools in the final message: their results are missing";
        let path = format!("{}.content", element("messages", last));
        return Err(ApiError::invalid_field(path, requirement));
    }
    if messages.is_empty() {
        return Err(body.invalid("messages", "must have at least one message with content"));
    }
    Ok(Conversation {
        messages,
        is_prefill,
    })
}

fn speaker(message: &Value) -> Speaker {
    let brings_results = || {
        let blocks = message["content"].as_array();
        blocks.is_some_and(|blocks| blocks.iter().any(|block| block["type"] == "tool_result"))
    };
    match message["role"].as_str() {
        Some("user") if !brings_results() => Speaker::User,
        Some("system") => Speaker::Instructions,
        _ => Speaker::Assistant,
    }
}

/// Whether an instruction was for the user's turn before it alone, and another has followed.
fn is_over(message: &Fields<'_>, later: &[Value]) -> Result<bool, ApiError> {
    match message.string("clear_at")? {
        None | Some("never") => Ok(false),
        Some("next_user_message") => Ok(later.iter().any(|message| message["role"] == "user")),
        Some(_) => Err(message.invalid("clear_at", "must be 'next_user_message' or 'never'")),
    }
}

fn push_system(
    messages: &mut Vec<Value>,
    fields: &Fields<'_>,
    name: &str,
    reading: &mut Reading<'_>,
) -> Result<(), ApiError> {
    let blocks = parse_blocks(fields, name, reading)?;
    let text = join(blocks.texts.iter().filter(|text| !is_billing(text)));
    if !text.is_empty() {
        messages.push(json!({"role": "system", "content": text}));
    }
    Ok(())
}

fn is_billing(text: &str) -> bool {
    text.starts_with(BILLING_MARK)
}

/// Results come before the text, wherever they stand: templates want them behind their calls.
fn push_user(
    messages: &mut Vec<Value>,
    message: &Fields<'_>,
    reading: &mut Reading<'_>,
) -> Result<(), ApiError> {
    let blocks = parse_blocks(message, "content", reading)?;
    let only_results = blocks.texts.is_empty() && !blocks.results.is_empty();
    messages.extend(blocks.results);
    if only_results {
        return Ok(());
    }
    let text = join(&blocks.texts);
    match messages.last_mut() {
        Some(last) if last["role"] == "user" => append(last, "content", &text),
        _ => messages.push(json!({"role": "user", "content": text})),
    }
    Ok(())
}

fn push_assistant(
    messages: &mut Vec<Value>,
    message: &Fields<'_>,
    reading: &mut Reading<'_>,
) -> Result<(), ApiError> {
    if messages
        .last()
        .is_none_or(|last| last["role"] != "assistant")
    {
        messages.push(json!({"role": "assistant", "content": ""}));
        reading.history.begin_turn();
    }
    let blocks = parse_blocks(message, "content", reading)?;
    let Some(last) = messages.last_mut() else {
        return Ok(());
    };
    append(last, "content", &join(&blocks.texts));
    if blocks.quotes {
        last[QUOTES] = Value::Bool(true);
    }
    let thoughts = join(&blocks.thoughts);
    if !thoughts.is_empty() {
        append(last, "reasoning", &thoughts);
        append(last, "reasoning_content", &thoughts);
    }
    if !blocks.calls.is_empty() {
        match last.get_mut("tool_calls").and_then(Value::as_array_mut) {
            Some(calls) => calls.extend(blocks.calls),
            None => last["tool_calls"] = Value::Array(blocks.calls),
        }
    }
    Ok(())
}

/// Adds a line to a text of a message.
fn append(message: &mut Value, name: &str, more: &str) {
    // In place: a turn may come in thousands of pieces.
    match message.get_mut(name) {
        Some(Value::String(text)) if !text.is_empty() => {
            if !more.is_empty() {
                text.push('\n');
                text.push_str(more);
            }
        }
        _ => message[name] = Value::String(more.to_owned()),
    }
}

fn join<'a>(texts: impl IntoIterator<Item = &'a Cow<'a, str>>) -> String {
    let texts: Vec<&str> = texts.into_iter().map(AsRef::as_ref).collect();
    texts.join("\n")
}

/// The blocks of field `name`, which may also be one string.
fn parse_blocks<'a>(
    fields: &Fields<'a>,
    name: &str,
    reading: &mut Reading<'_>,
) -> Result<Blocks<'a>, ApiError> {
    let mut blocks = Blocks::default();
    let elements = match fields.get(name) {
        None => return Ok(blocks),
        Some(Value::String(text)) => {
            blocks.texts.push(text.into());
            return Ok(blocks);
        }
        Some(Value::Array(_)) => fields.array(name, MAX_CONTENT_PARTS)?.unwrap_or_default(),
        Some(_) => return Err(fields.invalid(name, "must be a string or an array of blocks")),
    };
    let path = fields.path(name);
    for (index, value) in elements.iter().enumerate() {
        let block = Fields::of_value(value, element(&path, index))?;
        let kind = block.string("type")?.ok_or_else(|| block.missing("type"))?;
        match (kind, reading.role) {
            ("text", _) => {
                let text = block.string("text")?.ok_or_else(|| block.missing("text"))?;
                blocks.texts.push(text.into());
            }
            ("thinking", "assistant") => {
                let thought = block.get("thinking").map(foreign::words);
                blocks.thoughts.extend(thought.map(Cow::Owned));
            }
            ("tool_use", "assistant") => blocks.calls.push(parse_call(&block, reading.history)?),
            ("tool_result", "user") => {
                blocks.results.push(parse_result(&block, reading.history)?);
            }
            _ => {
                let shown = foreign::show(&block, reading.unsupported)?;
                blocks.quotes |= shown.is_some();
                blocks.texts.extend(shown.map(Cow::Owned));
            }
        }
    }
    Ok(blocks)
}

fn parse_call(block: &Fields<'_>, history: &mut CallHistory) -> Result<Value, ApiError> {
    let id = history.id_of_call(block.label("id", MAX_OPAQUE_BYTES)?);
    let name = block.label("name", MAX_OPAQUE_BYTES)?;
    let name = name.ok_or_else(|| block.missing("name"))?;
    Ok(function_call(&id, name, history.arguments(block, "input")?))
}

fn parse_result(block: &Fields<'_>, history: &mut CallHistory) -> Result<Value, ApiError> {
    let id = history.id_of_result(block.label("tool_use_id", MAX_OPAQUE_BYTES)?);
    let text = match block.get("content") {
        // Some clients send the value that the tool gave.
        Some(value @ (Value::Object(_) | Value::Number(_) | Value::Bool(_))) => value.to_string(),
        _ => {
            let mut reading = Reading {
                role: "tool",
                unsupported: UnsupportedContent::Note,
                history,
            };
            join(&parse_blocks(block, "content", &mut reading)?.texts)
        }
    };
    let mark = if block.flag("is_error", false)? {
        ERROR_MARK
    } else {
        ""
    };
    Ok(json!({"role": "tool", "tool_call_id": id, "content": format!("{mark}{text}")}))
}
