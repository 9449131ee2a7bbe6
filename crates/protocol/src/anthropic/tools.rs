//! Tool definitions, and the choice between them.

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::fields::{Fields, element};
use crate::limits::{MAX_LABEL_BYTES, MAX_MESSAGES, MAX_TOOL_NAME_BYTES, MAX_TOOLS};
use crate::tools::ToolChoice;

/// What a request offers to call.
#[derive(Default)]
pub(super) struct Offer {
    /// The tools in the form that chat templates read.
    pub(super) tools: Vec<Value>,
    /// The names of those that say `"strict": true`.
    pub(super) strict: Vec<String>,
}

pub(super) fn parse_tools(body: &Fields<'_>) -> Result<Offer, ApiError> {
    let elements = body.array("tools", MAX_TOOLS)?.unwrap_or_default();
    let mut offer = Offer::default();
    for (index, value) in elements.iter().enumerate() {
        offer.add(&Fields::of_value(value, element("tools", index))?)?;
    }
    offer.follow_changes(body)?;
    Ok(offer)
}

impl Offer {
    fn add(&mut self, fields: &Fields<'_>) -> Result<(), ApiError> {
        let tool = parse_tool(fields)?;
        if fields.flag("strict", false)? {
            self.strict.extend(tool_name(&tool).map(str::to_owned));
        }
        self.tools.push(tool);
        Ok(())
    }

    /// Tools come and go within a conversation: what counts is what is offered at its end. Tools that
    /// would run on Anthropic's servers are none that could come.
    fn follow_changes(&mut self, body: &Fields<'_>) -> Result<(), ApiError> {
        let messages = body.array("messages", MAX_MESSAGES)?.unwrap_or_default();
        let mut removed = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            let blocks = message["content"].as_array();
            for (place, block) in blocks.into_iter().flatten().enumerate() {
                let tool = &block["tool"];
                let name = tool["name"].as_str();
                match (block["type"].as_str(), tool["type"].as_str()) {
                    (Some("tool_addition"), Some("tool_definition")) => {
                        let path = format!("messages.{index}.content.{place}.tool.definition");
                        self.define(&tool["definition"], path)?;
                    }
                    (Some("tool_addition"), _) => {
                        let known = removed.iter().position(|tool| tool_name(tool) == name);
                        self.tools.extend(known.map(|known| removed.remove(known)));
                    }
                    (Some("tool_removal"), _) => removed.extend(self.take(name)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn define(&mut self, definition: &Value, path: String) -> Result<(), ApiError> {
        if !definition["type"].is_null() && definition["type"] != "custom" {
            return Ok(());
        }
        // A conversation may define a tool anew.
        let _ = self.take(definition["name"].as_str());
        if self.tools.len() == MAX_TOOLS {
            let requirement = format!("must be one of at most {MAX_TOOLS} tools");
            return Err(ApiError::invalid_field(path, &requirement));
        }
        self.add(&Fields::of_value(definition, path)?)
    }

    /// Takes the tool of this name out of the offer.
    fn take(&mut self, name: Option<&str>) -> Option<Value> {
        let known = self.tools.iter().position(|tool| tool_name(tool) == name)?;
        Some(self.tools.remove(known))
    }
}

fn tool_name(tool: &Value) -> Option<&str> {
    tool["function"]["name"].as_str()
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
    Ok(json!({
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": schema.entries(),
        },
    }))
}

pub(super) fn parse_tool_choice(
    body: &Fields<'_>,
    tools: &[Value],
) -> Result<ToolChoice, ApiError> {
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
        Some("any") => Ok(ToolChoice::Required),
        Some("tool") => {
            let name = choice
                .label("name", MAX_LABEL_BYTES)?
                .ok_or_else(|| choice.missing("name"))?;
            match tools.iter().any(|tool| tool_name(tool) == Some(name)) {
                true => Ok(ToolChoice::Function(name.to_owned())),
                false => Err(choice.invalid("name", "must be the name of one of the tools")),
            }
        }
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
