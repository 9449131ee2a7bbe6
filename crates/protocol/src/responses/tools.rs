//! Tools in the form of this API, offered to the model as functions, and back again.
//!
//! The model knows functions alone. A custom tool becomes one with a single string, a namespace's
//! tools become functions with a prefix, and a tool search that the client runs becomes a
//! function of that name; the table says what a call of each stands for. Tools that OpenAI's
//! servers would run are not offered, and neither are clients' built-in shells, which only
//! OpenAI's own models know how to call.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::fields::{Fields, element};
use crate::limits::{MAX_LABEL_BYTES, MAX_TOOL_NAME_BYTES, MAX_TOOLS};

/// The function by which the model searches for tools.
pub(super) const TOOL_SEARCH: &str = "tool_search";

/// Tools that the model may do without: it is simply not told of them.
const UNAVAILABLE: [&str; 16] = [
    "apply_patch",
    "code_interpreter",
    "computer",
    "computer_use",
    "computer_use_preview",
    "file_search",
    "image_generation",
    "local_shell",
    "mcp",
    "programmatic_tool_calling",
    "shell",
    "web_fetch",
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
];

/// What kind of tool a function stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolKind {
    /// A function.
    Function,
    /// A tool that takes a text.
    Custom,
    /// The client's search for further tools.
    Search,
}

/// What the client calls a tool that the model knows as a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolOrigin {
    /// Which form its calls have.
    pub kind: ToolKind,
    /// Its name.
    pub name: String,
    /// The namespace that it is in.
    pub namespace: Option<String>,
}

/// What the functions that the model knows stand for, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolTable {
    origins: BTreeMap<String, ToolOrigin>,
}

impl ToolTable {
    /// What the model means by `name`; a name that nobody offered it is taken for a function.
    pub fn origin(&self, name: &str) -> ToolOrigin {
        let made_up = || ToolOrigin {
            kind: ToolKind::Function,
            name: name.to_owned(),
            namespace: None,
        };
        self.origins.get(name).cloned().unwrap_or_else(made_up)
    }
}

/// The tools of a request as they are read.
#[derive(Debug, Default)]
pub(super) struct Toolbox {
    /// In the form that chat templates read.
    pub(super) functions: Vec<Value>,
    /// The names of the functions whose arguments must satisfy their schemas.
    pub(super) strict: Vec<String>,
    /// As the client wrote them, without those that are unavailable.
    pub(super) echo: Vec<Value>,
    pub(super) table: ToolTable,
}

/// The name of a tool as the model knows it.
pub(super) fn function_name(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{namespace}.{name}"),
        None => name.to_owned(),
    }
}

impl Toolbox {
    /// Adds the tools in field `name`; returns the names of their functions.
    pub(super) fn add(&mut self, fields: &Fields<'_>, name: &str) -> Result<Vec<String>, ApiError> {
        let path = fields.path(name);
        let elements = fields.array(name, MAX_TOOLS)?.unwrap_or_default();
        let mut names = Vec::with_capacity(elements.len());
        for (index, value) in elements.iter().enumerate() {
            let tool = Fields::of_value(value, element(&path, index))?;
            if tool.string("type")? == Some("namespace") {
                names.extend(self.add_namespace(&tool)?);
            } else if let Some(added) = self.add_tool(&tool, None)? {
                names.push(added);
            } else {
                continue;
            }
            self.echo.retain(|known| known != value);
            self.echo.push(value.clone());
        }
        match self.functions.len().max(self.echo.len()) > MAX_TOOLS {
            true => Err(fields.invalid(name, &format!("must have at most {MAX_TOOLS} elements"))),
            false => Ok(names),
        }
    }

    /// Whether the model is offered a tool of this name and kind.
    pub(super) fn offers(&self, function: &str, kind: ToolKind) -> bool {
        let origin = self.table.origins.get(function);
        origin.is_some_and(|origin| origin.kind == kind)
    }

