//! The tokenizer that a GGUF file carries in its metadata.

use std::path::Path;

use backstop_text::{BytePairVocabulary, FimIds, SentencePieceVocabulary, Vocabulary};

use super::endings::Tokens;
use super::metadata::Metadata;
use crate::shard::Shard;
use crate::{EndToken, SpecialTokens, WeightsError};

/// Most tokens of any vocabulary; more are a broken file.
const TOKENS_MAX: usize = 1 << 24;

/// The tokenizer of a GGUF file.
#[derive(Clone, Debug)]
pub struct EmbeddedTokenizer {
    /// What a tokenizer is built from.
    pub vocabulary: Vocabulary,
    /// The tokens by which the model fills in the middle, as far as the file names them.
    pub fim: FimIds,
    /// The tokens that end an answer, the file's own end of a text first.
    pub ends: Vec<EndToken>,
}

/// What `tokenizer.ggml.token_type` says of a token, where that matters.
pub(super) mod kind {
    /// Text that merging makes.
    pub(in crate::gguf) const NORMAL: i64 = 1;
    /// Never text: marks the begin of a turn, for example.
    pub(in crate::gguf) const CONTROL: i64 = 3;
    /// Text that is always one token.
    pub(in crate::gguf) const USER_DEFINED: i64 = 4;
}

/// The special tokens.
#[derive(Clone, Debug, Default)]
pub(super) struct Special {
    pub(super) bos: Option<u32>,
    pub(super) padding: Option<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) texts: SpecialTokens,
}

impl Special {
    fn read(metadata: &mut Metadata, tokens: &[String]) -> Self {
        let mut id = |name: &str| token_id(metadata, name, tokens.len());
        let [bos, eos, padding, unknown] = ["bos", "eos", "padding", "unknown"].map(&mut id);
        let text = |id: Option<u32>| tokens.get(id? as usize).cloned();
        Self {
            bos,
            padding,
            unknown,
            texts: SpecialTokens {
                bos: text(bos),
                eos: text(eos),
                eos_file: "tokenizer.ggml.eos_token_id",
                pad: text(padding),
                unknown: text(unknown),
            },
        }
    }
}

impl EmbeddedTokenizer {
    /// Reads the tokenizer of a GGUF file, whatever model is in it.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let malformed = |reason: String| WeightsError::malformed(path, reason);
        let (_, header) = Shard::open_gguf(path)?;
        let mut metadata = Metadata::new(header.metadata);
        let (tokenizer, _) = Self::read(&mut metadata);
        metadata.finish().map_err(malformed)?;
        tokenizer.ok_or_else(|| malformed("there is no tokenizer in it".to_owned()))
    }

    /// Whether the file does not say how its model cut texts, as files of before May 2024 do not. What
    /// it is read with is llama.cpp's default, which is few models' own.
    pub fn names_no_rule(&self) -> bool {
        matches!(&self.vocabulary, Vocabulary::BytePairs(pairs) if pairs.pre_tokenizer.is_empty())
    }

    /// Problems are recorded in `metadata`.
    pub(super) fn read(metadata: &mut Metadata) -> (Option<Self>, Special) {
        let Some(model) = metadata.text("tokenizer.ggml.model") else {
            return (None, Special::default());
        };
        let tokens = metadata.texts("tokenizer.ggml.tokens").unwrap_or_default();
        if tokens.is_empty() || tokens.len() > TOKENS_MAX {
            metadata.problem(format!(
                "tokenizer.ggml.tokens has {} tokens; 1 to {TOKENS_MAX} are accepted",
                tokens.len()
            ));
        }
        let special = Special::read(metadata, &tokens);
        let fim = fim_ids(metadata, tokens.len());
        let kinds = kinds(metadata, tokens.len());
        let known = Tokens {
            texts: &tokens,
            kinds: kinds.as_deref(),
        };
        let ends = known.ends(metadata, &fim);
        let kinds = kinds.unwrap_or_else(|| vec![kind::NORMAL; tokens.len()]);
        let parts = Parts {
            tokens,
            kinds,
            special: &special,
        };
        let vocabulary = match model.as_str() {
            "gpt2" => Vocabulary::BytePairs(parts.byte_pairs(metadata)),
            "llama" => Vocabulary::SentencePieces(parts.sentence_pieces(metadata)),
            other => {
                let shown: String = other.chars().take(64).collect();
                metadata.problem(format!(
                    "tokenizer.ggml.model {shown:?} is not supported; supported are gpt2 \
                     (byte-level pairs) and llama (SentencePiece)"
                ));
                return (None, special);
            }
        };
        let tokenizer = Self {
            vocabulary,
            fim,
            ends,
        };
        (Some(tokenizer), special)
    }
}

