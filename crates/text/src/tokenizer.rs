//! The model's vocabulary: text to token ids, and each token's exact bytes.

mod added;
mod byte_pairs;
mod bytes;
mod contents;
mod directory;
mod listed;
mod pair_files;
mod pieces;
mod pre_tokenizers;
mod sentence_piece_model;
mod sentence_pieces;
mod tekken;

use std::path::Path;

use backstop_input::{ValueScan, read_file};
use backstop_types::TokenId;
use tokenizers::{Encoding, Token, Tokenizer as HfTokenizer};

pub use self::byte_pairs::BytePairVocabulary;
use self::bytes::ByteMapping;
pub use self::directory::VOCABULARY_FILES;
use self::pieces::Cuts;
pub use self::sentence_pieces::SentencePieceVocabulary;

/// A tokenizer as data, of either kind.
#[derive(Clone, Debug)]
pub enum Vocabulary {
    /// Byte-level pairs.
    BytePairs(BytePairVocabulary),
    /// SentencePiece.
    SentencePieces(SentencePieceVocabulary),
}

impl Vocabulary {
    /// The same in the format of `tokenizer.json`.
    fn to_json(&self) -> Result<String, TokenizerError> {
        let json = match self {
            Self::BytePairs(pairs) => pairs.to_json(),
            Self::SentencePieces(pieces) => pieces.to_json(),
        };
        json.map(|json| json.to_string())
            .map_err(TokenizerError::Load)
    }
}

/// Ids above this are a broken file, not a vocabulary; the largest known ones have 2^18 tokens.
const VOCAB_SIZE_MAX: usize = 1 << 24;

/// Longest file.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Values and keys of a file; a vocabulary has two for each token and up to three for each merge.
const JSON_VALUES_MAX: usize = 8 << 20;

/// Why a tokenizer could not be loaded or a text not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file could not be read.
    #[error("cannot read tokenizer file {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not a tokenizer that this build understands.
    #[error("cannot load tokenizer: {0}")]
    Load(String),
    /// The exact bytes of tokens cannot be known, because the decoder is of an unknown kind.
    #[error("tokenizer has a decoder that is not supported: {0}")]
    Decoder(String),
    /// A text could not be encoded.
    #[error("cannot tokenize text: {0}")]
    Encode(String),
    /// A text has more tokens than it may have.
    #[error("the text has {tokens} tokens or more")]
    TooLong {
        /// How many there are at least.
        tokens: usize,
    },
    /// A text has too many bytes without a place to cut it, and might have few enough tokens.
    #[error(
        "the text has no place to cut it within {} bytes",
        pieces::UNBROKEN_BYTES_MAX
    )]
    Unbroken,
    /// Tokens could not be decoded.
    #[error("cannot decode tokens: {0}")]
    Decode(String),
}

/// A tokenizer in the `tokenizer.json` format of Hugging Face.
///
/// Truncation and padding that the file may ask for are switched off: a prompt is never cut
/// silently. The length of the input is for the caller to limit.
pub struct Tokenizer {
    inner: HfTokenizer,
    /// Bytes of all tokens in the order of their ids; token `i` is `bytes[ends[i - 1]..ends[i]]`.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    flags: Vec<TokenFlags>,
    longest_token_bytes: usize,
    cuts: Cuts,
}

#[derive(Clone, Copy, Debug, Default)]
struct TokenFlags {
    known: bool,
    special: bool,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .finish()
    }
}

