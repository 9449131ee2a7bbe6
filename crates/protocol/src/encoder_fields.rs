//! What requests for embeddings and for rankings have in common.

use serde::Serialize;
use serde_json::Value;

use crate::error::ApiError;
use crate::fields::Fields;
use crate::limits::MAX_TOKEN_NUMBER;

/// Known fields that change the answer, each with the only values that are available here.
const ONLY: &[(&str, &[&str])] = &[
    ("embed_dtype", &["float32"]),
    ("endianness", &["native", "little"]),
    ("padding", &["do_not_pad"]),
    ("truncation_side", &["right"]),
];
/// Fields that are true by default: what they switch off cannot be switched off here.
const NOT_TO_BE_SWITCHED_OFF: &[&str] = &["normalize", "use_activation"];

/// Tokens of an answer for which nothing is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EncoderUsage {
    prompt_tokens: u32,
    total_tokens: u32,
}

impl EncoderUsage {
    /// The usage of inputs of so many tokens, special tokens included.
    pub fn new(prompt_tokens: u32) -> Self {
        Self {
            prompt_tokens,
            total_tokens: prompt_tokens,
        }
    }
}

/// Refuses what is known and not available.
pub(crate) fn check(body: &Fields<'_>) -> Result<(), ApiError> {
    for (name, available) in ONLY {
        let asked = body.string(name)?;
        if asked.is_some_and(|asked| !available.contains(&asked)) {
            let explanation = format!("only \"{}\" is available", available.join("\" or \""));
            return Err(body.unsupported(name, &explanation));
        }
    }
    for name in NOT_TO_BE_SWITCHED_OFF {
        if body.get(name) == Some(&Value::Bool(false)) {
            return Err(body.unsupported(name, "only true is available"));
        }
    }
    Ok(())
}

/// To how many tokens longer inputs are cut, if at all. What is more than the model takes stands for as many
/// as it takes, and so does -1.
pub(crate) fn parse_truncation(body: &Fields<'_>) -> Result<Option<u32>, ApiError> {
    const NAME: &str = "truncate_prompt_tokens";
    match body.integer(NAME, -1..=MAX_TOKEN_NUMBER)? {
        None => Ok(None),
        Some(-1) => Ok(Some(u32::MAX)),
        Some(0) => Err(body.invalid(NAME, "must be -1 or a positive number of tokens")),
        Some(tokens) => Ok(u32::try_from(tokens).ok()),
    }
}