/// What vocabularies of all kinds have.
struct Parts<'a> {
    tokens: Vec<String>,
    /// What each token is.
    kinds: Vec<i64>,
    special: &'a Special,
}

impl Parts<'_> {
    fn byte_pairs(self, metadata: &mut Metadata) -> BytePairVocabulary {
        BytePairVocabulary {
            pre_tokenizer: metadata.text("tokenizer.ggml.pre").unwrap_or_default(),
            control: ids_of(&self.kinds, kind::CONTROL),
            user_defined: ids_of(&self.kinds, kind::USER_DEFINED),
            merges: metadata.texts("tokenizer.ggml.merges").unwrap_or_default(),
            bos: self.special.bos,
            adds_bos: metadata.bool("tokenizer.ggml.add_bos_token"),
            tokens: self.tokens,
        }
    }

    /// What a file does not say is as in llama.cpp.
    fn sentence_pieces(self, metadata: &mut Metadata) -> SentencePieceVocabulary {
        let mut says = |name: &str| {
            metadata
                .bool(&format!("tokenizer.ggml.{name}"))
                .unwrap_or(true)
        };
        let (adds_bos, adds_space) = (says("add_bos_token"), says("add_space_prefix"));
        SentencePieceVocabulary {
            scores: scores(metadata, self.tokens.len()),
            normal: ids_of(&self.kinds, kind::NORMAL),
            control: ids_of(&self.kinds, kind::CONTROL),
            user_defined: ids_of(&self.kinds, kind::USER_DEFINED),
            unknown: self.special.unknown,
            begin: self.special.bos.filter(|_| adds_bos),
            adds_space,
            tokens: self.tokens,
        }
    }
}

fn fim_ids(metadata: &mut Metadata, tokens: usize) -> FimIds {
    let mut id = |name: &str| token_id(metadata, name, tokens);
    // Older files have the three without `fim`.
    let mut either = |new: &str, old: &str| id(new).or_else(|| id(old));
    FimIds {
        prefix: either("fim_pre", "prefix"),
        suffix: either("fim_suf", "suffix"),
        middle: either("fim_mid", "middle"),
        padding: id("fim_pad"),
        repository: id("fim_rep"),
        file: id("fim_sep"),
    }
}

/// The id of a token with a special meaning.
pub(super) fn token_id(metadata: &mut Metadata, name: &str, tokens: usize) -> Option<u32> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    let id = metadata.u32(&key)?;
    if id as usize >= tokens {
        metadata.problem(format!("{key} is {id}, which is not among the tokens"));
        return None;
    }
    Some(id)
}

fn scores(metadata: &mut Metadata, tokens: usize) -> Vec<f64> {
    let key = "tokenizer.ggml.scores";
    let scores = metadata.numbers(key).unwrap_or_default();
    let count = scores.len();
    if count != 0 && count != tokens {
        metadata.problem(format!("{key} has {count} entries for {tokens} tokens"));
    }
    scores
}

/// What each token is, by id, if the file says so.
fn kinds(metadata: &mut Metadata, tokens: usize) -> Option<Vec<i64>> {
    let key = "tokenizer.ggml.token_type";
    let kinds = metadata.integers(key)?;
    if kinds.len() != tokens {
        let count = kinds.len();
        metadata.problem(format!("{key} has {count} entries for {tokens} tokens"));
    }
    Some(kinds)
}

fn ids_of(kinds: &[i64], kind: i64) -> Vec<u32> {
    let kinds = (0..).zip(kinds);
    let ids = kinds.filter(|(_, theirs)| **theirs == kind);
    ids.map(|(id, _)| id).collect()
}
