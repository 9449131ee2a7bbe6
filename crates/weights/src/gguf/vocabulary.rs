//! The tokenizer that a GGUF file carries in its metadata.

use super::metadata::Metadata;

/// Most tokens of any vocabulary; more are a broken file.
const TOKENS_MAX: usize = 1 << 24;

/// A tokenizer as its vocabulary, and its merges and the name of how text is cut before merging, or
/// the scores of its tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddedVocabulary {
    /// The kind of tokenizer, such as `gpt2` (byte-level pairs) or `llama` (SentencePiece).
    pub model: String,
    /// The name of the rule by which text is cut before merging, such as `llama-bpe`.
    pub pre_tokenizer: Option<String>,
    /// The tokens, by id.
    pub tokens: Vec<String>,
    /// What each token is, by id.
    pub kinds: Vec<EmbeddedTokenKind>,
    /// Pairs that are merged, the first ones first, written with a space between their halves.
    pub merges: Vec<String>,
    /// By id: of the tokens that can be made next, the one with the highest score is made first.
    pub scores: Vec<f64>,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// Whether a text that is not a conversation begins with `bos`, if the file says so.
    pub adds_bos: Option<bool>,
    /// Whether a text begins with a space that was not written, if the file says so.
    pub adds_space: Option<bool>,
    /// The token that stands for what cannot be written with the others.
    pub unknown: Option<u32>,
    /// The tokens by which the model fills in the middle, as far as the file names them.
    pub fim: EmbeddedFimIds,
}

/// Ids of tokens by which a model fills in the middle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmbeddedFimIds {
    /// Begins the text before the middle.
    pub prefix: Option<u32>,
    /// Begins the text behind the middle.
    pub suffix: Option<u32>,
    /// Begins the middle.
    pub middle: Option<u32>,
    /// Fills up batches in training.
    pub padding: Option<u32>,
    /// Begins the name of a repository.
    pub repository: Option<u32>,
    /// Begins the name of a file.
    pub file: Option<u32>,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddedTokenKind {
    /// Text that merging makes.
    Normal,
    /// Never text: marks the begin of a turn, for example.
    Control,
    /// Text that is always one token.
    UserDefined,
    /// One byte, written such as `<0x0A>`.
    Byte,
    /// Stands for what the vocabulary lacks, or for nothing.
    Other,
}

/// The ids of the special tokens.
#[derive(Clone, Debug, Default)]
pub(super) struct SpecialIds {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) padding: Option<u32>,
    pub(super) unknown: Option<u32>,
    /// Other tokens that end an answer.
    pub(super) also_end: Vec<u32>,
}

impl EmbeddedVocabulary {
    pub(super) fn read(metadata: &mut Metadata) -> (Option<Self>, SpecialIds) {
        let Some(model) = metadata.text("tokenizer.ggml.model") else {
            return (None, SpecialIds::default());
        };
        let tokens = metadata.texts("tokenizer.ggml.tokens").unwrap_or_default();
        if tokens.is_empty() || tokens.len() > TOKENS_MAX {
            metadata.problem(format!(
                "tokenizer.ggml.tokens has {} tokens; 1 to {TOKENS_MAX} are accepted",
                tokens.len()
            ));
        }
        let kinds = kinds(metadata, tokens.len());
        let mut id = |name: &str| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            let id = metadata.u32(&key)?;
            if id as usize >= tokens.len() {
                metadata.problem(format!("{key} is {id}, which is not among the tokens"));
                return None;
            }
            Some(id)
        };
        let special = SpecialIds {
            bos: id("bos"),
            eos: id("eos"),
            padding: id("padding"),
            unknown: id("unknown"),
            also_end: ["eot", "eom"].into_iter().filter_map(&mut id).collect(),
        };
        // Older files have the three without `fim`.
        let mut either = |new: &str, old: &str| id(new).or_else(|| id(old));
        let fim = EmbeddedFimIds {
            prefix: either("fim_pre", "prefix"),
            suffix: either("fim_suf", "suffix"),
            middle: either("fim_mid", "middle"),
            padding: id("fim_pad"),
            repository: id("fim_rep"),
            file: id("fim_sep"),
        };
        let vocabulary = Self {
            model,
            pre_tokenizer: metadata.text("tokenizer.ggml.pre"),
            merges: metadata.texts("tokenizer.ggml.merges").unwrap_or_default(),
            scores: scores(metadata, tokens.len()),
            adds_bos: metadata.bool("tokenizer.ggml.add_bos_token"),
            adds_space: metadata.bool("tokenizer.ggml.add_space_prefix"),
            bos: special.bos,
            unknown: special.unknown,
            fim,
            tokens,
            kinds,
        };
        (Some(vocabulary), special)
    }

    /// The text of a token.
    pub(super) fn text(&self, id: Option<u32>) -> Option<String> {
        self.tokens.get(id? as usize).cloned()
    }
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

fn kinds(metadata: &mut Metadata, tokens: usize) -> Vec<EmbeddedTokenKind> {
    let key = "tokenizer.ggml.token_type";
    let Some(numbers) = metadata.integers(key) else {
        return vec![EmbeddedTokenKind::Normal; tokens];
    };
    if numbers.len() != tokens {
        let count = numbers.len();
        metadata.problem(format!("{key} has {count} entries for {tokens} tokens"));
    }
    let kind = |number: &i64| match number {
        1 => EmbeddedTokenKind::Normal,
        3 => EmbeddedTokenKind::Control,
        4 => EmbeddedTokenKind::UserDefined,
        6 => EmbeddedTokenKind::Byte,
        _ => EmbeddedTokenKind::Other,
    };
    numbers.iter().map(kind).collect()
}
