//! `input`: a text, or the items of a conversation.

use serde_json::{Value, json};

use super::history::History;
use super::reasoning;
use super::tools::{TOOL_SEARCH, Toolbox, function_name};
use super::updates::UPDATE;
use crate::error::ApiError;
use crate::fields::{Fields, element};
use crate::foreign::{self, Speaker, UnsupportedContent};
use crate::limits::{MAX_CONTENT_PARTS, MAX_MESSAGES, MAX_OPAQUE_BYTES};

/// Adds the conversation to `history`, and tools that are defined within it to `toolbox`.
pub(super) fn parse(
    body: &Fields<'_>,
    unsupported: UnsupportedContent,
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
            let latest = foreign::latest_user_message(items, speaker);
            for (index, value) in items.iter().enumerate() {
                let item = Fields::of_value(value, element("input", index))?;
                let unsupported = match index < latest {
                    true => UnsupportedContent::Note,
                    false => unsupported,
                };
                parse_item(&item, unsupported, history, toolbox)?;
            }
            Ok(())
        }
        Some(_) => Err(body.invalid("input", "must be a string or an array of items")),
    }
}

fn speaker(item: &Value) -> Speaker {
    match (item["type"].as_str(), item["role"].as_str()) {
        (None | Some("message"), Some("user")) => Speaker::User,
        (None | Some("message"), Some("system" | "developer"))
        | (Some("additional_tools" | UPDATE), _) => Speaker::Instructions,
        _ => Speaker::Assistant,
    }
}

fn parse_item(
    item: &Fields<'_>,
    unsupported: UnsupportedContent,
    history: &mut History,
    toolbox: &mut Toolbox,
) -> Result<(), ApiError> {
    let kind = match item.string("type")? {
        Some(kind) => kind,
        None if item.get("role").is_some() => "message",
        None if item.get("id").is_some() => "item_reference",
        None => return Err(item.missing("type")),
    };
    match kind {
        "message" => parse_message(item, unsupported, history)?,
        "reasoning" => history.reason(reasoning::parse(item)),
        "function_call" | "custom_tool_call" | "tool_search_call" | "local_shell_call"
        | "shell_call" | "apply_patch_call" | "computer_call" => parse_call(item, kind, history)?,
        "function_call_output"
        | "custom_tool_call_output"
        | "local_shell_call_output"
        | "shell_call_output"
        | "apply_patch_call_output"
        | "computer_call_output" => {
            history.result(id_of_result(item)?, &parse_output(item)?);
        }
        "tool_search_output" => {
            let found = json!({"found": toolbox.add(item, "tools")?});
            history.result(id_of_result(item)?, &found.to_string());
        }
        "additional_tools" => {
            toolbox.add(item, "tools")?;
        }
        "item_reference" => history.record(foreign::note("item reference")),
        // It asks for something now.
        "compaction_trigger" => {
            return Err(item.unsupported("type", "conversations are not compacted here"));
        }
        // Among the settings by now.
        UPDATE => {}
        "mcp_approval_response" => {
            let approves = item.flag("approve", false)?;
            let answer = if approves { "approved" } else { "denied" };
            history.say("user", &format!("[mcp approval response: {answer}]"));
        }
        _ => {
            if let Some(text) = foreign::show(item, UnsupportedContent::Note)? {
                history.record(text);
            }
        }
    }
    Ok(())
}

fn parse_message(
    item: &Fields<'_>,
    unsupported: UnsupportedContent,
    history: &mut History,
) -> Result<(), ApiError> {
    let role = item.string("role")?.ok_or_else(|| item.missing("role"))?;
    if !["user", "system", "developer", "assistant"].contains(&role) {
        let requirement = "must be 'user', 'system', 'developer' or 'assistant'";
        return Err(item.invalid("role", requirement));
    }
    let unsupported = match role {
        "assistant" => UnsupportedContent::Note,
        _ => unsupported,
    };
    let Content { text, quotes } = parse_content(item, role == "assistant", unsupported)?;
    match role {
        "assistant" => history.answer(text, quotes),
        "user" => history.say("user", &text),
        _ => history.say("system", &text),
    }
    Ok(())
}

