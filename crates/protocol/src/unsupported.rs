//! Known fields that change the answer and that the server does not implement.
//!
//! Ignoring one of these would return an answer that looks right and is not what was asked for,
//! so each is a 400 that names it. Fields that merely tune or label are ignored instead.

use serde_json::Value;

use crate::error::ApiError;
use crate::fields::Fields;

/// Other servers' fields that constrain the output. They may be absent, null or empty.
const FOREIGN_GRAMMARS: &[&str] = &["grammar", "json_schema", "regex", "ebnf"];

/// Fields that restrict or measure tokens in ways that the sampler does not know.
const TOKEN_CONTROLS: &[&str] = &[
    "allowed_token_ids",
    "bad_words",
    "logits_processors",
    "prompt_logprobs",
    "truncate_prompt_tokens",
];

/// Checks the fields that no generating endpoint implements.
pub(crate) fn check(body: &Fields<'_>) -> Result<(), ApiError> {
    for name in FOREIGN_GRAMMARS {
        if body.get(name).is_some_and(is_set) {
            let explanation = "use 'response_format' or 'structured_outputs' instead";
            return Err(body.unsupported(name, explanation));
        }
    }
    for name in TOKEN_CONTROLS {
        if body.get(name).is_some_and(is_set) {
            return Err(body.unsupported(name, "this field is not supported"));
        }
    }
    Ok(())
}

/// Empty values ask for nothing.
pub(crate) fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(elements) => !elements.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}
