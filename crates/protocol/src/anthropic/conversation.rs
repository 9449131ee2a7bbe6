//! From Anthropic's messages of content blocks to the messages that chat templates read.
//!
//! Invariant: as in [`crate::messages`]. What differs: results of tools stand in messages of the
//! user, reasoning and calls are blocks, and neighbours of one role are one turn.

use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::fields::{Fields, element};
use crate::limits::{MAX_CONTENT_PARTS, MAX_LABEL_BYTES, MAX_MESSAGES};

/// The mark of a system block that tells Anthropic whom to bill. It is no instruction, and as it
/// changes from request to request it would keep conversations out of the prefix cache.
const BILLING_MARK: &str = "x-anthropic-billing-header:";
/// What stands before the result of a tool that failed, as chat templates have no place for it.
const ERROR_MARK: &str = "Error: ";
/// Kinds of blocks that hold what a text model cannot read.
const MEDIA: [&str; 3] = ["image", "document", "search_result"];

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
    texts: Vec<&'a str>,
    thoughts: Vec<&'a str>,
    calls: Vec<Value>,
    results: Vec<Value>,
}

pub(super) fn parse_conversation(body: &Fields<'_>) -> Result<Conversation, ApiError> {
    let elements = body
        .array("messages", MAX_MESSAGES)?
        .ok_or_else(|| body.missing("messages"))?;
    let Some(last) = elements.len().checked_sub(1) else {
        return Err(body.invalid("messages", "must have at least one message"));
    };
    let mut messages = Vec::with_capacity(elements.len() + 1);
    push_system(&mut messages, body, "system")?;
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
        match role {
            "user" => push_user(&mut messages, &message)?,
            "assistant" => push_assistant(&mut messages, &message)?,
            "system" => push_system(&mut messages, &message, "content")?,
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

fn push_system(messages: &mut Vec<Value>, fields: &Fields<'_>, name: &str) -> Result<(), ApiError> {
    let blocks = parse_blocks(fields, name, &["text"])?;
    let text = join(blocks.texts.into_iter().filter(|text| !is_billing(text)));
    if !text.is_empty() {
        messages.push(json!({"role": "system", "content": text}));
    }
    Ok(())
}

fn is_billing(text: &str) -> bool {
    text.starts_with(BILLING_MARK)
}

/// Results come before the text, wherever they stand: templates want them behind their calls.
fn push_user(messages: &mut Vec<Value>, message: &Fields<'_>) -> Result<(), ApiError> {
    let blocks = parse_blocks(message, "content", &["text", "tool_result"])?;
    let only_results = blocks.texts.is_empty() && !blocks.results.is_empty();
    messages.extend(blocks.results);
    if only_results {
        return Ok(());
    }
    let text = join(blocks.texts);
    match messages.last_mut() {
        Some(last) if last["role"] == "user" => append(last, "content", &text),
        _ => messages.push(json!({"role": "user", "content": text})),
    }
    Ok(())
}

fn push_assistant(messages: &mut Vec<Value>, message: &Fields<'_>) -> Result<(), ApiError> {
    const KINDS: [&str; 4] = ["text", "thinking", "redacted_thinking", "tool_use"];
    let blocks = parse_blocks(message, "content", &KINDS)?;
    if messages
        .last()
        .is_none_or(|last| last["role"] != "assistant")
    {
        messages.push(json!({"role": "assistant", "content": ""}));
    }
    let Some(last) = messages.last_mut() else {
        return Ok(());
    };
    append(last, "content", &join(blocks.texts));
    let thoughts = join(blocks.thoughts);
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

fn join<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    texts.into_iter().collect::<Vec<_>>().join("\n")
}

/// The blocks of field `name`, which may also be one string; each of a kind in `kinds`.
fn parse_blocks<'a>(
    fields: &Fields<'a>,
    name: &str,
    kinds: &[&str],
) -> Result<Blocks<'a>, ApiError> {
    let mut blocks = Blocks::default();
    let elements = match fields.get(name) {
        None => return Ok(blocks),
        Some(Value::String(text)) => {
            blocks.texts.push(text);
            return Ok(blocks);
        }
        Some(Value::Array(_)) => fields.array(name, MAX_CONTENT_PARTS)?.unwrap_or_default(),
        Some(_) => return Err(fields.invalid(name, "must be a string or an array of blocks")),
    };
    let path = fields.path(name);
    for (index, value) in elements.iter().enumerate() {
        let block = Fields::of_value(value, element(&path, index))?;
        let kind = block.string("type")?.ok_or_else(|| block.missing("type"))?;
        if MEDIA.contains(&kind) {
            return Err(block.unsupported("type", "this model reads text only"));
        }
        if !kinds.contains(&kind) {
            let requirement = format!("must be one of {} here", kinds.join(", "));
            return Err(block.invalid("type", &requirement));
        }
        match kind {
            "thinking" => blocks.thoughts.push(required(&block, "thinking")?),
            // Only who wrote it can read it.
            "redacted_thinking" => {}
            "tool_use" => blocks.calls.push(parse_call(&block)?),
            "tool_result" => blocks.results.push(parse_result(&block)?),
            _ => blocks.texts.push(required(&block, "text")?),
        }
    }
    Ok(blocks)
}

fn required<'a>(block: &Fields<'a>, name: &str) -> Result<&'a str, ApiError> {
    block.string(name)?.ok_or_else(|| block.missing(name))
}

fn required_label<'a>(block: &Fields<'a>, name: &str) -> Result<&'a str, ApiError> {
    block
        .label(name, MAX_LABEL_BYTES)?
        .ok_or_else(|| block.missing(name))
}

fn parse_call(block: &Fields<'_>) -> Result<Value, ApiError> {
    let id = required_label(block, "id")?;
    let name = required_label(block, "name")?;
    let input = block.object("input")?;
    let arguments = input.map_or_else(Map::new, |input| input.entries().clone());
    Ok(json!({
        "id": id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }))
}

fn parse_result(block: &Fields<'_>) -> Result<Value, ApiError> {
    let id = required_label(block, "tool_use_id")?;
    let text = join(parse_blocks(block, "content", &["text"])?.texts);
    let mark = if block.flag("is_error", false)? {
        ERROR_MARK
    } else {
        ""
    };
    Ok(json!({"role": "tool", "tool_call_id": id, "content": format!("{mark}{text}")}))
}
