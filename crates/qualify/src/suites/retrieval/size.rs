//! How many tokens a text is, learned from what the server counts of two short ones.

use crate::record::Reply;

/// Of a tokenizer that nobody knows: few enough characters that a text does not get too long.
const CHARACTERS_PER_TOKEN: f64 = 3.0;
const OVERHEAD_TOKENS: f64 = 100.0;

/// A line through two measurements: what the chat's template adds, and tokens of each character.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Size {
    /// What is there without any text.
    pub(crate) overhead: f64,
    per_character: f64,
    /// Whether the server counted.
    pub(crate) is_measured: bool,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            overhead: OVERHEAD_TOKENS,
            per_character: 1.0 / CHARACTERS_PER_TOKEN,
            is_measured: false,
        }
    }
}

impl Size {
    /// Of two chats: their characters, and the answers to them. If the server does not count, or counts nonsense, a careful
    /// guess has to do.
    pub(crate) fn learned(short: (usize, &Reply), long: (usize, &Reply)) -> Self {
        let tokens = |reply: &Reply| reply.usage.map(|usage| usage.prompt_tokens as f64);
        let (Some(few), Some(many)) = (tokens(short.1), tokens(long.1)) else {
            return Self::default();
        };
        let per_character = (many - few) / (long.0 as f64 - short.0 as f64);
        let overhead = few - per_character * short.0 as f64;
        // Nobody has a character in more than four tokens, or a thousand in one.
        if !(0.001..=4.0).contains(&per_character) {
            return Self::default();
        }
        Self {
            overhead: overhead.max(0.0),
            per_character,
            is_measured: true,
        }
    }

    /// Tokens of a text. Digits and capitals in needles can be tokens of their own, and count as such.
    pub(crate) fn of(&self, text: &str) -> f64 {
        let is_dense =
            |character: char| character.is_ascii_digit() || character.is_ascii_uppercase();
        let dense = text
            .chars()
            .filter(|character| is_dense(*character))
            .count();
        // Sentences have a blank between them, and begin with a capital.
        let plain = text.chars().count() + 2 - dense.min(text.chars().count());
        let dense = dense.saturating_sub(1) as f64;
        plain as f64 * self.per_character + dense * self.per_character.max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use backstop_client::Usage;

    use super::*;

    fn counted(prompt_tokens: u64) -> Reply {
        Reply {
            usage: Some(Usage {
                prompt_tokens,
                ..Usage::default()
            }),
            ..Reply::default()
        }
    }

    #[test]
    fn two_measurements_make_a_line() {
        let size = Size::learned((100, &counted(65)), (2100, &counted(565)));
        assert_eq!(size.overhead, 40.0);
        assert!(size.is_measured);
        let text = "a".repeat(998);
        assert_eq!(size.of(&text), 250.0);
        assert!(size.of("The code is 1234567.") > size.of("The code is abcdefg.") + 5.0);
    }

    #[test]
    fn a_server_that_does_not_count_is_guessed_at_carefully() {
        for (few, many) in [
            (Reply::default(), Reply::default()),
            (counted(100), Reply::default()),
            (counted(100), counted(100)),
            (counted(0), counted(1_000_000)),
            (counted(500), counted(100)),
        ] {
            assert_eq!(Size::learned((100, &few), (2100, &many)), Size::default());
        }
    }
}
