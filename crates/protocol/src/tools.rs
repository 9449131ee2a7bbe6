//! Tool definitions, and the choice between them.

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::fields::{Fields, element};
use crate::limits::{MAX_TOOL_NAME_BYTES, MAX_TOOLS};

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

/// What a request offers to call, and how.
pub(crate) struct ToolOffer {
    /// The tools in the form that chat templates read: each is
    /// `{"type": "function", "function": {"name", "description", "parameters"}}` with all set.
    pub(crate) tools: Vec<Value>,
    /// The names of those that say `"strict": true`.
    pub(crate) strict: Vec<String>,
    pub(crate) choice: ToolChoice,
    /// The names that the choice is limited to.
    pub(crate) allowed: Option<Vec<String>>,
    /// They came as `functions`.
    pub(crate) legacy: bool,
}

/// What `tools` offer, or `functions`, and the choice between them.
pub(crate) fn parse_tools(body: &Fields<'_>) -> Result<ToolOffer, ApiError> {
    let mut offer = parse_offered_tools(body)?;
    let functions = body.array("functions", MAX_TOOLS)?.unwrap_or_default();
    if !functions.is_empty() && !offer.tools.is_empty() {
        return Err(body.invalid("functions", "must not be set together with tools"));
    }
    offer.legacy = !functions.is_empty();
    for (index, value) in functions.iter().enumerate() {
        offer.add(&Fields::of_value(value, element("functions", index))?)?;
    }
    offer.parse_choice(body)?;
    Ok(offer)
}

/// What `tools` alone offer; the choice is the model's.
pub(crate) fn parse_offered_tools(body: &Fields<'_>) -> Result<ToolOffer, ApiError> {
    let tools = body.array("tools", MAX_TOOLS)?.unwrap_or_default();
    let mut offer = ToolOffer {
        tools: Vec::with_capacity(tools.len()),
        strict: Vec::new(),
        choice: ToolChoice::Auto,
        allowed: None,
        legacy: false,
    };
    for (index, value) in tools.iter().enumerate() {
        let tool = Fields::of_value(value, element("tools", index))?;
        check_function_type(&tool)?;
        let function = tool
            .object("function")?
            .ok_or_else(|| tool.missing("function"))?;
        offer.add(&function)?;
    }
    Ok(offer)
}

impl ToolOffer {
    fn add(&mut self, function: &Fields<'_>) -> Result<(), ApiError> {
        let name = parse_tool_name(function)?;
        let description = function.string("description")?.unwrap_or_default();
        let parameters = match function.object("parameters")? {
            Some(parameters) => Value::Object(parameters.entries().clone()),
            None => json!({"type": "object", "properties": {}}),
        };
        if function.flag("strict", false)? {
            self.strict.push(name.to_owned());
        }
        self.tools.push(json!({
            "type": "function",
            "function": {"name": name, "description": description, "parameters": parameters},
        }));
        Ok(())
    }

    /// `auto` where the request does not say; without tools it means nothing.
    fn parse_choice(&mut self, body: &Fields<'_>) -> Result<(), ApiError> {
        const REQUIREMENT: &str = "must be 'auto', 'none', 'required', or an object that names one \
                                   of the request's tools";
        match body.get("tool_choice") {
            None => self.parse_legacy_choice(body)?,
            Some(Value::String(choice)) => {
                self.choice = match choice.as_str() {
                    "auto" => ToolChoice::Auto,
                    "none" => ToolChoice::None,
                    "required" | "any" => ToolChoice::Required,
                    _ => return Err(body.invalid("tool_choice", REQUIREMENT)),
                };
            }
            Some(value @ Value::Object(_)) => {
                let choice = Fields::of_value(value, body.path("tool_choice"))?;
                self.parse_choice_object(&choice)?;
            }
            Some(_) => return Err(body.invalid("tool_choice", REQUIREMENT)),
        }
        if self.choice == ToolChoice::Required && self.tools.is_empty() {
            return Err(body.invalid("tool_choice", "needs tools to choose from"));
        }
        Ok(())
    }

    fn parse_choice_object(&mut self, choice: &Fields<'_>) -> Result<(), ApiError> {
        match choice.string("type")? {
            None | Some("function") => {
                // The name stands in `function`, or directly in newer dialects.
                let nested = choice.object("function")?;
                let name = self.parse_known_name(nested.as_ref().unwrap_or(choice))?;
                self.choice = ToolChoice::Function(name);
            }
            Some("allowed_tools") => {
                let nested = choice.object("allowed_tools")?;
                self.parse_allowed(nested.as_ref().unwrap_or(choice))?;
            }
            Some("auto") => self.choice = ToolChoice::Auto,
            Some("none") => self.choice = ToolChoice::None,
            Some("required" | "any") => self.choice = ToolChoice::Required,
            Some(_) => {
                let explanation = "only 'function' and 'allowed_tools' are available";
                return Err(choice.unsupported("type", explanation));
            }
        }
        Ok(())
    }

    fn parse_allowed(&mut self, allowed: &Fields<'_>) -> Result<(), ApiError> {
        self.choice = match allowed.string("mode")? {
            None | Some("auto") => ToolChoice::Auto,
            Some("required") => ToolChoice::Required,
            Some(_) => return Err(allowed.invalid("mode", "must be 'auto' or 'required'")),
        };
        let path = allowed.path("tools");
        let tools = allowed.array("tools", MAX_TOOLS)?.unwrap_or_default();
        if tools.is_empty() {
            return Err(allowed.invalid("tools", "must name at least one tool"));
        }
        let names = tools.iter().enumerate().map(|(index, value)| {
            let tool = Fields::of_value(value, element(&path, index))?;
            check_function_type(&tool)?;
            let nested = tool.object("function")?;
            self.parse_known_name(nested.as_ref().unwrap_or(&tool))
        });
        self.allowed = Some(names.collect::<Result<_, _>>()?);
        Ok(())
    }

    /// `function_call`, which means something beside `functions` alone.
    fn parse_legacy_choice(&mut self, body: &Fields<'_>) -> Result<(), ApiError> {
        match body.get("function_call") {
            None => {}
            Some(Value::String(choice)) if choice == "auto" => {}
            Some(Value::String(choice)) if choice == "none" => self.choice = ToolChoice::None,
            Some(value @ Value::Object(_)) => {
                let choice = Fields::of_value(value, body.path("function_call"))?;
                self.choice = ToolChoice::Function(self.parse_known_name(&choice)?);
            }
            Some(_) => {
                let requirement = "must be 'auto', 'none', or an object that names a function";
                return Err(body.invalid("function_call", requirement));
            }
        }
        Ok(())
    }

    /// The name of one of the tools.
    fn parse_known_name(&self, fields: &Fields<'_>) -> Result<String, ApiError> {
        let name = fields
            .string("name")?
            .ok_or_else(|| fields.missing("name"))?;
        match self
            .tools
            .iter()
            .any(|tool| tool["function"]["name"] == name)
        {
            true => Ok(name.to_owned()),
            false => Err(fields.invalid("name", "must be the name of one of the request's tools")),
        }
    }
}

fn parse_tool_name<'a>(function: &Fields<'a>) -> Result<&'a str, ApiError> {
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
    Ok(name)
}

/// `type` may be left out; anything but a function is unknown to the chat templates.
fn check_function_type(fields: &Fields<'_>) -> Result<(), ApiError> {
    match fields.string("type")? {
        None | Some("function") => Ok(()),
        Some(_) => Err(fields.unsupported("type", "only 'function' is available")),
    }
}
