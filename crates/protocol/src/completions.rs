//! The body of `POST /v1/completions`, parsed once.

use serde_json::Value;

use crate::error::ApiError;
use crate::fields::{Fields, element, parse_body};
use crate::limits::{
    MAX_LABEL_BYTES, MAX_PROMPT_TOKENS, MAX_PROMPTS, MAX_SEQUENCES, MAX_TOP_LOGPROBS,
};
use crate::output_format::refuse_output_format;
use crate::sampling::{
    SamplingFields, StreamOptions, parse_priority, parse_stream, parse_token_ids,
};
use crate::unsupported;

/// Tokens that a request gets which does not say how many, as OpenAI has it.
const DEFAULT_MAX_TOKENS: u32 = 16;

/// One prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompletionPrompt {
    /// Text, possibly empty.
    Text(String),
    /// At least one token id, unchecked against the vocabulary.
    Tokens(Vec<u32>),
}

/// A completion request that holds nothing the server would have to refuse, apart from what
/// depends on the model: its name, its vocabulary and its context length.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidCompletionRequest {
    /// The model that was asked for, if any.
    pub model: Option<String>,
    /// At least one prompt. Choice `c` of prompt `p` has the index `p * n + c`.
    pub prompts: Vec<CompletionPrompt>,
    /// What stands behind the text that is to be written; not empty. Each prompt stands before it.
    pub suffix: Option<String>,
    /// How to sample and when to stop.
    pub sampling: SamplingFields,
    /// `Some` if the answer is to be streamed.
    pub stream: Option<StreamOptions>,
    /// The answer begins with the prompt, and so do its log-probabilities.
    pub echo: bool,
    /// Text prompts get the tokenizer's special tokens, such as the one that begins a sequence.
    pub add_special_tokens: bool,
    /// Lower runs earlier.
    pub priority: i32,
    /// Whom the client serves.
    pub user: Option<String>,
}

impl ValidCompletionRequest {
    /// Parses a body; every error is a 400 that names the field.
    pub fn from_bytes(body: &[u8]) -> Result<Self, ApiError> {
        Self::from_value(&parse_body(body)?)
    }

    /// As [`ValidCompletionRequest::from_bytes`], from JSON that is parsed already.
    pub fn from_value(body: &Value) -> Result<Self, ApiError> {
        let body = &Fields::of_body(body)?;
        let prompts = parse_prompts(body, "prompt", MAX_PROMPTS)?;
        unsupported::check(body)?;
        refuse_output_format(body)?;
        let logprobs = body.unsigned("logprobs", 0..=MAX_TOP_LOGPROBS)?;
        let echo = body.flag("echo", false)?;
        let suffix = parse_suffix(body, echo && logprobs.is_some())?;
        // An answer of nothing but the prompt makes sense, one of nothing at all does not.
        let sampling = SamplingFields {
            prompt_logprobs: logprobs.filter(|_| echo),
            stop_token_logprobs: true,
            // Whoever asks for no limit (-1) has said so.
            default_max_tokens: body
                .get("n_predict")
                .is_none()
                .then_some(DEFAULT_MAX_TOKENS),
            ..SamplingFields::parse_from(body, logprobs, u32::from(!echo))?
        };
        let unsaid = sampling
            .default_max_tokens
            .filter(|_| sampling.max_tokens.is_none());
        if unsaid.is_some_and(|tokens| sampling.min_tokens > tokens) {
            let requirement = format!(
                "must not be greater than max_tokens, which is {DEFAULT_MAX_TOKENS} if it is not given"
            );
            return Err(body.invalid("min_tokens", &requirement));
        }
        if prompts.len() * sampling.choices as usize > MAX_SEQUENCES {
            let requirement =
                format!("times the number of prompts must be at most {MAX_SEQUENCES}");
            return Err(body.invalid("n", &requirement));
        }
        Ok(Self {
            model: body.label("model", MAX_LABEL_BYTES)?.map(str::to_owned),
            prompts,
            suffix,
            sampling,
            stream: parse_stream(body)?,
            echo,
            add_special_tokens: body.flag("add_special_tokens", true)?,
            priority: parse_priority(body)?,
            user: body.label("user", MAX_LABEL_BYTES)?.map(str::to_owned),
        })
    }
}

/// Nothing behind the middle is no middle.
fn parse_suffix(body: &Fields<'_>, rates_prompt: bool) -> Result<Option<String>, ApiError> {
    let suffix = body.string("suffix")?.filter(|suffix| !suffix.is_empty());
    if suffix.is_some() && rates_prompt {
        // The tokens of such a prompt are not those of its text.
        let explanation = "it cannot be combined with both 'echo' and 'logprobs'";
        return Err(body.unsupported("suffix", explanation));
    }
    Ok(suffix.map(str::to_owned))
}

/// What field `name` has: a string or a list of token ids; a list of either, of `length_max` elements, is a
/// batch. The first element of a list says which of the three it is.
pub(crate) fn parse_prompts(
    body: &Fields<'_>,
    name: &str,
    length_max: usize,
) -> Result<Vec<CompletionPrompt>, ApiError> {
    const REQUIREMENT: &str =
        "must be a string, an array of strings, an array of token ids, or an array of such arrays";
    let elements = match body.get(name) {
        None => return Err(body.missing(name)),
        Some(Value::String(text)) => return Ok(vec![CompletionPrompt::Text(text.clone())]),
        Some(Value::Array(elements)) => elements,
        Some(_) => return Err(body.invalid(name, REQUIREMENT)),
    };
    match elements.first() {
        None => Err(body.invalid(name, "must not be empty")),
        Some(Value::Number(_)) => Ok(vec![parse_tokens(elements, name)?]),
        Some(Value::String(_) | Value::Array(_)) => {
            let batch = body.array(name, length_max)?.unwrap_or_default();
            batch
                .iter()
                .enumerate()
                .map(|(index, value)| parse_batched(value, &element(name, index)))
                .collect()
        }
        Some(_) => Err(body.invalid(name, REQUIREMENT)),
    }
}

fn parse_batched(value: &Value, path: &str) -> Result<CompletionPrompt, ApiError> {
    match value {
        Value::String(text) => Ok(CompletionPrompt::Text(text.clone())),
        Value::Array(elements) => parse_tokens(elements, path),
        _ => Err(ApiError::invalid_field(
            path,
            "must be a string or an array of token ids",
        )),
    }
}

fn parse_tokens(elements: &[Value], path: &str) -> Result<CompletionPrompt, ApiError> {
    match elements.len() {
        0 => Err(ApiError::invalid_field(path, "must not be empty")),
        1..=MAX_PROMPT_TOKENS => Ok(CompletionPrompt::Tokens(parse_token_ids(elements, path)?)),
        _ => {
            let requirement = format!("must have at most {MAX_PROMPT_TOKENS} elements");
            Err(ApiError::invalid_field(path, &requirement))
        }
    }
}
