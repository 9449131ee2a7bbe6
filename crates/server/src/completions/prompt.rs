//! From a prompt as it was sent to its tokens, and to what an answer begins with that repeats it.

use std::sync::Arc;

use backstop_protocol::{ApiError, CompletionPrompt, ValidCompletionRequest};
use backstop_text::{PromptText, Tokenizer};
use backstop_types::TokenId;

use super::PARAM;
use crate::fim::Gap;
use crate::logprobs::RatedPrompt;
use crate::model::ServedModel;
use crate::prepare;

/// What an answer begins with.
#[derive(Clone)]
pub(super) struct Opening {
    /// The prompt.
    pub(super) text: String,
    /// Present if its log-probabilities are wanted.
    pub(super) rated: Option<RatedPrompt>,
}

impl Opening {
    /// The prompt as it was sent, or as its tokens say.
    pub(super) fn new(
        tokenizer: &Tokenizer,
        tokens: &Arc<[TokenId]>,
        sent: Option<String>,
        rated: bool,
    ) -> Self {
        let is_added = |text: &String, token| {
            tokenizer.is_special(token) && !text.starts_with(&tokenizer.token_text(token))
        };
        let added = sent.as_ref().zip(tokens.first());
        let first_is_added = added.is_some_and(|(text, &first)| is_added(text, first));
        Self {
            // Every id was checked, so that decoding has no reason to fail.
            text: sent.unwrap_or_else(|| tokenizer.decode(tokens, false).unwrap_or_default()),
            rated: rated.then(|| RatedPrompt {
                tokens: Arc::clone(tokens),
                first_is_added,
                logprobs: Vec::new(),
            }),
        }
    }
}

/// A prompt for the model.
pub(super) struct Encoded {
    pub(super) tokens: Vec<TokenId>,
    /// What of it is repeated, if that is not what the tokens say.
    pub(super) echo: Option<String>,
}

/// Encodes a prompt, or what stands before a gap.
pub(super) fn encode(
    model: &ServedModel,
    request: &ValidCompletionRequest,
    prompt: CompletionPrompt,
    gap: Option<&Gap<'_>>,
) -> Result<Encoded, ApiError> {
    let special = request.add_special_tokens;
    match (prompt, gap) {
        (CompletionPrompt::Text(text), None) => {
            let text = PromptText::raw(text);
            Ok(Encoded {
                tokens: prepare::encode(model, &text, special, PARAM)?,
                echo: Some(text.into_string()),
            })
        }
        (CompletionPrompt::Tokens(tokens), None) => Ok(Encoded { tokens, echo: None }),
        (CompletionPrompt::Text(text), Some(gap)) => {
            let text = model.control_texts.as_text(text);
            let prefix = prepare::encode(model, &text, false, PARAM)?;
            Ok(Encoded {
                tokens: gap.prompt_behind(prefix, special)?,
                echo: Some(text.into_string()),
            })
        }
        (CompletionPrompt::Tokens(prefix), Some(gap)) => {
            prepare::check_known(model, &prefix, PARAM)?;
            Ok(Encoded {
                // Every id was checked, so that decoding has no reason to fail.
                echo: Some(model.tokenizer.decode(&prefix, false).unwrap_or_default()),
                tokens: gap.prompt_behind(prefix, special)?,
            })
        }
    }
}
