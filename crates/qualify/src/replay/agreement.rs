//! How far two answers to one request are the same.

use std::collections::BTreeSet;

use backstop_client::{Answer, ToolCall};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Of each text, this much is compared: the time that takes grows with the square.
const TEXT_CHARACTERS_MAX: usize = 4000;
/// A JSON answer that nests more deeply is compared as text.
const JSON_BYTES_MAX: usize = 4 << 20;

/// What a request asks for that answers can agree in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) tools: bool,
    pub(crate) json: bool,
}

/// How far two whole answers are the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Text and calls, to the letter.
    pub same_answer: bool,
    /// Why they ended.
    pub same_finish_reason: bool,
    /// 1 less the share of characters that have to be changed to make one of the other; where there is text.
    pub text_similarity: Option<f64>,
    /// The texts are longer than what was compared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub text_cut: bool,
    /// Where tools were offered.
    pub tools: Option<ToolAgreement>,
    /// Where JSON was asked for.
    pub json: Option<JsonAgreement>,
}

/// How far calls are the same. In which order they stand does not matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolAgreement {
    /// Whether each called any.
    pub called: [bool; 2],
    /// The same tools, as often; where both called.
    pub same_names: Option<bool>,
    /// And with the same arguments, by value.
    pub same_arguments: Option<bool>,
}

/// How far JSON is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonAgreement {
    /// Whether each is JSON.
    pub valid: [bool; 2],
    /// The same keys in the same places; where both are.
    pub same_keys: Option<bool>,
    /// The same values.
    pub same_values: Option<bool>,
}

impl Asked {
    pub(crate) fn of(body: &Map<String, Value>) -> Self {
        let has = |name: &str| {
            body.get(name)
                .and_then(Value::as_array)
                .is_some_and(|offered| !offered.is_empty())
        };
        let format = body.get("response_format").map(|format| &format["type"]);
        Self {
            tools: has("tools") || has("functions"),
            json: matches!(
                format.and_then(Value::as_str),
                Some("json_object" | "json_schema")
            ),
        }
    }
}

impl Agreement {
    /// Of two whole answers.
    pub(crate) fn of(asked: Asked, a: &Answer, b: &Answer) -> Self {
        let has_text = !(a.text.is_empty() && b.text.is_empty());
        let (text_a, is_cut_a) = beginning(&a.text);
        let (text_b, is_cut_b) = beginning(&b.text);
        let essence = |calls: &[ToolCall]| -> Vec<(String, String)> {
            let calls = calls.iter();
            calls
                .map(|call| (call.name.clone(), call.arguments.clone()))
                .collect()
        };
        Self {
            same_answer: a.text == b.text && essence(&a.tool_calls) == essence(&b.tool_calls),
            same_finish_reason: a.finish_reason == b.finish_reason,
            text_similarity: has_text.then(|| strsim::normalized_levenshtein(text_a, text_b)),
            text_cut: is_cut_a || is_cut_b,
            tools: asked
                .tools
                .then(|| ToolAgreement::of(&a.tool_calls, &b.tool_calls)),
            json: asked.json.then(|| JsonAgreement::of(&a.text, &b.text)),
        }
    }
}

fn beginning(text: &str) -> (&str, bool) {
    match text.char_indices().nth(TEXT_CHARACTERS_MAX) {
        Some((end, _)) => (&text[..end], true),
        None => (text, false),
    }
}

impl ToolAgreement {
    fn of(a: &[ToolCall], b: &[ToolCall]) -> Self {
        let both = !a.is_empty() && !b.is_empty();
        Self {
            called: [!a.is_empty(), !b.is_empty()],
            same_names: both.then(|| pair_up(a, b, |_, _| true)),
            same_arguments: both.then(|| pair_up(a, b, same_arguments)),
        }
    }
}

/// Whether each call has a partner of its own that calls the same tool, and for which `is_same` holds.
fn pair_up(a: &[ToolCall], b: &[ToolCall], is_same: fn(&ToolCall, &ToolCall) -> bool) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut left: Vec<&ToolCall> = b.iter().collect();
    a.iter().all(|call| {
        let partner = left
            .iter()
            .position(|other| call.name == other.name && is_same(call, other));
        partner.map(|place| left.swap_remove(place)).is_some()
    })
}

fn same_arguments(a: &ToolCall, b: &ToolCall) -> bool {
    let parse = |call: &ToolCall| match call.arguments.trim() {
        "" => Some(Value::Object(Map::new())),
        text => json(text),
    };
    match (parse(a), parse(b)) {
        (Some(a), Some(b)) => is_same(&a, &b),
        (None, None) => a.arguments == b.arguments,
        _ => false,
    }
}

impl JsonAgreement {
    fn of(a: &str, b: &str) -> Self {
        let (a, b) = (json(a), json(b));
        let both = a.as_ref().zip(b.as_ref());
        Self {
            valid: [a.is_some(), b.is_some()],
            same_keys: both.map(|(a, b)| paths(a) == paths(b)),
            same_values: both.map(|(a, b)| is_same(a, b)),
        }
    }
}

fn json(text: &str) -> Option<Value> {
    if text.len() > JSON_BYTES_MAX {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// The same value: 1 is 1.0, and the order of keys does not matter.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, a)| b.get(name).is_some_and(|b| is_same(a, b)))
        }
        _ => a == b,
    }
}

/// Where keys are. Elements of an array are at the same place, however many they are.
fn paths(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![(String::new(), value)];
    while let Some((path, value)) = open.pop() {
        match value {
            Value::Object(entries) => {
                for (name, value) in entries {
                    let path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
                    open.push((path.clone(), value));
                    found.insert(path);
                }
            }
            Value::Array(elements) => {
                open.extend(elements.iter().map(|value| (format!("{path}/-"), value)));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests;
