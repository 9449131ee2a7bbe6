//! What a chat template understands as the arguments of a call.
//!
//! A model can have called a tool with something else than an object: text that is no JSON, a list.
//! Most templates write whatever it is; those that go through names and values fail on it.

use serde_json::{Map, Value, json};

use super::{ChatTemplate, ChatTemplateInput, to_jinja_all};

/// The name under which arguments that are no object are shown to a template that wants one.
const INVALID: &str = "invalid_arguments";

/// Which kinds of arguments a template writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArgumentRules {
    objects: bool,
    texts: bool,
    /// Lists, numbers and truth values.
    others: bool,
}

impl Default for ArgumentRules {
    fn default() -> Self {
        Self {
            objects: true,
            texts: true,
            others: true,
        }
    }
}

impl ArgumentRules {
    /// Lets a template render calls with each kind and looks for them.
    pub(super) fn of_template(template: &ChatTemplate) -> Self {
        const NEEDLE: &str = "needle7c2e";
        let shows = |arguments: Value| {
            let call = json!({"id": "probe4f1c", "type": "function",
                "function": {"name": "probe", "arguments": arguments}});
            let content = match template.rules.null_for_empty {
                true => Value::Null,
                false => Value::from(""),
            };
            let messages = [
                json!({"role": "user", "content": "a"}),
                json!({"role": "assistant", "content": content, "tool_calls": [call]}),
            ];
            let input = ChatTemplateInput::default();
            let rendered = template.render_messages(&input, to_jinja_all(&messages));
            rendered.is_ok_and(|text| text.contains(NEEDLE))
        };
        Self {
            objects: shows(json!({NEEDLE: NEEDLE})),
            texts: shows(NEEDLE.into()),
            others: shows(json!([NEEDLE])),
        }
    }

    /// The arguments as the template writes them. One that writes none gets them as they are.
    pub(super) fn adapt(self, arguments: Value) -> Value {
        let understood = match &arguments {
            Value::Object(_) => self.objects,
            Value::String(_) => self.texts,
            _ => self.others,
        };
        match (understood, self.objects, self.texts) {
            (false, true, _) => Value::Object(Map::from_iter([(INVALID.to_owned(), arguments)])),
            (false, false, true) => Value::String(arguments.to_string()),
            _ => arguments,
        }
    }
}
