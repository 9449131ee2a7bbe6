//! The contract between the server and whatever turns whole texts into vectors or scores.

use crate::TokenId;

/// What an encoder gives for an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderKind {
    /// A vector that stands for a text.
    Embedding {
        /// Numbers of a vector.
        dimensions: u32,
        /// The first numbers of a vector are a vector as well (Kusupati et al. 2022).
        shortens: bool,
    },
    /// How well a document answers a query: one number for a pair of texts.
    Relevance,
}

/// An encoder's sizes, which stay as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderFacts {
    /// What it gives.
    pub kind: EncoderKind,
    /// Tokens of an input, special tokens included.
    pub max_tokens: u32,
    /// Token ids are below this.
    pub vocabulary: u32,
    /// Name of the architecture, as in `model_type`.
    pub architecture: String,
}

/// A text, or a pair of texts, as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncoderInput {
    /// With special tokens as the model was trained on; not empty.
    pub tokens: Vec<TokenId>,
    /// Of a pair, where the segment of the second text begins.
    pub second_segment: Option<u32>,
}

/// Why an input could not be made into tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderInputFault {
    /// It has more tokens than [`EncoderFacts::max_tokens`].
    TooLong {
        /// How many, if it was counted to its end.
        tokens: Option<u32>,
    },
    /// The tokenizer failed.
    NotTokenized,
}

/// Texts as vectors, or pairs of texts as scores. Everything is computed on the calling thread (and on those that it
/// shares its work with), so callers queue.
pub trait Encoder: Send + Sync {
    /// Its sizes.
    fn facts(&self) -> &EncoderFacts;

    /// The tokens of a text. With `truncate`, those beyond [`EncoderFacts::max_tokens`] are left out.
    fn tokens(&self, text: &str, truncate: bool) -> Result<EncoderInput, EncoderInputFault>;

    /// The tokens of a pair of texts. The second is cut to what is left if `truncate`.
    fn pair_tokens(
        &self,
        query: &str,
        document: &str,
        truncate: bool,
    ) -> Result<EncoderInput, EncoderInputFault>;

    /// The text of tokens.
    fn text(&self, tokens: &[TokenId]) -> String;

    /// One row for each input: a vector, normalised if the model's files say so, or one score. Inputs are valid: not
    /// empty, not longer than [`EncoderFacts::max_tokens`], ids below [`EncoderFacts::vocabulary`].
    fn encode(&self, inputs: &[EncoderInput]) -> Result<Vec<Vec<f32>>, String>;
}
