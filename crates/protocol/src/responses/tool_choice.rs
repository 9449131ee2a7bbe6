//! Which of its tools the model may or must call.

use serde_json::Value;

use super::tools::{ToolKind, Toolbox, function_name};
use crate::error::ApiError;
use crate::fields::{Fields, element};
use crate::limits::{MAX_LABEL_BYTES, MAX_TOOLS};
use crate::tools::ToolChoice;

/// What a request says about calls.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Choice {
    pub(super) choice: ToolChoice,
    /// The functions that it is limited to.
    pub(super) allowed: Option<Vec<String>>,
}

impl From<ToolChoice> for Choice {
    fn from(choice: ToolChoice) -> Self {
        Self {
            choice,
            allowed: None,
        }
    }
}

/// Reads `tool_choice`.
pub(super) fn parse(body: &Fields<'_>, toolbox: &Toolbox) -> Result<Choice, ApiError> {
    const REQUIREMENT: &str =
        "must be 'auto', 'none', 'required' or an object that names the tools";
    let choice = match body.get("tool_choice") {
        None => Choice::default(),
        Some(Value::String(mode)) => match mode.as_str() {
            "auto" => ToolChoice::Auto.into(),
            "none" => ToolChoice::None.into(),
            "required" => ToolChoice::Required.into(),
            _ => return Err(body.invalid("tool_choice", REQUIREMENT)),
        },
        Some(choice @ Value::Object(_)) => {
            let choice = Fields::of_value(choice, body.path("tool_choice"))?;
            parse_object(&choice, toolbox)?
        }
        Some(_) => return Err(body.invalid("tool_choice", REQUIREMENT)),
    };
    let callable = choice
        .allowed
        .as_ref()
        .map_or(toolbox.functions.len(), Vec::len);
    match choice.choice {
        ToolChoice::Required if callable == 0 => {
            let explanation = "no function or custom tool is offered that could be called";
            Err(body.unsupported("tool_choice", explanation))
        }
        // None of the allowed tools is available.
        ToolChoice::Auto if choice.allowed.is_some() && callable == 0 => {
            Ok(ToolChoice::None.into())
        }
        _ => Ok(choice),
    }
}

fn parse_object(choice: &Fields<'_>, toolbox: &Toolbox) -> Result<Choice, ApiError> {
    let kind = choice.string("type")?;
    let kind = match kind.ok_or_else(|| choice.missing("type"))? {
        "function" => ToolKind::Function,
        "custom" => ToolKind::Custom,
        "allowed_tools" => {
            let allowed = Some(allowed_tools(choice, toolbox)?);
            let choice = match choice.string("mode")? {
                None | Some("auto") => ToolChoice::Auto,
                Some("required") => ToolChoice::Required,
                Some(_) => return Err(choice.invalid("mode", "must be 'auto' or 'required'")),
            };
            return Ok(Choice { choice, allowed });
        }
        _ => {
            let explanation = "only 'function', 'custom' and 'allowed_tools' are available";
            return Err(choice.unsupported("type", explanation));
        }
    };
    Ok(ToolChoice::Function(named(choice, toolbox, kind)?).into())
}

/// The functions of the allowed tools. Tools that are unavailable are passed over.
fn allowed_tools(choice: &Fields<'_>, toolbox: &Toolbox) -> Result<Vec<String>, ApiError> {
    let elements = choice.array("tools", MAX_TOOLS)?;
    let elements = elements.ok_or_else(|| choice.missing("tools"))?;
    let path = choice.path("tools");
    let mut allowed = Vec::with_capacity(elements.len());
    for (index, value) in elements.iter().enumerate() {
        let tool = Fields::of_value(value, element(&path, index))?;
        let kind = match tool.string("type")?.ok_or_else(|| tool.missing("type"))? {
            "function" => ToolKind::Function,
            "custom" => ToolKind::Custom,
            _ => continue,
        };
        allowed.push(named(&tool, toolbox, kind)?);
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