impl Tokenizer {
    /// Loads a `tokenizer.json` file, which must be a regular file of reasonable length.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let path = path.as_ref();
        let json = read_file(path, FILE_BYTES_MAX).map_err(|source| TokenizerError::Read {
            path: path.display().to_string(),
            source,
        })?;
        Self::from_json(&json)
    }

    /// Builds a tokenizer from its parts.
    pub fn from_vocabulary(vocabulary: &Vocabulary) -> Result<Self, TokenizerError> {
        Self::from_json(vocabulary.to_json()?.as_bytes())
    }

    /// Loads the contents of a `tokenizer.json` file.
    pub fn from_json(json: &[u8]) -> Result<Self, TokenizerError> {
        Self::from_inner(Self::parse(json)?)
    }

    fn parse(json: &[u8]) -> Result<HfTokenizer, TokenizerError> {
        let mut scan = ValueScan::default();
        scan.add(json);
        if scan.values() > JSON_VALUES_MAX {
            let reason = format!("it has more than {JSON_VALUES_MAX} JSON values");
            return Err(TokenizerError::Load(reason));
        }
        HfTokenizer::from_bytes(json).map_err(|error| TokenizerError::Load(error.to_string()))
    }

    fn from_inner(mut inner: HfTokenizer) -> Result<Self, TokenizerError> {
        let load_error = |error: tokenizers::Error| TokenizerError::Load(error.to_string());
        inner.with_truncation(None).map_err(load_error)?;
        inner.with_padding(None);
        let mapping = ByteMapping::from_decoder(inner.get_decoder())?;
        let highest_id = inner.get_vocab(true).into_values().max();
        let size = highest_id.map_or(0, |id| id as usize + 1);
        if size > VOCAB_SIZE_MAX {
            return Err(TokenizerError::Load(format!(
                "token id {} is too large",
                size - 1
            )));
        }
        let mut tokenizer = Self::index(inner, &mapping, size);
        tokenizer.cuts = Cuts::of(&tokenizer);
        Ok(tokenizer)
    }

    /// The contents of a `tokenizer.json` file that loads as this tokenizer, filler tokens apart.
    pub fn to_json(&self) -> Result<String, TokenizerError> {
        let written = self.inner.to_string(false);
        written.map_err(|error| TokenizerError::Load(error.to_string()))
    }

    fn index(inner: HfTokenizer, mapping: &ByteMapping, size: usize) -> Self {
        let added = inner.get_added_tokens_decoder();
        let mut bytes = Vec::with_capacity(size * 8);
        let mut ends = Vec::with_capacity(size);
        let mut flags = Vec::with_capacity(size);
        for id in 0..size as TokenId {
            let token = inner.id_to_token(id);
            let added_token = added.get(&id);
            if let Some(added_token) = added_token {
                bytes.extend_from_slice(added_token.content.as_bytes());
            } else if let Some(token) = &token {
                mapping.append_bytes(token, &mut bytes);
            }
            ends.push(bytes.len());
            flags.push(TokenFlags {
                known: token.is_some(),
                special: added_token.is_some_and(|token| token.special),
            });
        }
        let starts = std::iter::once(&0).chain(&ends);
        let lengths = ends.iter().zip(starts).map(|(end, start)| end - start);
        Self {
            longest_token_bytes: lengths.max().unwrap_or(0),
            inner,
            bytes,
            ends,
            flags,
            cuts: Cuts::default(),
        }
    }

    /// Gives the ids from the end of the vocabulary up to `size` a text of their own, such as
    /// ` #4096`, that no text is encoded to. For models whose weights are made up, and which may
    /// have more tokens than the tokenizer that stands in for theirs.
    #[must_use]
    pub fn with_filler_tokens(mut self, size: usize) -> Self {
        for id in self.vocab_size()..size.min(VOCAB_SIZE_MAX) {
            self.bytes.extend_from_slice(format!(" #{id}").as_bytes());
            self.ends.push(self.bytes.len());
            self.flags.push(TokenFlags {
                known: true,
                special: false,
            });
        }
        self
    }

    /// Encodes a text. The text of special tokens is recognised wherever it stands, as models'
    /// chat templates need; `add_special_tokens` lets the tokenizer add its own (such as a
    /// beginning-of-sequence token), which a rendered chat template already has.
    pub fn encode(
        &self,
        text: &str,
        add_special_tokens: bool,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        let encoding = self
            .inner
            .encode_fast(text, add_special_tokens)
            .map_err(|error| TokenizerError::Encode(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Lets the tokenizer add its own tokens to those of a text.
    pub(crate) fn with_special_tokens(
        &self,
        tokens: Vec<TokenId>,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        let as_token = |id| Token::new(id, String::new(), (0, 0));
        let encoding = Encoding::from_tokens(tokens.into_iter().map(as_token).collect(), 0);
        let encoding = self.inner.post_process(encoding, None, true);
        let encoding = encoding.map_err(|error| TokenizerError::Encode(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The texts of tokens that are taken from a text before it is cut, and whether they are
    /// special, in no order.
    pub(crate) fn added_tokens(&self) -> impl Iterator<Item = (String, bool)> {
        let added = self.inner.get_added_tokens_decoder();
        added
            .into_values()
            .map(|token| (token.content, token.special))
    }

    /// Decodes a whole text, as its beginning: decoders that strip a leading space do so. Use
    /// [`IncrementalDetokenizer`](crate::IncrementalDetokenizer) for the continuation of a prompt.
    pub fn decode(
        &self,
        tokens: &[TokenId],
        skip_special_tokens: bool,
    ) -> Result<String, TokenizerError> {
        self.inner
            .decode(tokens, skip_special_tokens)
            .map_err(|error| TokenizerError::Decode(error.to_string()))
    }

    /// The exact bytes of a token, which need not be whole characters.
    pub fn token_bytes(&self, token: TokenId) -> Option<&[u8]> {
        let index = token as usize;
        if !self.flags.get(index)?.known {
            return None;
        }
        let start = index
            .checked_sub(1)
            .map_or(0, |previous| self.ends[previous]);
        self.bytes.get(start..self.ends[index])
    }

    /// The text of a token by itself, as log-probabilities show it: bytes that are no whole
    /// character are replaced by U+FFFD.
    pub fn token_text(&self, token: TokenId) -> String {
        String::from_utf8_lossy(self.token_bytes(token).unwrap_or_default()).into_owned()
    }

    /// One more than the highest token id. Ids below it need not all be used.
    pub fn vocab_size(&self) -> usize {
        self.ends.len()
    }

    /// The id of a token, given as the vocabulary writes it.
    pub fn token_to_id(&self, token: &str) -> Option<TokenId> {
        self.inner.token_to_id(token)
    }

    /// A token as the vocabulary writes it, which for byte-level vocabularies is not its text.
    pub fn id_to_token(&self, token: TokenId) -> Option<String> {
        self.inner.id_to_token(token)
    }

    /// Whether the vocabulary marks this token as special: a control token, not text.
    pub fn is_special(&self, token: TokenId) -> bool {
        self.flags
            .get(token as usize)
            .is_some_and(|flags| flags.special)
    }
}

#[cfg(test)]
mod tests;
