//! What the readers of all kinds of calls share: numbers and ids of calls, and what is known of
//! the tools on offer.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{ParsedEvent, ParserOptions, ToolCallIds, push_merged};
use crate::json_types::{JsonTypes, resolve};

/// The tools of a request, for formats whose answers cannot be read without them.
#[derive(Clone, Debug, Default)]
pub struct OfferedTools {
    /// The schemas of their parameters by name.
    parameters: Arc<BTreeMap<String, Value>>,
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

    /// The types that a parameter may have; any where that is not known.
    fn parameter_types(&self, tool: &str, parameter: &str) -> JsonTypes {
        let Some(document) = self.parameters.get(tool) else {
            return JsonTypes::ANY;
        };
        let listed = |schema: &'_ Value| schema.get("properties")?.get(parameter).cloned();
        let referred = document.get("$ref").and_then(Value::as_str);
        let referred = referred.and_then(|reference| resolve(reference, document));
        let schema = [Some(document), referred].into_iter().flatten();
        let schema = schema.clone().find_map(listed).or_else(|| {
            schema
                .clone()
                .find_map(|schema| schema.get("additionalProperties").cloned())
        });
        let types = schema.map(|schema| JsonTypes::of_schema(&schema, document));
        types.unwrap_or(JsonTypes::ANY)
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

    /// The types that a parameter may have; any where that is not known.
    pub(super) fn parameter_types(&self, tool: &str, parameter: &str) -> JsonTypes {
        self.tools.parameter_types(tool, parameter)
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

    use super::{JsonTypes, OfferedTools};

    #[test]
    fn a_parameter_has_the_types_of_its_schema() {
        let tool = |name: &str, parameters| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
        let listed = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/colour"}, "b": {}},
            "additionalProperties": {"type": "null"}, "$defs": {"colour": {"enum": ["red"]}}});
        let referred =
            json!({"$ref": "#/$defs/all", "$defs": {"all": listed, "colour": {"type": "boolean"}}});
        let tools = [
            tool("f", listed),
            tool("g", referred),
            json!({"type": "function"}),
            json!(1),
        ];
        let tools = OfferedTools::new(&tools);
        let cases = [
            ("f", "a", JsonTypes::STRING),
            ("f", "b", JsonTypes::ANY),
            ("f", "c", JsonTypes::NULL),
            ("g", "a", JsonTypes::BOOLEAN),
            ("g", "c", JsonTypes::NULL),
            ("h", "a", JsonTypes::ANY),
        ];
        for (tool, parameter, expected) in cases {
            assert_eq!(
                tools.parameter_types(tool, parameter),
                expected,
                "{tool} {parameter}"
            );
        }
    }
}
