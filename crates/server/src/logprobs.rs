//! Log-probabilities of tokens in the forms of the two endpoints.

use backstop_protocol::{ChatLogprobs, CompletionLogprobs, TokenLogprob, TopLogprob};
use backstop_text::Tokenizer;
use backstop_types::{SampledToken, TokenId};

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

/// Collects log-probabilities for a completion, keeping count of where in its text each begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct CompletionOffsets {
    characters: usize,
}

impl CompletionOffsets {
    /// Log-probabilities of further tokens, or `None` if there is nothing to report.
    pub(crate) fn report(
        &mut self,
        tokenizer: &Tokenizer,
        tokens: &[SampledToken],
        alternatives: usize,
    ) -> Option<CompletionLogprobs> {
        let mut report = None;
        for token in tokens {
            let Some(logprobs) = &token.logprobs else {
                continue;
            };
            let text = tokenizer.token_text(token.id);
            let offset = self.characters;
            self.characters += text.chars().count();
            let top = logprobs.top.iter().take(alternatives);
            let top = top.map(|&(id, logprob)| (tokenizer.token_text(id), logprob));
            report.get_or_insert_with(CompletionLogprobs::default).push(
                text,
                logprobs.logprob,
                top,
                offset,
            );
        }
        report
    }
}
