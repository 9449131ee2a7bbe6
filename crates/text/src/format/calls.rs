//! What the readers of all kinds of calls share: numbers and ids of calls, and what is known of
//! the tools on offer.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{ParsedEvent, ParserOptions, ToolCallIds, push_merged};

/// The tools of a request, for formats whose answers cannot be read without them.
#[derive(Clone, Debug, Default)]
pub struct OfferedTools {
    /// The schemas of their parameters by name.
    parameters: Arc<BTreeMap<String, Value>>,
}

/// What a parameter can be, as far as its schema says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ParameterType {
    /// A string and nothing else.
    String,
    /// A value of one of these types, as JSON Schema calls them.
    OneOf(Vec<String>),
    /// Anything.
    Any,
}

impl ParameterType {
    /// Whether the schema allows a value of this type.
    pub(super) fn allows(&self, value: &Value) -> bool {
        let types = match self {
            Self::Any => return true,
            Self::String => return value.is_string(),
            Self::OneOf(types) => types,
        };
        types.iter().any(|name| match name.as_str() {
            "string" => value.is_string(),
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            "number" => value.is_number(),
            "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            _ => false,
        })
    }
}

/// The types that a schema allows; `None` if it does not say.
fn types(schema: &Value) -> Option<Vec<String>> {
    if let Some(kind) = schema.get("type") {
        return match kind {
            Value::String(name) => Some(vec![name.clone()]),
            Value::Array(names) => names
                .iter()
                .map(|name| Some(name.as_str()?.to_owned()))
                .collect(),
            _ => None,
        };
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return Some(
            values
                .iter()
                .map(|value| type_of(value).to_owned())
                .collect(),
        );
    }
    if let Some(value) = schema.get("const") {
        return Some(vec![type_of(value).to_owned()]);
    }
    let branches = schema
        .get("anyOf")
        .or_else(|| schema.get("oneOf"))?
        .as_array()?;
    let branches: Option<Vec<Vec<String>>> = branches.iter().map(branch_types).collect();
    branches.map(|types| types.concat())
}

/// The types of a branch, which may not have branches of its own: depth is bounded.
fn branch_types(schema: &Value) -> Option<Vec<String>> {
    match schema.get("anyOf").or_else(|| schema.get("oneOf")) {
        Some(_) => None,
        None => types(schema),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl OfferedTools {
    /// Takes tools as the OpenAI API writes them.
    pub fn new(tools: &[Value]) -> Self {
        let entries = tools.iter().filter_map(|tool| {
            let function = tool.get("function")?;
            let name = function.get("name")?.as_str()?;
            let parameters = function.get("parameters").cloned();
            Some((name.to_owned(), parameters.unwrap_or_default()))
        });
        Self {
            parameters: Arc::new(entries.collect()),
        }
    }

    fn parameter_type(&self, tool: &str, parameter: &str) -> ParameterType {
        let schema = self.parameters.get(tool);
        let schema = schema.and_then(|schema| schema.get("properties")?.get(parameter));
        match schema.and_then(types) {
            None => ParameterType::Any,
            Some(types) if types.iter().all(|name| name == "string") => ParameterType::String,
            Some(types) => ParameterType::OneOf(types),
        }
    }
}

/// Numbers calls over a whole answer and reports them.
#[derive(Clone, Debug)]
pub(super) struct CallReporter {
    ids: ToolCallIds,
    tools: OfferedTools,
    next_index: usize,
    short_ids: bool,
}

impl CallReporter {
    pub(super) fn new(options: &ParserOptions) -> Self {
        Self {
            ids: options.tool_call_ids.clone(),
            tools: options.tools.clone(),
            next_index: 0,
            short_ids: false,
        }
    }

    /// Makes ids of nine letters and digits.
    pub(super) fn with_short_ids(self) -> Self {
        Self {
            short_ids: true,
            ..self
        }
    }

    /// Whether a tool is on offer; any may be where it is not known which are.
    pub(super) fn is_offered(&self, name: &str) -> bool {
        self.tools.parameters.is_empty() || self.tools.parameters.contains_key(name)
    }

    pub(super) fn parameter_type(&self, tool: &str, parameter: &str) -> ParameterType {
        self.tools.parameter_type(tool, parameter)
    }

    /// Begins a call, under the model's own id if that is to be kept.
    pub(super) fn start(&self, name: String, id: Option<String>, events: &mut Vec<ParsedEvent>) {
        let index = self.next_index;
        let id = id.unwrap_or_else(|| match self.short_ids {
            true => self.ids.short_id(index),
            false => self.ids.id(index),
        });
        push_merged(events, ParsedEvent::ToolCallStart { index, id, name });
    }

    /// Adds to the arguments of the call that was begun.
    pub(super) fn arguments(&self, delta: String, events: &mut Vec<ParsedEvent>) {
        let index = self.next_index;
        push_merged(events, ParsedEvent::ToolCallArgumentsDelta { index, delta });
    }

    /// Ends the call that was begun.
    pub(super) fn next(&mut self) {
        self.next_index += 1;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{OfferedTools, ParameterType};

    #[test]
    fn a_schema_tells_strings_from_the_rest() {
        let one_of = |names: &[&str]| {
            ParameterType::OneOf(names.iter().map(|name| (*name).to_owned()).collect())
        };
        let cases = [
            (json!({"type": "string"}), ParameterType::String),
            (
                json!({"type": "string", "enum": ["1"]}),
                ParameterType::String,
            ),
            (json!({"enum": ["a", "b"]}), ParameterType::String),
            (json!({"const": "a"}), ParameterType::String),
            (json!({"type": "integer"}), one_of(&["integer"])),
            (
                json!({"type": ["string", "null"]}),
                one_of(&["string", "null"]),
            ),
            (
                json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
                one_of(&["string", "null"]),
            ),
            (
                json!({"anyOf": [{"type": "string"}, {}]}),
                ParameterType::Any,
            ),
            (json!({"anyOf": [{"anyOf": []}]}), ParameterType::Any),
            (json!({"enum": ["a", 1]}), one_of(&["string", "number"])),
            (json!({"type": 7}), ParameterType::Any),
            (json!({}), ParameterType::Any),
            (json!(true), ParameterType::Any),
        ];
        for (schema, expected) in cases {
            let tool = json!({"type": "function", "function": {
                "name": "f", "parameters": {"type": "object", "properties": {"a": schema}}}});
            let tools = OfferedTools::new(&[tool, json!({"type": "function"}), json!(1)]);
            assert_eq!(tools.parameter_type("f", "a"), expected, "{schema}");
            assert_eq!(tools.parameter_type("f", "b"), ParameterType::Any);
            assert_eq!(tools.parameter_type("g", "a"), ParameterType::Any);
        }
        let number = one_of(&["integer", "null"]);
        for (value, allowed) in [
            (json!(3), true),
            (json!(3.5), false),
            (json!(null), true),
            (json!("3"), false),
        ] {
            assert_eq!(number.allows(&value), allowed, "{value}");
        }
    }
}
