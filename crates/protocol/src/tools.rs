//! Tool definitions, the choice between them, and the calls in an assistant's message.

use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::fields::{Fields, element};
use crate::limits::{MAX_LABEL_BYTES, MAX_TOOL_CALLS, MAX_TOOL_NAME_BYTES, MAX_TOOLS};
use crate::unsupported::is_set;

/// Whether the model may call tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// The model answers in text.
    None,
    /// The model calls at least one tool.
    Required,
    /// The model calls the tool of this name, which is among the request's tools.
    Function(String),
}

/// The tools of the request in the form that chat templates read: each is
/// `{"type": "function", "function": {"name", "description", "parameters"}}` with all three set.
pub(crate) fn parse_tools(body: &Fields<'_>) -> Result<Vec<Value>, ApiError> {
    if body.get("functions").is_some_and(is_set) {
        return Err(body.unsupported("functions", "define them as 'tools' instead"));
    }
    if body.get("function_call").is_some_and(Value::is_object) {
        return Err(body.unsupported("function_call", "use 'tools' and 'tool_choice' instead"));
    }
    let elements = body.array("tools", MAX_TOOLS)?.unwrap_or_default();
    let tools = elements
        .iter()
        .enumerate()
        .map(|(index, value)| parse_tool(&Fields::of_value(value, element("tools", index))?));
    tools.collect()
}

fn parse_tool(tool: &Fields<'_>) -> Result<Value, ApiError> {
    check_function_type(tool)?;
    let function = tool
        .object("function")?
        .ok_or_else(|| tool.missing("function"))?;
    let name = function
        .string("name")?
        .ok_or_else(|| function.missing("name"))?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.is_empty() || name.len() > MAX_TOOL_NAME_BYTES || !name.bytes().all(allowed) {
        let requirement = format!(
            "must have 1 to {MAX_TOOL_NAME_BYTES} characters out of letters, digits, '_', '.' \
             and '-'"
        );
        return Err(function.invalid("name", &requirement));
    }
    let description = function.string("description")?.unwrap_or_default();
    let parameters = match function.object("parameters")? {
        Some(parameters) => Value::Object(parameters.entries().clone()),
        None => json!({"type": "object", "properties": {}}),
    };
    Ok(json!({
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }))
}

/// `type` may be left out; anything but a function is unknown to the chat templates.
fn check_function_type(fields: &Fields<'_>) -> Result<(), ApiError> {
    match fields.string("type")? {
        None | Some("function") => Ok(()),
        Some(_) => Err(fields.unsupported("type", "only 'function' is available")),
    }
}

/// `auto` where the request does not say; without tools it means nothing.
pub(crate) fn parse_tool_choice(body: &Fields<'_>) -> Result<ToolChoice, ApiError> {
    const FORCED: &str = "forced tool calls are not supported yet; use 'auto' or 'none'";
    match body.get("tool_choice") {
        None => Ok(ToolChoice::Auto),
        Some(Value::String(choice)) => match choice.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" | "any" => Err(body.unsupported("tool_choice", FORCED)),
            _ => Err(body.invalid("tool_choice", "must be 'auto' or 'none'")),
        },
        Some(Value::Object(_)) => Err(body.unsupported("tool_choice", FORCED)),
        Some(_) => Err(body.invalid("tool_choice", "must be 'auto' or 'none'")),
    }
}

/// The calls of an assistant's message, as `{"id", "type", "function": {"name", "arguments"}}`
/// with `arguments` parsed, because chat templates render it as JSON.
pub(crate) fn parse_tool_calls(message: &Fields<'_>) -> Result<Vec<Value>, ApiError> {
    let path = message.path("tool_calls");
    let elements = message
        .array("tool_calls", MAX_TOOL_CALLS)?
        .unwrap_or_default();
    let calls = elements.iter().enumerate().map(|(index, value)| {
        let call = Fields::of_value(value, element(&path, index))?;
        check_function_type(&call)?;
        let id = call
            .label("id", MAX_LABEL_BYTES)?
            .ok_or_else(|| call.missing("id"))?;
        let function = call
            .object("function")?
            .ok_or_else(|| call.missing("function"))?;
        function_call(id, &function)
    });
    calls.collect()
}

/// A call with the id `id`. Its name is not checked against the tools: the history may speak of
/// tools that this request no longer offers.
pub(crate) fn function_call(id: &str, function: &Fields<'_>) -> Result<Value, ApiError> {
    let name = function
        .label("name", MAX_LABEL_BYTES)?
        .ok_or_else(|| function.missing("name"))?;
    let arguments = match function.get("arguments") {
        None => Value::Object(Map::new()),
        Some(Value::Object(entries)) => Value::Object(entries.clone()),
        Some(Value::String(text)) => parse_arguments(text),
        Some(_) => {
            return Err(function.invalid("arguments", "must be a string with a JSON object"));
        }
    };
    Ok(json!({
        "id": id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }))
}

/// A model can have written arguments that are not JSON, and its client must be able to send
/// them back; they stay the string that they are.
pub(crate) fn parse_arguments(text: &str) -> Value {
    if text.trim().is_empty() {
        return Value::Object(Map::new());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(entries)) => Value::Object(entries),
        _ => Value::String(text.to_owned()),
    }
}
