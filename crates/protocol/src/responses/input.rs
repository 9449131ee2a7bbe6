//! `input`: a text, or the items of a conversation.

use serde_json::{Value, json};

use super::history::History;
use super::reasoning;
use super::tools::{TOOL_SEARCH, Toolbox, function_name};
use crate::error::ApiError;
use crate::fields::{Fields, element};
use crate::limits::{MAX_CONTENT_PARTS, MAX_LABEL_BYTES, MAX_MESSAGES};
use crate::tools::parse_arguments;

/// Records of what OpenAI's servers did in earlier turns. They hold nothing that a model of texts
/// could read, and the answers that came of them stand beside them.
const LEFT_OUT: [&str; 9] = [
    "code_interpreter_call",
    "file_search_call",
    "image_generation_call",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_list_tools",
    "program",
    "program_output",
    "web_search_call",
];

/// Stands in a tool's result where the tool gave something that is not text. A model that asked
/// for a picture must learn that it cannot see it, or it asks again.
const NOT_TEXT: &str = "[This part of the result is not text and cannot be shown.]";

const TEXT_ONLY: &str = "this model reads text only";

/// Adds the conversation to `history`, and tools that are defined within it to `toolbox`.
pub(super) fn parse(
    body: &Fields<'_>,
    history: &mut History,
    toolbox: &mut Toolbox,
) -> Result<(), ApiError> {
    match body.get("input") {
        None => Err(body.missing("input")),
        Some(Value::String(text)) => {
            history.say("user", text);
            Ok(())
        }
        Some(Value::Array(_)) => {
            let items = body.array("input", MAX_MESSAGES)?.unwrap_or_default();
            for (index, value) in items.iter().enumerate() {
                let item = Fields::of_value(value, element("input", index))?;
                parse_item(&item, history, toolbox)?;
            }
            Ok(())
        }
        Some(_) => Err(body.invalid("input", "must be a string or an array of items")),
    }
}

fn parse_item(
    item: &Fields<'_>,
    history: &mut History,
    toolbox: &mut Toolbox,
) -> Result<(), ApiError> {
    let kind = match item.string("type")? {
        Some(kind) => kind,
        None if item.get("role").is_some() => "message",
        None => return Err(item.missing("type")),
    };
    match kind {
        "message" => parse_message(item, history)?,
        "reasoning" => history.reason(reasoning::parse(item)?),
        "function_call" | "custom_tool_call" | "tool_search_call" | "local_shell_call"
        | "shell_call" | "apply_patch_call" => parse_call(item, kind, history)?,
        "function_call_output"
        | "custom_tool_call_output"
        | "local_shell_call_output"
        | "shell_call_output"
        | "apply_patch_call_output" => history.result(call_id(item)?, &parse_output(item)?),
        "tool_search_output" => {
            let found = json!({"found": toolbox.add(item, "tools")?});
            history.result(call_id(item)?, &found.to_string());
        }
        "additional_tools" => {
            toolbox.add(item, "tools")?;
        }
        "item_reference" => {
            let explanation = "nothing is stored here; send the items themselves";
            return Err(item.unsupported("type", explanation));
        }
        _ if LEFT_OUT.contains(&kind) => {}
        _ => {
            let explanation = "items of this type are not available here";
            return Err(item.unsupported("type", explanation));
        }
    }
    Ok(())
}

fn parse_message(item: &Fields<'_>, history: &mut History) -> Result<(), ApiError> {
    let role = item.string("role")?.ok_or_else(|| item.missing("role"))?;
    if !["user", "system", "developer", "assistant"].contains(&role) {
        let requirement = "must be 'user', 'system', 'developer' or 'assistant'";
        return Err(item.invalid("role", requirement));
    }
    let text = parse_content(item, role == "assistant")?;
    match role {
        "assistant" => history.answer(text),
        "user" => history.say("user", &text),
        _ => history.say("system", &text),
    }
    Ok(())
}

