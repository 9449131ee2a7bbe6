//! An encoder without a model: what it gives is a function of the tokens, which are bytes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backstop_types::{
    Encoder, EncoderFacts, EncoderInput, EncoderInputFault, EncoderKind, TokenId,
};

/// Tokens of an input at most.
pub(crate) const MAX_TOKENS: u32 = 64;
/// Numbers of a vector.
pub(crate) const DIMENSIONS: u32 = 8;
/// Begins an input.
pub(crate) const BEGIN: TokenId = 0;
/// Ends each text of an input.
pub(crate) const END: TokenId = 1;
/// Bytes begin here.
const FIRST_BYTE: TokenId = 2;
/// Token ids are below this.
pub(crate) const VOCABULARY: u32 = FIRST_BYTE + 256;

/// What it gives, and how it misbehaves: an input with `panic` in it makes it panic, one with `fail` fails, one with
/// `infinite` has a number that is none.
pub(crate) struct FakeEncoder {
    facts: EncoderFacts,
    /// Nothing is computed while this is set.
    pub(crate) stalled: AtomicBool,
    /// The texts of each batch that was begun.
    pub(crate) batches: Mutex<Vec<Vec<String>>>,
}

impl FakeEncoder {
    /// One that makes vectors, of which the first numbers are vectors too if it `shortens`.
    pub(crate) fn of_vectors(shortens: bool) -> Arc<Self> {
        let dimensions = DIMENSIONS;
        Self::of_kind(EncoderKind::Embedding {
            dimensions,
            shortens,
        })
    }

    /// One whose score is the number of bytes that a document shares with the query.
    pub(crate) fn of_scores() -> Arc<Self> {
        Self::of_kind(EncoderKind::Relevance)
    }

    fn of_kind(kind: EncoderKind) -> Arc<Self> {
        Arc::new(Self {
            facts: EncoderFacts {
                kind,
                max_tokens: MAX_TOKENS,
                vocabulary: VOCABULARY,
                architecture: "fake".to_owned(),
            },
            stalled: AtomicBool::new(false),
            batches: Mutex::default(),
        })
    }

    /// The texts of the batches so far.
    pub(crate) fn computed(&self) -> Vec<Vec<String>> {
        self.batches.lock().unwrap().clone()
    }

    /// The vector of these tokens.
    pub(crate) fn vector(tokens: &[TokenId]) -> Vec<f32> {
        let mut numbers = [0.0f32; DIMENSIONS as usize];
        for (place, token) in tokens.iter().enumerate() {
            let hash = (*token as usize + 1) * 31 + place * 7;
            numbers[hash % DIMENSIONS as usize] += (hash % 13) as f32 - 6.0;
        }
        let length = numbers.iter().map(|x| x * x).sum::<f32>().sqrt();
        numbers.iter().map(|x| x / length.max(1e-9)).collect()
    }

    fn row(&self, input: &EncoderInput) -> Vec<f32> {
        let text = self.text(&input.tokens);
        assert!(!text.contains("panic"), "as it was told");
        if text.contains("infinite") {
            return vec![f32::INFINITY; self.row_length()];
        }
        match input.second_segment {
            None => Self::vector(&input.tokens),
            Some(begin) => {
                let (query, document) = input.tokens.split_at(begin as usize);
                let shared = document
                    .iter()
                    .filter(|token| **token >= FIRST_BYTE && query.contains(token));
                vec![shared.count() as f32]
            }
        }
    }

    fn row_length(&self) -> usize {
        match self.facts.kind {
            EncoderKind::Embedding { dimensions, .. } => dimensions as usize,
            EncoderKind::Relevance => 1,
        }
    }

    fn within(
        &self,
        mut tokens: Vec<TokenId>,
        cut: bool,
    ) -> Result<Vec<TokenId>, EncoderInputFault> {
        let most = MAX_TOKENS as usize;
        match tokens.len() > most {
            true if cut => {
                tokens.truncate(most - 1);
                tokens.push(END);
                Ok(tokens)
            }
            true => Err(EncoderInputFault::TooLong {
                tokens: u32::try_from(tokens.len()).ok(),
            }),
            false => Ok(tokens),
        }
    }
}

fn bytes(text: &str) -> impl Iterator<Item = TokenId> {
    text.bytes().map(|byte| FIRST_BYTE + TokenId::from(byte))
}

impl Encoder for FakeEncoder {
    fn facts(&self) -> &EncoderFacts {
        &self.facts
    }

    fn tokens(&self, text: &str, truncate: bool) -> Result<EncoderInput, EncoderInputFault> {
        let tokens = [BEGIN].into_iter().chain(bytes(text)).chain([END]);
        Ok(EncoderInput {
            tokens: self.within(tokens.collect(), truncate)?,
            second_segment: None,
        })
    }

    fn pair_tokens(
        &self,
        query: &str,
        document: &str,
        truncate: bool,
    ) -> Result<EncoderInput, EncoderInputFault> {
        let mut tokens: Vec<TokenId> = [BEGIN].into_iter().chain(bytes(query)).collect();
        tokens.push(END);
        let second_segment = u32::try_from(tokens.len()).ok();
        if tokens.len() >= MAX_TOKENS as usize {
            return Err(EncoderInputFault::TooLong {
                tokens: second_segment,
            });
        }
        tokens.extend(bytes(document));
        tokens.push(END);
        Ok(EncoderInput {
            tokens: self.within(tokens, truncate)?,
            second_segment,
        })
    }

    fn text(&self, tokens: &[TokenId]) -> String {
        let bytes = tokens
            .iter()
            .filter_map(|token| token.checked_sub(FIRST_BYTE));
        let bytes: Vec<u8> = bytes.map(|byte| byte as u8).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn encode(&self, inputs: &[EncoderInput]) -> Result<Vec<Vec<f32>>, String> {
        let texts: Vec<String> = inputs
            .iter()
            .map(|input| self.text(&input.tokens))
            .collect();
        let failing = texts.iter().any(|text| text.contains("fail"));
        self.batches.lock().unwrap().push(texts);
        while self.stalled.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        match failing {
            true => Err("as it was told".to_owned()),
            false => Ok(inputs.iter().map(|input| self.row(input)).collect()),
        }
    }
}
