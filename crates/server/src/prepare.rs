//! Parts of preparing a request, whichever endpoint it came through: the model's name, and prompts of
//! token ids that fit it.

use backstop_protocol::{ApiError, SamplingFields};
use backstop_text::{PromptText, TokenizerError};
use backstop_types::TokenId;

use crate::job::Prompt;
use crate::model::ServedModel;
use crate::sampling;

/// Contexts that a text may fill whose tokens are wanted, but no answer.
const COUNTED_CONTEXTS: usize = 4;
/// Tokens of all prompts of one request, unless the context is longer.
const PROMPTS_TOKENS_MAX: usize = 1 << 20;

/// The name that answers carry, if the model that was asked for is served.
pub(crate) fn resolve_model_name(
    model: &ServedModel,
    asked: Option<String>,
) -> Result<String, ApiError> {
    match asked.filter(|name| !name.is_empty()) {
        None => Ok(model.default_name().to_owned()),
        Some(name) if model.names().serve(&name) => Ok(name),
        Some(_) => Err(ApiError::model_not_found(model.default_name())),
    }
}

/// Encodes a prompt that is to be answered.
pub(crate) fn encode(
    model: &ServedModel,
    prompt: &PromptText,
    add_special_tokens: bool,
    param: &'static str,
) -> Result<Vec<TokenId>, ApiError> {
    let tokens_max = model.max_model_len as usize;
    encode_within(model, prompt, add_special_tokens, tokens_max, param)
}

/// Encodes a prompt whose tokens alone are wanted.
pub(crate) fn count(
    model: &ServedModel,
    prompt: &PromptText,
    add_special_tokens: bool,
    param: &'static str,
) -> Result<Vec<TokenId>, ApiError> {
    let tokens_max = counted_tokens_max(model);
    encode_within(model, prompt, add_special_tokens, tokens_max, param)
}

/// Tokens that are counted, or made text of, without being answered.
pub(crate) fn counted_tokens_max(model: &ServedModel) -> usize {
    model.max_model_len as usize * COUNTED_CONTEXTS
}

fn encode_within(
    model: &ServedModel,
    prompt: &PromptText,
    add_special_tokens: bool,
    tokens_max: usize,
    param: &'static str,
) -> Result<Vec<TokenId>, ApiError> {
    let tokenizer = &model.tokenizer;
    let tokens = tokenizer.encode_within(prompt, add_special_tokens, tokens_max);
    tokens.map_err(|error| not_encoded(model, &error, prompt.as_str().len(), param))
}

/// The answer to a text of so many bytes that could not be encoded.
pub(crate) fn not_encoded(
    model: &ServedModel,
    error: &TokenizerError,
    bytes: usize,
    param: &'static str,
) -> ApiError {
    match *error {
        TokenizerError::TooLong { tokens } => too_long(model, tokens, None, param),
        TokenizerError::Unbroken => ApiError::invalid_field(
            param,
            "has so long a stretch without a word or a line that ends that it cannot be tokenised",
        ),
        _ => {
            // The tokenizer's own words may repeat the text.
            tracing::warn!(param, bytes, "a text could not be tokenised");
            ApiError::invalid_field(param, "cannot be tokenised")
        }
    }
}

/// Refuses more prompts than one request may bring, all of them together.
pub(crate) fn check_together(
    model: &ServedModel,
    tokens: usize,
    param: &'static str,
) -> Result<(), ApiError> {
    let tokens_max = PROMPTS_TOKENS_MAX.max(model.max_model_len as usize);
    match tokens > tokens_max {
        true => {
            let requirement = format!("must have at most {tokens_max} tokens in all");
            Err(ApiError::invalid_field(param, &requirement))
        }
        false => Ok(()),
    }
}

/// Checks a prompt against vocabulary and context, and says when its answers end.
pub(crate) fn fit(
    model: &ServedModel,
    fields: &SamplingFields,
    tokens: Vec<TokenId>,
    param: &'static str,
) -> Result<Prompt, ApiError> {
    if tokens.is_empty() {
        return Err(ApiError::invalid_field(param, "must not be empty"));
    }
    check_known(model, &tokens, param)?;
    let room = (model.max_model_len as usize).saturating_sub(tokens.len());
    let room = u32::try_from(room).unwrap_or(u32::MAX);
    let max_tokens = match fields.max_tokens {
        _ if room == 0 => return Err(too_long(model, tokens.len(), None, param)),
        Some(asked) if asked > room => {
            return Err(too_long(model, tokens.len(), Some(asked), param));
        }
        Some(asked) => asked,
        None => room.min(fields.default_max_tokens.unwrap_or(room)),
    };
    let stop = sampling::stop_conditions(model, fields, max_tokens);
    Ok(Prompt {
        tokens: tokens.into(),
        stop,
        forced: None,
    })
}

/// Refuses tokens that the model cannot read.
pub(crate) fn check_known(
    model: &ServedModel,
    tokens: &[TokenId],
    param: &'static str,
) -> Result<(), ApiError> {
    match tokens.iter().all(|token| model.knows_token(*token)) {
        true => Ok(()),
        false => Err(ApiError::invalid_field(
            param,
            "must name tokens of the model's vocabulary",
        )),
    }
}

pub(crate) fn too_long(
    model: &ServedModel,
    prompt_tokens: usize,
    completion_tokens: Option<u32>,
    param: &'static str,
) -> ApiError {
    let prompt_tokens = u32::try_from(prompt_tokens).unwrap_or(u32::MAX);
    ApiError::context_length(param, model.max_model_len, prompt_tokens, completion_tokens)
}
