//! Filling in the middle (FIM, Bavarian et al. 2022): prompts by which a model writes what stands
//! between two texts, made of control tokens and of texts in which there are none.

mod families;

use backstop_types::TokenId;

pub use self::families::{FIM_FAMILIES, FimFamily, FimOrder};
use crate::{PromptText, Tokenizer, TokenizerError};

/// What stands before a text whose beginning is that of no text; of no known vocabulary's tokens does
/// it make one with what follows.
const LEAD: &str = "\u{263a}";

/// The tokens by which a model fills in the middle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FimTokens {
    order: FimOrder,
    prefix: TokenId,
    suffix: TokenId,
    middle: Option<TokenId>,
    repository: Option<TokenId>,
    file: Option<TokenId>,
    /// Those above and their like, ascending.
    marks: Vec<TokenId>,
    /// The marks and the ends of texts, ascending.
    ends: Vec<TokenId>,
}

/// The ids that a file gives in so many words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FimIds {
    /// Begins the prefix.
    pub prefix: Option<TokenId>,
    /// Begins the suffix.
    pub suffix: Option<TokenId>,
    /// Begins the middle.
    pub middle: Option<TokenId>,
    /// Fills up batches in training.
    pub padding: Option<TokenId>,
    /// Begins the name of a repository.
    pub repository: Option<TokenId>,
    /// Begins the name of a file.
    pub file: Option<TokenId>,
}

/// What a prompt is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FimParts {
    /// Stands before everything: other files.
    pub context: Vec<TokenId>,
    /// The text before the middle.
    pub prefix: Vec<TokenId>,
    /// The text behind the middle.
    pub suffix: Vec<TokenId>,
}

impl FimTokens {
    /// Those that a vocabulary has, if it has any.
    pub fn detect(tokenizer: &Tokenizer) -> Option<Self> {
        let mut families = FIM_FAMILIES.iter();
        families.find_map(|family| Self::of_family(tokenizer, family))
    }

    /// Those of the family that a manifest names. The error says what is wrong with that.
    pub fn named(tokenizer: &Tokenizer, id: &str) -> Result<Self, String> {
        let Some(family) = FIM_FAMILIES.iter().find(|family| family.id == id) else {
            let known: Vec<&str> = FIM_FAMILIES.iter().map(|family| family.id).collect();
            return Err(format!(
                "there is no way {id:?} to fill in the middle; known are: {}, and none",
                known.join(", ")
            ));
        };
        Self::of_family(tokenizer, family).ok_or_else(|| {
            let texts = family.texts();
            let missing: Vec<&str> = texts
                .filter(|text| tokenizer.token_to_id(text).is_none())
                .collect();
            format!(
                "the vocabulary lacks tokens to fill in the middle: {}",
                missing.join(", ")
            )
        })
    }

    /// Those that a file names, or else those that the vocabulary has. What the ids leave open is as
    /// in the family whose tokens they are, or as in most.
    pub fn from_ids(tokenizer: &Tokenizer, ids: FimIds) -> Option<Self> {
        let (Some(prefix), Some(suffix), Some(middle)) = (ids.prefix, ids.suffix, ids.middle)
        else {
            return Self::detect(tokenizer);
        };
        let named = [ids.padding, ids.repository, ids.file];
        let named = named.into_iter().flatten().chain([prefix, suffix, middle]);
        let mut tokens = Self::detect(tokenizer)
            .filter(|detected| (detected.prefix, detected.suffix) == (prefix, suffix))
            .unwrap_or(Self {
                order: FimOrder::PrefixFirst,
                prefix,
                suffix,
                middle: Some(middle),
                repository: ids.repository,
                file: ids.file,
                marks: Vec::new(),
                ends: Vec::new(),
            });
        for ends in [&mut tokens.marks, &mut tokens.ends] {
            ends.extend(named.clone());
            ends.sort_unstable();
            ends.dedup();
        }
        Some(tokens)
    }

