//! Log-probabilities of tokens in the forms of the two endpoints.

use std::sync::Arc;

use backstop_protocol::{ChatLogprobs, CompletionLogprobs, TokenLogprob, TopLogprob};
use backstop_text::Tokenizer;
use backstop_types::{SampledToken, TokenId, TokenLogprobs};

/// Log-probabilities for a chat, or `None` if there is nothing to report.
pub(crate) fn chat(
    tokenizer: &Tokenizer,
    tokens: &[SampledToken],
    alternatives: usize,
) -> Option<ChatLogprobs> {
    let content: Vec<TokenLogprob> = tokens
        .iter()
        .filter_map(|token| entry(tokenizer, token, alternatives))
        .collect();
    (!content.is_empty()).then_some(ChatLogprobs { content })
}

fn entry(tokenizer: &Tokenizer, token: &SampledToken, alternatives: usize) -> Option<TokenLogprob> {
    let logprobs = token.logprobs.as_ref()?;
    let top = logprobs
        .top
        .iter()
        .take(alternatives)
        .map(|&(id, logprob)| TopLogprob {
            token: tokenizer.token_text(id),
            logprob,
            bytes: bytes(tokenizer, id),
        });
    Some(TokenLogprob {
        token: tokenizer.token_text(token.id),
        logprob: logprobs.logprob,
        bytes: bytes(tokenizer, token.id),
        top_logprobs: top.collect(),
    })
}

fn bytes(tokenizer: &Tokenizer, token: TokenId) -> Option<Vec<u8>> {
    tokenizer.token_bytes(token).map(<[u8]>::to_vec)
}

/// Writes log-probabilities for a completion, keeping count of where in its text each token begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct CompletionLogprobsWriter {
    characters: usize,
    written: Option<CompletionLogprobs>,
}

impl CompletionLogprobsWriter {
    /// Adds the tokens of a prompt, all but the first of which have log-probabilities. A first
    /// token that is `added` to the text is not in it.
    pub(crate) fn add_prompt(
        &mut self,
        tokenizer: &Tokenizer,
        prompt: &RatedPrompt,
        alternatives: usize,
    ) {
        let Some((&first, others)) = prompt.tokens.split_first() else {
            return;
        };
        let offset = self.characters;
        if !prompt.first_is_added {
            self.characters += characters(tokenizer, first);
        }
        let written = self.written.get_or_insert_default();
        written.push_first(tokenizer.token_text(first), offset);
        for (&token, logprobs) in others.iter().zip(&prompt.logprobs) {
            self.add(tokenizer, token, logprobs, alternatives);
            self.characters += characters(tokenizer, token);
        }
    }

    /// Adds generated tokens. Special ones are not in the text if it `skips` them.
    pub(crate) fn add_generated(
        &mut self,
        tokenizer: &Tokenizer,
        tokens: &[SampledToken],
        alternatives: usize,
        skips: bool,
    ) {
        for token in tokens {
            let Some(logprobs) = &token.logprobs else {
                continue;
            };
            self.add(tokenizer, token.id, logprobs, alternatives);
            if !(skips && tokenizer.is_special(token.id)) {
                self.characters += characters(tokenizer, token.id);
            }
        }
    }

    fn add(
        &mut self,
        tokenizer: &Tokenizer,
        token: TokenId,
        logprobs: &TokenLogprobs,
        alternatives: usize,
    ) {
        let top = logprobs.top.iter().take(alternatives);
        let top = top.map(|&(id, logprob)| (tokenizer.token_text(id), logprob));
        let text = tokenizer.token_text(token);
        let written = self.written.get_or_insert_default();
        written.push(text, logprobs.logprob, top, self.characters);
    }

    /// What was added since the last call, or `None` if there is nothing to report.
    pub(crate) fn take(&mut self) -> Option<CompletionLogprobs> {
        self.written.take()
    }
}

/// A prompt with the log-probabilities of its tokens.
#[derive(Clone, Debug, Default)]
pub(crate) struct RatedPrompt {
    pub(crate) tokens: Arc<[TokenId]>,
    /// The tokenizer put the first token before the text.
    pub(crate) first_is_added: bool,
    /// Of all tokens but the first, as far as they have come.
    pub(crate) logprobs: Vec<TokenLogprobs>,
}

impl RatedPrompt {
    /// Whether all log-probabilities have come.
    pub(crate) fn is_complete(&self) -> bool {
        self.logprobs.len() + 1 >= self.tokens.len()
    }
}

/// Characters that begin in a token.
fn characters(tokenizer: &Tokenizer, token: TokenId) -> usize {
    let bytes = tokenizer.token_bytes(token).unwrap_or_default();
    let is_continuation = |byte: u8| byte & 0xc0 == 0x80;
    bytes.iter().filter(|&&byte| !is_continuation(byte)).count()
}
