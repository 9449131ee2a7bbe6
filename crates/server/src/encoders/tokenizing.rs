//! A request's texts as tokens of an encoder, within what it takes and within what one request may bring.

use backstop_protocol::ApiError;
use backstop_types::{EncoderInput, EncoderInputFault, TokenId};

use super::InstalledEncoder;

/// Tokens of all inputs of one request.
const TOGETHER_TOKENS_MAX: usize = 1 << 20;

/// How long texts may be cut.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cut {
    /// Tokens of an input, or of a pair, special tokens included.
    pub(crate) whole: Option<u32>,
    /// Tokens of the second text of a pair.
    pub(crate) document: Option<u32>,
}

impl Cut {
    /// Whether what is too long is cut rather than refused.
    fn is_allowed(self) -> bool {
        self.whole.is_some() || self.document.is_some()
    }
}

/// Makes the tokens of one request. Errors name the field at `path`.
pub(crate) struct Tokenizing<'a> {
    encoder: &'a InstalledEncoder,
    together: usize,
}

impl<'a> Tokenizing<'a> {
    pub(crate) fn new(encoder: &'a InstalledEncoder) -> Self {
        Self {
            encoder,
            together: 0,
        }
    }

    /// A text, with or without special tokens around it.
    pub(crate) fn text(
        &mut self,
        text: &str,
        add_special_tokens: bool,
        cut: Cut,
        path: impl Fn() -> String,
    ) -> Result<EncoderInput, ApiError> {
        let encoder = &self.encoder.served.encoder;
        let refused = |fault| self.refused(fault, path());
        let mut input = encoder.tokens(text, cut.is_allowed()).map_err(refused)?;
        let frame = || encoder.tokens("", true).unwrap_or_default().tokens;
        if !add_special_tokens {
            strip(&mut input.tokens, &frame());
        }
        let most = self.most(cut);
        if input.tokens.len() > most {
            match add_special_tokens {
                true => shorten(&mut input.tokens, &frame(), most),
                false => input.tokens.truncate(most),
            }
        }
        self.counted(input, path)
    }

    /// Tokens as the request has them.
    pub(crate) fn ids(
        &mut self,
        tokens: Vec<TokenId>,
        cut: Cut,
        path: impl Fn() -> String,
    ) -> Result<EncoderInput, ApiError> {
        check_known(self.encoder, &tokens, &path)?;
        let mut input = EncoderInput {
            tokens,
            second_segment: None,
        };
        let most = self.most(cut);
        if input.tokens.len() > most {
            if !cut.is_allowed() {
                let tokens = u32::try_from(input.tokens.len()).ok();
                return Err(self.refused(EncoderInputFault::TooLong { tokens }, path()));
            }
            input.tokens.truncate(most);
        }
        self.counted(input, path)
    }

    /// A query with a document; `frame` is the query with nothing.
    pub(crate) fn pair(
        &mut self,
        query: &str,
        document: &str,
        frame: &EncoderInput,
        cut: Cut,
        path: impl Fn() -> String,
    ) -> Result<EncoderInput, ApiError> {
        let encoder = &self.encoder.served.encoder;
        let refused = |fault| self.refused(fault, path());
        let mut input = encoder
            .pair_tokens(query, document, cut.is_allowed())
            .map_err(refused)?;
        let document_tokens = cut.document.map_or(usize::MAX, |tokens| tokens as usize);
        let most = self
            .most(cut)
            .min(frame.tokens.len().saturating_add(document_tokens));
        if input.tokens.len() > most {
            shorten(&mut input.tokens, &frame.tokens, most);
        }
        self.counted(input, path)
    }

    /// A query without a document, which has to leave room for one.
    pub(crate) fn query(&self, query: &str, cut: Cut) -> Result<EncoderInput, ApiError> {
        const PARAM: &str = "query";
        let encoder = &self.encoder.served.encoder;
        let frame = encoder
            .pair_tokens(query, "", false)
            .map_err(|fault| self.refused(fault, PARAM.to_owned()))?;
        let tokens = u32::try_from(frame.tokens.len()).ok();
        match frame.tokens.len() < self.most(cut) {
            true => Ok(frame),
            false => Err(self.refused(EncoderInputFault::TooLong { tokens }, PARAM.to_owned())),
        }
    }

