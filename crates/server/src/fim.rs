//! Prompts by which the model fills in what stands between two texts, whichever endpoint asks.

use backstop_protocol::{ApiError, SamplingFields};
use backstop_text::{FimParts, FimTokens};
use backstop_types::TokenId;

use crate::model::ServedModel;
use crate::prepare;

/// Something to be written before a suffix.
pub(crate) struct Gap<'a> {
    model: &'a ServedModel,
    tokens: &'a FimTokens,
    suffix: Vec<TokenId>,
}

/// The tokens by which the model fills in the middle, or a 400 that names the field which asks for it.
pub(crate) fn tokens_of<'a>(
    model: &'a ServedModel,
    param: &'static str,
) -> Result<&'a FimTokens, ApiError> {
    model.fim.as_deref().ok_or_else(|| {
        let explanation = "the model's vocabulary has no tokens to fill in the middle with";
        ApiError::unsupported_field(param, explanation)
    })
}

/// The tokens that end a middle: those by which it is asked for do in any case, those that end a text
/// unless the request ignores them.
pub(crate) fn ends(
    model: &ServedModel,
    tokens: &FimTokens,
    fields: &SamplingFields,
) -> Vec<TokenId> {
    let ends_text =
        |token: &TokenId| model.eos_token_ids.contains(token) && !tokens.is_mark(*token);
    let ignored = |token: &&TokenId| fields.ignore_eos && ends_text(token);
    let ends = tokens.ends().iter().filter(|token| !ignored(token));
    ends.copied().collect()
}

/// Encodes a text that stands behind the middle; `tokens_max` of them are the context or more.
pub(crate) fn encode_suffix(
    model: &ServedModel,
    suffix: String,
    tokens_max: usize,
    param: &'static str,
) -> Result<Vec<TokenId>, ApiError> {
    let suffix = model.control_texts.as_text(suffix);
    let tokens = model.tokenizer.encode_continuation(&suffix, tokens_max);
    tokens.map_err(|error| prepare::not_encoded(model, &error, suffix.as_str().len(), param))
}

impl<'a> Gap<'a> {
    /// The gap before a suffix, which the request has in the field `suffix`.
    pub(crate) fn new(model: &'a ServedModel, suffix: String) -> Result<Self, ApiError> {
        const PARAM: &str = "suffix";
        let tokens = tokens_of(model, PARAM)?;
        let suffix = encode_suffix(model, suffix, model.max_model_len as usize, PARAM)?;
        Ok(Self {
            model,
            tokens,
            suffix,
        })
    }

    /// The prompt whose answer stands between these tokens and the suffix.
    pub(crate) fn prompt_behind(
        &self,
        prefix: Vec<TokenId>,
        add_special_tokens: bool,
    ) -> Result<Vec<TokenId>, ApiError> {
        let parts = FimParts {
            prefix,
            suffix: self.suffix.clone(),
            context: Vec::new(),
        };
        prompt(self.model, self.tokens, parts, add_special_tokens)
    }

    /// The tokens that end an answer.
    pub(crate) fn ends(&self, fields: &SamplingFields) -> Vec<TokenId> {
        ends(self.model, self.tokens, fields)
    }
}

/// The prompt that is made of these parts.
pub(crate) fn prompt(
    model: &ServedModel,
    tokens: &FimTokens,
    parts: FimParts,
    add_special_tokens: bool,
) -> Result<Vec<TokenId>, ApiError> {
    let prompt = tokens.prompt(&model.tokenizer, parts, add_special_tokens);
    prompt.map_err(|error| {
        tracing::error!(%error, "tokens could not be put around a prompt");
        ApiError::internal()
    })
}
