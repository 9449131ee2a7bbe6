//! What another process needs in order to try grammars for the same model.

use std::sync::Arc;

use backstop_types::TokenId;
use serde::{Deserialize, Serialize};

use super::{ConstraintError, ConstraintFactory};
use crate::{Tokenizer, TokenizerError, chat_format};

/// Makes a [`ConstraintFactory`] like the one that it came from.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Recipe {
    /// The contents of a `tokenizer.json`.
    tokenizer: String,
    /// With the tokens that fill it up.
    tokenizer_size: usize,
    chat_format: String,
    eos_tokens: Vec<TokenId>,
    /// Logits of the model.
    vocabulary_size: usize,
}

/// Why a recipe makes no factory.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The tokenizer cannot be read or written.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// It is of another version of this program.
    #[error("there is no chat format of the name that the recipe has")]
    ChatFormat,
    /// The vocabulary cannot be constrained.
    #[error(transparent)]
    Vocabulary(#[from] ConstraintError),
}

impl Recipe {
    /// Writes down how to make a factory.
    pub fn of(factory: &ConstraintFactory) -> Result<Self, RecipeError> {
        Ok(Self {
            tokenizer: factory.tokenizer.to_json()?,
            tokenizer_size: factory.tokenizer.vocab_size(),
            chat_format: factory.format.id.to_owned(),
            eos_tokens: factory.eos_tokens.to_vec(),
            vocabulary_size: factory.vocabulary_size,
        })
    }

    /// Makes the factory; takes a moment for a large vocabulary.
    pub fn make(&self) -> Result<ConstraintFactory, RecipeError> {
        let tokenizer = Tokenizer::from_json(self.tokenizer.as_bytes())?;
        let tokenizer = tokenizer.with_filler_tokens(self.tokenizer_size);
        let format = chat_format(&self.chat_format).ok_or(RecipeError::ChatFormat)?;
        let factory = ConstraintFactory::new(
            Arc::new(tokenizer),
            format,
            &self.eos_tokens,
            self.vocabulary_size,
        );
        Ok(factory?)
    }
}
