//! Known fields that change the answer and that the server does not implement.
//!
//! Ignoring one of these would return an answer that looks right and is not what was asked for,
//! so each is a 400 that names it. Fields that merely tune or label are ignored instead, and so are
//! those that only say how a field which is refused is to work (`mirostat_tau`, `dry_base`).

use serde_json::Value;

use crate::error::ApiError;
use crate::fields::Fields;

/// Grammars in dialects that are not understood here. They may be absent, null or empty.
const FOREIGN_GRAMMARS: &[&str] = &["grammar", "ebnf"];

/// Fields that restrict or measure tokens in ways that the sampler does not know, each with the
/// numbers that ask for nothing.
const TOKEN_CONTROLS: &[(&str, &[f64])] = &[
    ("allowed_token_ids", &[]),
    ("bad_words", &[]),
    ("custom_logit_processor", &[]),
    ("dry_multiplier", &[0.0]),
    ("dynatemp_range", &[0.0]),
    ("epsilon_cutoff", &[0.0]),
    ("eta_cutoff", &[0.0]),
    ("logits_processors", &[]),
    ("mirostat", &[0.0]),
    ("mirostat_mode", &[0.0]),
    ("n_probs", &[0.0]),
    ("no_repeat_ngram_size", &[0.0]),
    ("prompt_logprobs", &[]),
    ("return_hidden_states", &[]),
    ("return_tokens_as_token_ids", &[]),
    ("smoothing_factor", &[0.0]),
    ("tfs", &[1.0]),
    ("tfs_z", &[1.0]),
    ("top_a", &[0.0]),
    ("top_n_sigma", &[0.0, -1.0]),
    ("truncate_prompt_tokens", &[]),
    ("typical_p", &[1.0]),
    ("watermark", &[]),
    ("xtc_probability", &[0.0]),
];

/// Fields that want another model, another prompt, or another way to answer than this server has.
const OTHER_SERVICES: &[(&str, &str)] = &[
    ("adapter_id", "no adapters are loaded here"),
    (
        "deferred",
        "answers are not stored, so they cannot be fetched later",
    ),
    ("lora", "no adapters are loaded here"),
    ("lora_path", "no adapters are loaded here"),
    ("moderation", "no moderation model is available here"),
    (
        "safe_prompt",
        "no instructions are added here; write them yourself",
    ),
    ("safety_model", "no moderation model is available here"),
];

/// Fields that are true by default: what they switch off cannot be switched off here.
const NOT_TO_BE_SWITCHED_OFF: &[&str] = &["parse_tool_calls", "separate_reasoning"];

const USE_ANOTHER_FIELD: &str = "use 'response_format' or 'structured_outputs' instead";
const NOT_SUPPORTED: &str = "this field is not supported";
const ONLY_TRUE: &str = "only true is available";

/// A field that is known and that no generating endpoint implements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RefusedField {
    /// Its name.
    pub name: &'static str,
    /// What the error says of it.
    pub reason: &'static str,
    /// The numbers that ask for nothing, and are let through.
    pub neutral: &'static [f64],
}

/// All of them.
pub fn refused_fields() -> impl Iterator<Item = RefusedField> {
    let field = |name, reason| RefusedField {
        name,
        reason,
        neutral: &[],
    };
    let grammars = FOREIGN_GRAMMARS
        .iter()
        .map(move |name| field(name, USE_ANOTHER_FIELD));
    let controls = TOKEN_CONTROLS.iter().map(|(name, neutral)| RefusedField {
        name,
        reason: NOT_SUPPORTED,
        neutral,
    });
    let services = OTHER_SERVICES
        .iter()
        .map(move |(name, reason)| field(name, reason));
    let switches = NOT_TO_BE_SWITCHED_OFF
        .iter()
        .map(move |name| field(name, ONLY_TRUE));
    grammars.chain(controls).chain(services).chain(switches)
}

/// Checks the fields that no generating endpoint implements.
pub(crate) fn check(body: &Fields<'_>) -> Result<(), ApiError> {
    for name in FOREIGN_GRAMMARS {
        if body.get(name).is_some_and(is_set) {
            return Err(body.unsupported(name, USE_ANOTHER_FIELD));
        }
    }
    for (name, neutral) in TOKEN_CONTROLS {
        let is_neutral = |value: &Value| {
            value
                .as_f64()
                .is_some_and(|number| neutral.contains(&number))
        };
        let asked = body.get(name).filter(|value| !is_neutral(value));
        if asked.is_some_and(is_set) {
            return Err(body.unsupported(name, NOT_SUPPORTED));
        }
    }
    for (name, explanation) in OTHER_SERVICES {
        if body.get(name).is_some_and(is_set) {
            return Err(body.unsupported(name, explanation));
        }
    }
    for name in NOT_TO_BE_SWITCHED_OFF {
        if body.get(name) == Some(&Value::Bool(false)) {
            return Err(body.unsupported(name, ONLY_TRUE));
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