    fn add_namespace(&mut self, namespace: &Fields<'_>) -> Result<Vec<String>, ApiError> {
        let name = namespace
            .label("name", MAX_LABEL_BYTES)?
            .ok_or_else(|| namespace.missing("name"))?;
        let path = namespace.path("tools");
        let elements = namespace.array("tools", MAX_TOOLS)?.unwrap_or_default();
        let mut names = Vec::with_capacity(elements.len());
        for (index, value) in elements.iter().enumerate() {
            let tool = Fields::of_value(value, element(&path, index))?;
            names.extend(self.add_tool(&tool, Some(name))?);
        }
        Ok(names)
    }

    /// Adds one tool and returns its function's name, unless it is unavailable.
    fn add_tool(
        &mut self,
        tool: &Fields<'_>,
        namespace: Option<&str>,
    ) -> Result<Option<String>, ApiError> {
        let kind = tool.string("type")?.ok_or_else(|| tool.missing("type"))?;
        let kind = match kind {
            "function" => ToolKind::Function,
            "custom" => ToolKind::Custom,
            TOOL_SEARCH if tool.string("execution")? == Some("client") => ToolKind::Search,
            TOOL_SEARCH => return Ok(None),
            _ if UNAVAILABLE.contains(&kind) => return Ok(None),
            _ => {
                let explanation = "only 'function', 'custom', 'namespace' and 'tool_search' are \
                                   available";
                return Err(tool.unsupported("type", explanation));
            }
        };
        let name = match kind {
            ToolKind::Search => TOOL_SEARCH,
            _ => tool.string("name")?.ok_or_else(|| tool.missing("name"))?,
        };
        let function = function_name(namespace, name);
        check_name(tool, name, &function)?;
        let definition = json!({
            "type": "function",
            "function": {
                "name": function,
                "description": description(tool, kind)?,
                "parameters": parameters(tool, kind)?,
            },
        });
        let origin = ToolOrigin {
            kind,
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
        };
        self.strict.retain(|known| *known != function);
        if kind == ToolKind::Function && tool.flag("strict", false)? {
            self.strict.push(function.clone());
        }
        // A conversation may define a tool anew.
        if self
            .table
            .origins
            .insert(function.clone(), origin)
            .is_some()
        {
            let same = |known: &Value| known["function"]["name"] == function.as_str();
            self.functions.retain(|known| !same(known));
        }
        self.functions.push(definition);
        Ok(Some(function))
    }
}

fn check_name(tool: &Fields<'_>, name: &str, function: &str) -> Result<(), ApiError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !name.is_empty() && function.len() <= MAX_TOOL_NAME_BYTES && function.bytes().all(allowed) {
        return Ok(());
    }
    let requirement = format!(
        "must have 1 to {MAX_TOOL_NAME_BYTES} characters out of letters, digits, '_', '.' and \
         '-', its namespace included"
    );
    Err(tool.invalid("name", &requirement))
}

/// The grammar of a custom tool is part of its description: the model is told, not forced.
fn description(tool: &Fields<'_>, kind: ToolKind) -> Result<String, ApiError> {
    let given = tool.string("description")?.unwrap_or_default();
    if kind != ToolKind::Custom {
        return Ok(given.to_owned());
    }
    let mut description = format!("{given}\nWrite the text into the parameter 'input'.");
    if let Some(format) = tool.object("format")?
        && let Some(definition) = format.string("definition")?
    {
        let syntax = format.string("syntax")?.unwrap_or_default();
        description += &format!(" It has this grammar ({syntax}):\n{definition}");
    }
    Ok(description)
}

fn parameters(tool: &Fields<'_>, kind: ToolKind) -> Result<Value, ApiError> {
    if kind == ToolKind::Custom {
        return Ok(json!({
            "type": "object",
            "properties": {"input": {"type": "string"}},
            "required": ["input"],
            "additionalProperties": false,
        }));
    }
    Ok(match tool.object("parameters")? {
        Some(parameters) => Value::Object(parameters.entries().clone()),
        None => json!({"type": "object", "properties": {}}),
    })
}