    fn of_family(tokenizer: &Tokenizer, family: &FimFamily) -> Option<Self> {
        let id = |text: &'static str| tokenizer.token_to_id(text);
        // All or nothing.
        let mut marks: Vec<TokenId> = family.texts().map(id).collect::<Option<_>>()?;
        marks.sort_unstable();
        let mut ends = marks.clone();
        ends.extend(family.ends.iter().filter_map(|text| id(text)));
        ends.sort_unstable();
        ends.dedup();
        Some(Self {
            order: family.order,
            prefix: id(family.prefix)?,
            suffix: id(family.suffix)?,
            middle: family.middle.and_then(id),
            repository: family.repository.and_then(id),
            file: family.file.and_then(id),
            marks,
            ends,
        })
    }

    /// The tokens that end a middle and are no part of it: all of these, and the ends of texts.
    pub fn ends(&self) -> &[TokenId] {
        &self.ends
    }

    /// Whether a token is one of those by which a middle is asked for: never the end of a text.
    pub fn is_mark(&self, token: TokenId) -> bool {
        self.marks.binary_search(&token).is_ok()
    }

    /// The token that begins the name of a repository.
    pub fn repository(&self) -> Option<TokenId> {
        self.repository
    }

    /// The token that begins the name of a file.
    pub fn file(&self) -> Option<TokenId> {
        self.file
    }

    /// Tokens of a prompt beside its parts, the tokenizer's own ones included.
    pub fn overhead(&self, tokenizer: &Tokenizer) -> Result<usize, TokenizerError> {
        let prompt = self.prompt(tokenizer, FimParts::default(), true)?;
        Ok(prompt.len())
    }

    /// The prompt. With `add_special_tokens` it gets those that the tokenizer puts around a text.
    pub fn prompt(
        &self,
        tokenizer: &Tokenizer,
        parts: FimParts,
        add_special_tokens: bool,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        let FimParts {
            context: mut tokens,
            prefix,
            suffix,
        } = parts;
        let prefix = (self.prefix, prefix);
        let suffix = (self.suffix, suffix);
        let in_order = match self.order {
            FimOrder::PrefixFirst => [prefix, suffix],
            FimOrder::SuffixFirst => [suffix, prefix],
        };
        for (begin, text) in in_order {
            tokens.push(begin);
            tokens.extend(text);
        }
        tokens.extend(self.middle);
        match add_special_tokens {
            true => tokenizer.with_special_tokens(tokens),
            false => Ok(tokens),
        }
    }
}

impl Tokenizer {
    /// Encodes a text that goes on where another ended, of at most so many tokens: without the space
    /// that some vocabularies put before a text, as their models were taught suffixes.
    pub fn encode_continuation(
        &self,
        prompt: &PromptText,
        tokens_max: usize,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        if !self.puts_space_before()? {
            return self.encode_within(prompt, false, tokens_max);
        }
        let lead = self.encode(LEAD, false)?;
        let led = prompt.behind(LEAD);
        let mut tokens = self.encode_within(&led, false, tokens_max.saturating_add(lead.len()))?;
        if tokens.starts_with(&lead) {
            tokens.drain(..lead.len());
            return Ok(tokens);
        }
        self.encode_within(prompt, false, tokens_max)
    }

    fn puts_space_before(&self) -> Result<bool, TokenizerError> {
        let first = self.encode("a", false)?.first().copied();
        let bytes = first.and_then(|token| self.token_bytes(token));
        Ok(bytes.is_some_and(|bytes| bytes.starts_with(b" ")))
    }
}

/// The texts of all tokens by which models fill in the middle, and which this vocabulary has.
pub(crate) fn control_texts(tokenizer: &Tokenizer) -> impl Iterator<Item = String> {
    let families = FIM_FAMILIES.iter().filter(|family| {
        let mut begins = family.texts();
        begins.all(|text| tokenizer.token_to_id(text).is_some())
    });
    let texts = families.flat_map(|family| family.texts().chain(family.ends.iter().copied()));
    let known = texts.filter(|text| tokenizer.token_to_id(text).is_some());
    known.map(str::to_owned)
}

#[cfg(test)]
mod tests;