    /// Tokens of an input at most.
    fn most(&self, cut: Cut) -> usize {
        let takes = self.encoder.facts().max_tokens;
        cut.whole.map_or(takes, |whole| whole.min(takes)) as usize
    }

    fn refused(&self, fault: EncoderInputFault, path: String) -> ApiError {
        not_tokenized(self.encoder, fault, path)
    }

    fn counted(
        &mut self,
        input: EncoderInput,
        path: impl Fn() -> String,
    ) -> Result<EncoderInput, ApiError> {
        if input.tokens.is_empty() {
            return Err(ApiError::invalid_field(path(), "must not be empty"));
        }
        self.together += input.tokens.len();
        if self.together > TOGETHER_TOKENS_MAX {
            let path = path();
            let field = path.split('.').next().unwrap_or(&path);
            let requirement = format!("must have at most {TOGETHER_TOKENS_MAX} tokens in all");
            return Err(ApiError::invalid_field(field, &requirement));
        }
        Ok(input)
    }
}

/// The answer to a text that is no input.
pub(crate) fn not_tokenized(
    encoder: &InstalledEncoder,
    fault: EncoderInputFault,
    path: String,
) -> ApiError {
    match fault {
        EncoderInputFault::TooLong { tokens } => {
            ApiError::input_too_long(path, encoder.facts().max_tokens, tokens)
        }
        EncoderInputFault::NotTokenized => ApiError::invalid_field(path, "cannot be tokenised"),
    }
}

/// Refuses tokens that the model cannot read.
pub(crate) fn check_known(
    encoder: &InstalledEncoder,
    tokens: &[TokenId],
    path: impl Fn() -> String,
) -> Result<(), ApiError> {
    let vocabulary = encoder.facts().vocabulary;
    match tokens.iter().all(|token| *token < vocabulary) {
        true => Ok(()),
        false => Err(ApiError::invalid_field(
            path(),
            "must name tokens of the model's vocabulary",
        )),
    }
}

/// How many of the special tokens around nothing stand before a text.
fn before(tokens: &[TokenId], frame: &[TokenId]) -> usize {
    let pairs = tokens.iter().zip(frame);
    pairs
        .take_while(|(token, special)| token == special)
        .count()
}

/// Takes the special tokens away.
pub(crate) fn strip(tokens: &mut Vec<TokenId>, frame: &[TokenId]) {
    let before = before(tokens, frame);
    let behind = frame.len() - before;
    tokens.truncate(tokens.len().saturating_sub(behind).max(before));
    tokens.drain(..before);
}

/// Leaves `most` tokens: those behind are left out, but for the special ones at the end.
fn shorten(tokens: &mut Vec<TokenId>, frame: &[TokenId], most: usize) {
    let behind = &frame[before(tokens, frame)..];
    match most.checked_sub(behind.len()) {
        Some(kept) => {
            tokens.truncate(kept);
            tokens.extend_from_slice(behind);
        }
        None => tokens.truncate(most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_tokens_stay_around_what_is_shortened() {
        let cut = |most| {
            let mut tokens = vec![1, 7, 8, 9, 2];
            shorten(&mut tokens, &[1, 2], most);
            tokens
        };
        assert_eq!(cut(4), [1, 7, 8, 2]);
        assert_eq!(cut(2), [1, 2]);
        assert_eq!(cut(1), [2]);
        let mut of_a_pair = vec![1, 7, 2, 2, 8, 9, 2];
        shorten(&mut of_a_pair, &[1, 7, 2, 2, 2], 6);
        assert_eq!(of_a_pair, [1, 7, 2, 2, 8, 2]);
        let mut without_special_tokens = vec![7, 8, 9];
        shorten(&mut without_special_tokens, &[], 2);
        assert_eq!(without_special_tokens, [7, 8]);
    }

    #[test]
    fn special_tokens_are_taken_away() {
        let stripped = |mut tokens: Vec<TokenId>, frame: &[TokenId]| {
            strip(&mut tokens, frame);
            tokens
        };
        assert_eq!(stripped(vec![1, 7, 8, 2], &[1, 2]), [7, 8]);
        assert_eq!(stripped(vec![7, 8, 2], &[2]), [7, 8]);
        assert_eq!(stripped(vec![7, 8], &[]), [7, 8]);
        assert!(stripped(vec![1, 2], &[1, 2]).is_empty());
    }
}
