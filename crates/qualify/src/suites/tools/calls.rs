//! Whether calls are those that were expected: by name and by value, in any order.

use backstop_client::ToolCall;
use serde_json::Value;

use super::cases::{Case, ExpectedCall};
use crate::suites::conformance::violation;
use crate::suites::matching::{Expected, shortened};

/// What templates of models write around calls. In the text of an answer it means that the server did not understand them.
const MARKUP: [&str; 10] = [
    "<tool_call",
    "</tool_call>",
    "<function=",
    "<function_call",
    "<|tool_call",
    "<|START_ACTION|>",
    "<|python_tag|>",
    "[TOOL_CALLS]",
    "<｜tool▁call",
    "<|channel|>commentary to=functions",
];

/// Whether a text has a call's markup in it.
pub(crate) fn has_markup(text: &str) -> bool {
    MARKUP.iter().any(|markup| text.contains(markup))
}

/// What is wrong with a call by its schema alone, if anything is: no JSON, no such tool, other arguments.
pub(crate) fn invalid(case: &Case, call: &ToolCall) -> Option<String> {
    let Some(schema) = case.schema(&call.name) else {
        return Some(format!("there is no tool {:?}", shortened(&call.name)));
    };
    match serde_json::from_str(&call.arguments) {
        Ok(arguments) => violation(schema, &arguments)
            .map(|violation| format!("{}: {}", call.name, shortened(&violation))),
        Err(error) => Some(format!("{}: its arguments are no JSON: {error}", call.name)),
    }
}

/// Which expected call each call is.
///
/// # Errors
///
/// If they are not those that were expected; for people.
pub(crate) fn assign(
    case: &Case,
    expected: &[ExpectedCall],
    made: &[ToolCall],
) -> Result<Vec<usize>, String> {
    if let Some(reason) = made.iter().find_map(|call| invalid(case, call)) {
        return Err(reason);
    }
    if made.len() != expected.len() {
        return Err(format!("{} calls, not {}", made.len(), expected.len()));
    }
    let mut assigned = Vec::new();
    if assign_rest(case, expected, made, &mut assigned) {
        return Ok(assigned);
    }
    let reason = expected.iter().find_map(|expected| {
        let reasons: Vec<_> = made
            .iter()
            .map(|call| mismatch(case, expected, call))
            .collect();
        reasons
            .iter()
            .all(Option::is_some)
            .then(|| closest(expected, made, reasons))
    });
    Err(reason.unwrap_or_else(|| "two calls are the same one".into()))
}

fn closest(expected: &ExpectedCall, made: &[ToolCall], reasons: Vec<Option<String>>) -> String {
    let of_same_name = made
        .iter()
        .zip(reasons)
        .find(|(call, _)| call.name == expected.name);
    match of_same_name {
        Some((call, Some(reason))) => format!("{}: {reason}", call.name),
        _ => format!("{} was not called", expected.name),
    }
}

/// Tries all ways: an expected call with several right values could be met by another's call.
fn assign_rest(
    case: &Case,
    expected: &[ExpectedCall],
    made: &[ToolCall],
    assigned: &mut Vec<usize>,
) -> bool {
    let Some(call) = made.get(assigned.len()) else {
        return true;
    };
    for (index, candidate) in expected.iter().enumerate() {
        if !assigned.contains(&index) && mismatch(case, candidate, call).is_none() {
            assigned.push(index);
            if assign_rest(case, expected, made, assigned) {
                return true;
            }
            assigned.pop();
        }
    }
    false
}

fn mismatch(case: &Case, expected: &ExpectedCall, call: &ToolCall) -> Option<String> {
    if call.name != expected.name {
        return Some(format!("{} was called, not {}", call.name, expected.name));
    }
    let arguments = serde_json::from_str(&call.arguments);
    let Ok(mut arguments) = arguments else {
        return Some("its arguments are no JSON".into());
    };
    drop_defaults(case, expected, &mut arguments);
    expected
        .arguments
        .mismatch(&arguments, case.texts, "arguments")
}

/// An argument that nobody asked for says nothing if it is null or what the schema has as its default.
fn drop_defaults(case: &Case, expected: &ExpectedCall, arguments: &mut Value) {
    let (Expected::Object(members), Some(arguments), Some(schema)) = (
        &expected.arguments,
        arguments.as_object_mut(),
        case.schema(&expected.name),
    ) else {
        return;
    };
    arguments.retain(|name, value| {
        let default = &schema["properties"][name]["default"];
        members.contains_key(name) || !(value.is_null() || value == default)
    });
}
