//! Pieces of the grammars in which chat formats write down what an answer may be.

use crate::Tokenizer;
use crate::constraint::literal;

/// The rule of any text, for grammars that refer to it.
pub(super) const ANY_TEXT: &str = "ANY_TEXT: /(?s:.*)/\n";

/// Writes tags as the vocabulary has them.
pub(super) struct Layout<'a> {
    tokenizer: &'a Tokenizer,
}

impl<'a> Layout<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer }
    }

    pub(super) fn has_token(&self, tag: &str) -> bool {
        self.tokenizer.token_to_id(tag).is_some()
    }

    /// A tag: its token, or its text where the vocabulary has no token for it.
    pub(super) fn tag(&self, tag: &str) -> String {
        match self.tokenizer.token_to_id(tag) {
            Some(token) => format!("<[{token}]>"),
            None => literal(tag),
        }
    }

    /// The rule `name`: any text up to and including the first `tag`.
    pub(super) fn any_text_until(&self, name: &str, tag: &str) -> String {
        match self.has_token(tag) {
            true => format!("{name}: ANY_TEXT {}\n", self.tag(tag)),
            false => format!("{name}[suffix={}]: /(?s:.*)/\n", literal(tag)),
        }
    }
}
