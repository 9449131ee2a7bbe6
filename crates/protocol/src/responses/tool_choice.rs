//! Which of its tools the model may or must call.

use std::collections::BTreeSet;

use serde_json::Value;

use super::tools::{ToolKind, Toolbox, function_name};
use crate::error::ApiError;
use crate::fields::{Fields, element};
use crate::limits::{MAX_LABEL_BYTES, MAX_TOOLS};
use crate::tools::ToolChoice;

/// Reads `tool_choice`; takes tools that it does not allow out of the toolbox.
pub(super) fn parse(body: &Fields<'_>, toolbox: &mut Toolbox) -> Result<ToolChoice, ApiError> {
    const REQUIREMENT: &str =
        "must be 'auto', 'none', 'required' or an object that names the tools";
    let choice = match body.get("tool_choice") {
        None => ToolChoice::Auto,
        Some(Value::String(mode)) => match mode.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            _ => return Err(body.invalid("tool_choice", REQUIREMENT)),
        },
        Some(choice @ Value::Object(_)) => {
            let choice = Fields::of_value(choice, body.path("tool_choice"))?;
            parse_object(&choice, toolbox)?
        }
        Some(_) => return Err(body.invalid("tool_choice", REQUIREMENT)),
    };
    if choice == ToolChoice::Required && toolbox.functions.is_empty() {
        let explanation = "no function or custom tool is offered that could be called";
        return Err(body.unsupported("tool_choice", explanation));
    }
    Ok(choice)
}

fn parse_object(choice: &Fields<'_>, toolbox: &mut Toolbox) -> Result<ToolChoice, ApiError> {
    match choice
        .string("type")?
        .ok_or_else(|| choice.missing("type"))?
    {
        "function" => Ok(ToolChoice::Function(named(
            choice,
            toolbox,
            ToolKind::Function,
        )?)),
        "custom" => Ok(ToolChoice::Function(named(
            choice,
            toolbox,
            ToolKind::Custom,
        )?)),
        "allowed_tools" => {
            let allowed = allowed_tools(choice, toolbox)?;
            toolbox.functions.retain(|tool| {
                let name = tool["function"]["name"].as_str();
                name.is_some_and(|name| allowed.contains(name))
            });
            match choice.string("mode")? {
                None | Some("auto") => Ok(ToolChoice::Auto),
                Some("required") => Ok(ToolChoice::Required),
                Some(_) => Err(choice.invalid("mode", "must be 'auto' or 'required'")),
            }
        }
        _ => {
            let explanation = "only 'function', 'custom' and 'allowed_tools' are available";
            Err(choice.unsupported("type", explanation))
        }
    }
}

/// The functions of the allowed tools. Tools that are unavailable are passed over.
fn allowed_tools(choice: &Fields<'_>, toolbox: &Toolbox) -> Result<BTreeSet<String>, ApiError> {
    let elements = choice.array("tools", MAX_TOOLS)?;
    let elements = elements.ok_or_else(|| choice.missing("tools"))?;
    let path = choice.path("tools");
    let mut allowed = BTreeSet::new();
    for (index, value) in elements.iter().enumerate() {
        let tool = Fields::of_value(value, element(&path, index))?;
        let kind = match tool.string("type")?.ok_or_else(|| tool.missing("type"))? {
            "function" => ToolKind::Function,
            "custom" => ToolKind::Custom,
            _ => continue,
        };
        allowed.insert(named(&tool, toolbox, kind)?);
    }
    Ok(allowed)
}

/// The function of the tool that `reference` names.
fn named(reference: &Fields<'_>, toolbox: &Toolbox, kind: ToolKind) -> Result<String, ApiError> {
    let name = reference.label("name", MAX_LABEL_BYTES)?;
    let name = name.ok_or_else(|| reference.missing("name"))?;
    let namespace = reference.label("namespace", MAX_LABEL_BYTES)?;
    let function = function_name(namespace, name);
    match toolbox.offers(&function, kind) {
        true => Ok(function),
        false => Err(reference.invalid("name", "must be the name of one of the tools")),
    }
}