/// The content as one text; parts are joined by line breaks.
fn parse_content(item: &Fields<'_>, by_assistant: bool) -> Result<String, ApiError> {
    let parts = match item.get("content") {
        None => return Err(item.missing("content")),
        Some(Value::String(text)) => return Ok(text.clone()),
        Some(Value::Array(_)) => item
            .array("content", MAX_CONTENT_PARTS)?
            .unwrap_or_default(),
        Some(_) => return Err(item.invalid("content", "must be a string or an array of parts")),
    };
    let path = item.path("content");
    let mut texts = Vec::with_capacity(parts.len());
    for (index, value) in parts.iter().enumerate() {
        let part = Fields::of_value(value, element(&path, index))?;
        let name = match part.string("type")?.ok_or_else(|| part.missing("type"))? {
            "input_text" | "output_text" | "text" => "text",
            "refusal" if by_assistant => "refusal",
            _ => return Err(part.unsupported("type", TEXT_ONLY)),
        };
        texts.push(part.string(name)?.ok_or_else(|| part.missing(name))?);
    }
    Ok(texts.join("\n"))
}

/// What the model called, in the words in which such a tool would be offered to it here.
fn parse_call(item: &Fields<'_>, kind: &str, history: &mut History) -> Result<(), ApiError> {
    let named = || {
        let name = item.label("name", MAX_LABEL_BYTES)?;
        let name = name.ok_or_else(|| item.missing("name"))?;
        let namespace = item.label("namespace", MAX_LABEL_BYTES)?;
        Ok::<_, ApiError>(function_name(namespace, name))
    };
    let text = |name: &str| item.string(name)?.ok_or_else(|| item.missing(name));
    let object = |name: &str| item.get(name).cloned().unwrap_or_else(|| json!({}));
    let (function, arguments) = match kind {
        "function_call" => (named()?, parse_arguments(item, &history.allowance)?),
        "custom_tool_call" => (named()?, json!({"input": text("input")?})),
        "tool_search_call" => (TOOL_SEARCH.to_owned(), object("arguments")),
        "local_shell_call" => ("local_shell".to_owned(), object("action")),
        "shell_call" => ("shell".to_owned(), object("action")),
        _ => ("apply_patch".to_owned(), object("operation")),
    };
    history.call(call_id(item)?, &function, arguments);
    Ok(())
}

/// The id that links a call to its result. The oldest of these items call it `id`.
fn call_id<'a>(item: &Fields<'a>) -> Result<&'a str, ApiError> {
    let id = match item.label("call_id", MAX_LABEL_BYTES)? {
        None if item.string("type")? == Some("local_shell_call_output") => {
            item.label("id", MAX_LABEL_BYTES)?
        }
        id => id,
    };
    id.ok_or_else(|| item.missing("call_id"))
}

/// What came of a call, as one text.
fn parse_output(item: &Fields<'_>) -> Result<String, ApiError> {
    match item.get("output") {
        // Patches that were applied may say no more than their status.
        None => Ok(item.string("status")?.unwrap_or_default().to_owned()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(_)) => {
            let parts = item.array("output", MAX_CONTENT_PARTS)?.unwrap_or_default();
            let path = item.path("output");
            let texts = parts.iter().enumerate().map(|(index, value)| {
                output_part(&Fields::of_value(value, element(&path, index))?)
            });
            Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
        }
        Some(_) => Err(item.invalid("output", "must be a string or an array of parts")),
    }
}

fn output_part(part: &Fields<'_>) -> Result<String, ApiError> {
    match part.string("type")? {
        Some("input_text" | "output_text" | "text") => {
            let text = part.string("text")?.ok_or_else(|| part.missing("text"))?;
            Ok(text.to_owned())
        }
        Some(_) => Ok(NOT_TEXT.to_owned()),
        // What a command wrote and how it ended.
        None => Ok(Value::Object(part.entries().clone()).to_string()),
    }
}
