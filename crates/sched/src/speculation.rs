//! Guesses at the tokens that come next.

use backstop_types::TokenId;

/// Where guesses come from. They are checked by the model itself, so that answers do not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speculation {
    /// The tokens that the sequence already has.
    PromptLookup(PromptLookup),
    /// The executor, which proposes tokens with those that it samples
    /// ([`TokenSample::proposal`](backstop_types::TokenSample)).
    Proposals {
        /// Tokens that are guessed at once.
        max_draft_tokens: u32,
    },
}

impl Speculation {
    /// Tokens that are guessed at once.
    pub fn max_draft_tokens(&self) -> u32 {
        match self {
            Self::PromptLookup(lookup) => lookup.max_draft_tokens,
            Self::Proposals { max_draft_tokens } => *max_draft_tokens,
        }
    }

    /// The same with no more tokens at once than this.
    pub fn at_most(mut self, most: u32) -> Self {
        let (Self::PromptLookup(PromptLookup {
            max_draft_tokens, ..
        })
        | Self::Proposals { max_draft_tokens }) = &mut self;
        *max_draft_tokens = most.min(*max_draft_tokens);
        self
    }
}

/// Prompt lookup (Saxena 2023): the guess is what followed an earlier occurrence of the last few
/// tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptLookup {
    /// Tokens that are guessed at once.
    pub max_draft_tokens: u32,
    /// Tokens that must agree at the least.
    pub min_ngram: u32,
    /// Tokens that are compared at most.
    pub max_ngram: u32,
}

impl PromptLookup {
    /// Writes at most `most` tokens that may follow `tokens` to `draft`.
    ///
    /// Of all earlier occurrences the one counts with which most tokens agree, then the one with
    /// most tokens behind it, then the latest.
    pub(crate) fn guess(&self, tokens: &[TokenId], most: u32, draft: &mut Vec<TokenId>) {
        draft.clear();
        let most = most.min(self.max_draft_tokens) as usize;
        let (Some((last, earlier)), true) = (tokens.split_last(), most > 0) else {
            return;
        };
        let (min_ngram, max_ngram) = (self.min_ngram as usize, self.max_ngram as usize);
        let mut best = (0, 0);
        let mut next = tokens.len();
        let mut end = earlier.len();
        while let Some(at) = earlier[..end].iter().rposition(|token| token == last) {
            let pairs = tokens[..=at].iter().rev().zip(tokens.iter().rev());
            let agreeing = pairs.take(max_ngram).take_while(|(a, b)| a == b).count();
            let followers = (earlier.len() - at).min(most);
            if agreeing >= min_ngram && (agreeing, followers) > best {
                best = (agreeing, followers);
                next = at + 1;
            }
            if best == (max_ngram, most) {
                break;
            }
            end = at;
        }
        draft.extend(tokens[next..].iter().take(most));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOKUP: PromptLookup = PromptLookup {
        max_draft_tokens: 3,
        min_ngram: 2,
        max_ngram: 4,
    };

    fn guess(tokens: &[TokenId], most: u32) -> Vec<TokenId> {
        let mut draft = vec![99];
        LOOKUP.guess(tokens, most, &mut draft);
        draft
    }

    #[test]
    fn no_more_is_guessed_at_once_than_the_executor_can_check() {
        let most = |speculation: Speculation| speculation.at_most(2).max_draft_tokens();
        assert_eq!(most(Speculation::PromptLookup(LOOKUP)), 2);
        let proposals = |max_draft_tokens| Speculation::Proposals { max_draft_tokens };
        assert_eq!(most(proposals(5)), 2);
        assert_eq!(most(proposals(1)), 1);
    }

    #[test]
    fn what_followed_before_is_guessed_to_follow_again() {
        assert_eq!(guess(&[1, 2, 3, 4, 5, 9, 1, 2], 8), [3, 4, 5]);
        assert_eq!(guess(&[1, 2, 3, 4, 5, 9, 1, 2], 1), [3]);
    }

    #[test]
    fn the_longest_agreement_counts_and_then_the_latest() {
        assert_eq!(guess(&[7, 1, 2, 5, 5, 1, 2, 6, 6, 7, 1, 2], 2), [5, 5]);
        assert_eq!(guess(&[1, 2, 5, 5, 1, 2, 6, 6, 1, 2], 2), [6, 6]);
        // Beyond `max_ngram` tokens agreement is not compared.
        let tokens = [0, 1, 2, 3, 4, 8, 8, 1, 2, 3, 4, 9, 9, 0, 1, 2, 3, 4];
        assert_eq!(guess(&tokens, 2), [9, 9]);
    }

    #[test]
    fn a_repetition_is_followed_as_far_as_it_may_be() {
        assert_eq!(guess(&[5, 5, 5, 5, 5, 5, 5], 8), [5, 5, 5]);
        assert_eq!(guess(&[5, 5, 5], 8), [5]);
    }

    #[test]
    fn without_an_occurrence_there_is_no_guess() {
        assert_eq!(guess(&[], 3), []);
        assert_eq!(guess(&[1], 3), []);
        assert_eq!(guess(&[1, 2, 3, 4], 3), []);
        assert_eq!(guess(&[9, 2, 3, 8, 2], 3), [], "one token is too few");
        assert_eq!(guess(&[1, 2, 3, 1, 2], 0), []);
    }
}