/// The content of a message.
#[derive(Default)]
struct Content {
    /// Its parts, joined by line breaks.
    text: String,
    /// Some of it is what others than its author wrote.
    quotes: bool,
}

fn parse_content(
    item: &Fields<'_>,
    by_assistant: bool,
    unsupported: UnsupportedContent,
) -> Result<Content, ApiError> {
    let parts = match item.get("content") {
        None => return Err(item.missing("content")),
        Some(Value::String(text)) => {
            return Ok(Content {
                text: text.clone(),
                quotes: false,
            });
        }
        Some(Value::Array(_)) => item
            .array("content", MAX_CONTENT_PARTS)?
            .unwrap_or_default(),
        Some(_) => return Err(item.invalid("content", "must be a string or an array of parts")),
    };
    let path = item.path("content");
    let mut texts = Vec::with_capacity(parts.len());
    let mut quotes = false;
    for (index, value) in parts.iter().enumerate() {
        let part = Fields::of_value(value, element(&path, index))?;
        let name = match part.string("type")?.ok_or_else(|| part.missing("type"))? {
            "input_text" | "output_text" | "text" => "text",
            "refusal" if by_assistant => "refusal",
            _ => {
                texts.extend(foreign::show(&part, unsupported)?);
                quotes = true;
                continue;
            }
        };
        let text = part.string(name)?.ok_or_else(|| part.missing(name))?;
        texts.push(text.to_owned());
    }
    let text = texts.join("\n");
    Ok(Content { text, quotes })
}

/// What the model called, in the words in which such a tool would be offered to it here.
fn parse_call(item: &Fields<'_>, kind: &str, history: &mut History) -> Result<(), ApiError> {
    let named = || {
        let name = item.label("name", MAX_OPAQUE_BYTES)?;
        let name = name.ok_or_else(|| item.missing("name"))?;
        let namespace = item.label("namespace", MAX_OPAQUE_BYTES)?;
        Ok::<_, ApiError>(function_name(namespace, name))
    };
    let given = |name: &str| history.calls.arguments(item, name);
    let (function, arguments) = match kind {
        "function_call" => (named()?, given("arguments")?),
        "custom_tool_call" => {
            let input = item.string("input")?.unwrap_or_default();
            (named()?, json!({"input": input}))
        }
        "tool_search_call" => (TOOL_SEARCH.to_owned(), given("arguments")?),
        "local_shell_call" => ("local_shell".to_owned(), given("action")?),
        "shell_call" => ("shell".to_owned(), given("action")?),
        "computer_call" => match item.get("actions") {
            None => ("computer".to_owned(), given("action")?),
            Some(actions) => ("computer".to_owned(), json!({"actions": actions})),
        },
        _ => ("apply_patch".to_owned(), given("operation")?),
    };
    let id = item.label("call_id", MAX_OPAQUE_BYTES)?;
    history.call(id, &function, arguments);
    Ok(())
}

/// The id of the call that a result belongs to. The oldest of these items call it `id`.
fn id_of_result<'a>(item: &Fields<'a>) -> Result<Option<&'a str>, ApiError> {
    match item.label("call_id", MAX_OPAQUE_BYTES)? {
        None if item.string("type")? == Some("local_shell_call_output") => {
            item.label("id", MAX_OPAQUE_BYTES)
        }
        id => Ok(id),
    }
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
        Some(Value::Object(_)) => match item.object("output")? {
            Some(part) => output_part(&part),
            None => Ok(String::new()),
        },
        Some(value) => Ok(value.to_string()),
    }
}

fn output_part(part: &Fields<'_>) -> Result<String, ApiError> {
    match part.string("type")? {
        Some("input_text" | "output_text" | "text") => {
            let text = part.string("text")?.ok_or_else(|| part.missing("text"))?;
            Ok(text.to_owned())
        }
        Some(_) => {
            let shown = foreign::show(part, UnsupportedContent::Note)?;
            Ok(shown.unwrap_or_default())
        }
        // What a command wrote and how it ended.
        None => Ok(Value::Object(part.entries().clone()).to_string()),
    }
}
