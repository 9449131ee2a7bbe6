//! Tool definitions, and the choice between them.

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::fields::{Fields, element};
use crate::limits::{MAX_TOOL_NAME_BYTES, MAX_TOOLS};
use crate::tools::ToolChoice;

/// The tools in the form that chat templates read.
pub(super) fn parse_tools(body: &Fields<'_>) -> Result<Vec<Value>, ApiError> {
    let elements = body.array("tools", MAX_TOOLS)?.unwrap_or_default();
    let tools = elements
        .iter()
        .enumerate()
        .map(|(index, value)| parse_tool(&Fields::of_value(value, element("tools", index))?));
    tools.collect()
}

fn parse_tool(tool: &Fields<'_>) -> Result<Value, ApiError> {
    // The others have schemas that models of Anthropic alone know, or run on Anthropic's servers.
    match tool.string("type")? {
        None | Some("custom") => {}
        Some(_) => {
            let explanation = "only custom tools, with an input_schema, are available";
            return Err(tool.unsupported("type", explanation));
        }
    }
    let name = tool.string("name")?.ok_or_else(|| tool.missing("name"))?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.is_empty() || name.len() > MAX_TOOL_NAME_BYTES || !name.bytes().all(allowed) {
        let requirement = format!(
            "must have 1 to {MAX_TOOL_NAME_BYTES} characters out of letters, digits, '_', '.' \
             and '-'"
        );
        return Err(tool.invalid("name", &requirement));
    }
    let description = tool.string("description")?.unwrap_or_default();
    let schema = tool
        .object("input_schema")?
        .ok_or_else(|| tool.missing("input_schema"))?;
    let mut function = json!({
        "name": name,
        "description": description,
        "parameters": schema.entries(),
    });
    if tool.flag("strict", false)? {
        function["strict"] = Value::Bool(true);
    }
    Ok(json!({"type": "function", "function": function}))
}

pub(super) fn parse_tool_choice(
    body: &Fields<'_>,
    tools: &[Value],
) -> Result<ToolChoice, ApiError> {
    const FORCED: &str = "forced tool calls are not supported yet; use 'auto' or 'none'";
    let Some(choice) = body.object("tool_choice")? else {
        return Ok(ToolChoice::Auto);
    };
    match choice.string("type")? {
        None => Err(choice.missing("type")),
        Some("auto") => Ok(ToolChoice::Auto),
        Some("none") => Ok(ToolChoice::None),
        Some("any" | "tool") if tools.is_empty() => {
            Err(choice.invalid("type", "needs tools to choose from"))
        }
        Some("any" | "tool") => Err(choice.unsupported("type", FORCED)),
        Some(_) => Err(choice.invalid("type", "must be 'auto', 'any', 'tool' or 'none'")),
    }
}

/// Whether the answer may hold several calls.
pub(super) fn parse_parallel(body: &Fields<'_>) -> Result<bool, ApiError> {
    match body.object("tool_choice")? {
        None => Ok(true),
        Some(choice) => Ok(!choice.flag("disable_parallel_tool_use", false)?),
    }
}
