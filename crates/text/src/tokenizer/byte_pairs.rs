//! Byte-level tokenizers that come as a list of tokens and a list of merges, with no more than the
//! name of the rule by which text is cut before merging.

use serde_json::{Map, Value, json};

use super::added::{AddedTokens, beginning};
use super::pre_tokenizers::PreTokenizer;
use super::{Tokenizer, TokenizerError};

/// A byte-level tokenizer as data.
#[derive(Clone, Debug, Default)]
pub struct BytePairVocabulary {
    /// The name of the rule by which text is cut, as llama.cpp has it, such as `llama-bpe`.
    pub pre_tokenizer: String,
    /// The tokens by id, in GPT-2's alphabet unless they are listed below.
    pub tokens: Vec<String>,
    /// Ids of tokens that are never text: control tokens.
    pub control: Vec<u32>,
    /// Ids of tokens that are taken from a text before it is cut.
    pub user_defined: Vec<u32>,
    /// Pairs that are merged, the first ones first, with a space between their halves.
    pub merges: Vec<String>,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// Whether a text that is not a conversation begins with it; `None`: as the rule has it.
    pub adds_bos: Option<bool>,
}

impl Tokenizer {
    /// Builds a tokenizer from its parts. Fails on a rule that is not known, by its name.
    pub fn from_byte_pairs(vocabulary: &BytePairVocabulary) -> Result<Self, TokenizerError> {
        let json = vocabulary.to_json().map_err(TokenizerError::Load)?;
        Self::from_json(json.to_string().as_bytes())
    }
}

impl BytePairVocabulary {
    /// The same in the format of `tokenizer.json`.
    pub(super) fn to_json(&self) -> Result<Value, String> {
        let rule = PreTokenizer::named(&self.pre_tokenizer)?;
        if self.merges.is_empty() {
            return Err("there are no merges, by which tokens are made of bytes".to_owned());
        }
        let added = AddedTokens {
            tokens: &self.tokens,
            control: &self.control,
            user_defined: &self.user_defined,
        };
        let tokens: Map<String, Value> = added
            .ids()?
            .into_iter()
            .map(|(token, id)| (token.to_owned(), json!(id)))
            .collect();
        let begins = self.adds_bos.unwrap_or(rule.adds_bos);
        let begin = self.bos.filter(|_| begins);
        let begin = begin.map(|id| Ok::<_, String>(beginning(id, added.text(id)?)));
        let begin = begin.transpose()?;
        Ok(json!({
            "version": "1.0",
            "added_tokens": added.to_json()?,
            "normalizer": rule.composes.then(|| json!({"type": "NFC"})),
            "pre_tokenizer": rule.to_json(),
            "post_processor": begin,
            "decoder": {
                "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
            },
            "model": {
                "type": "BPE",
                "fuse_unk": false,
                "byte_fallback": false,
                "ignore_merges": rule.ignores_merges,
                "vocab": tokens,
                "merges": self.merges,
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(pre_tokenizer: &str) -> BytePairVocabulary {
        let letters = ('a'..='e').map(String::from);
        let words = ["Ġ", "1", "2", "ab", "Ġa", "abc", "<end>", "<tool>"].map(str::to_owned);
        BytePairVocabulary {
            pre_tokenizer: pre_tokenizer.to_owned(),
            tokens: letters.chain(words).collect(),
            control: vec![11],
            user_defined: vec![12],
            merges: vec!["a b".to_owned(), "Ġ a".to_owned()],
            bos: Some(11),
            adds_bos: None,
        }
    }

    fn ids(vocabulary: &BytePairVocabulary, text: &str) -> Vec<u32> {
        let tokenizer = Tokenizer::from_byte_pairs(vocabulary).expect("a tokenizer");
        tokenizer.encode(text, true).expect("tokens")
    }

    #[test]
    fn pairs_are_merged_and_control_tokens_found() {
        let vocabulary = vocabulary("smollm");
        assert_eq!(
            ids(&vocabulary, "ab a12<end>c<tool>"),
            [8, 9, 6, 7, 11, 2, 12]
        );
        let tokenizer = Tokenizer::from_byte_pairs(&vocabulary).expect("a tokenizer");
        assert!(tokenizer.is_special(11) && !tokenizer.is_special(12));
        assert_eq!(tokenizer.token_bytes(9), Some(b" a".as_slice()));
    }

    #[test]
    fn a_rule_may_begin_texts_and_take_words_whole() {
        // No merge leads to `abc`.
        assert_eq!(ids(&vocabulary("llama-bpe"), "abc"), [11, 10]);
        assert_eq!(ids(&vocabulary("smaug-bpe"), "abc"), [10]);
        assert_eq!(ids(&vocabulary("gpt-2"), "abc"), [8, 2]);
        let silent = BytePairVocabulary {
            adds_bos: Some(false),
            ..vocabulary("llama-bpe")
        };
        assert_eq!(ids(&silent, "abc"), [10]);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let message = |vocabulary: &BytePairVocabulary| {
            Tokenizer::from_byte_pairs(vocabulary)
                .unwrap_err()
                .to_string()
        };
        let unknown = message(&vocabulary("afmoe"));
        assert!(unknown.contains("\"afmoe\"") && unknown.contains("tokenizer.json"));
        let mut unmerged = vocabulary("gpt-2");
        unmerged.merges.clear();
        assert!(message(&unmerged).contains("no merges"));
        let mut twice = vocabulary("gpt-2");
        twice.tokens[1] = "a".to_owned();
        assert!(message(&twice).contains("tokens 0 and 1 are the same"));
        let mut outside = vocabulary("gpt-2");
        outside.control = vec![99];
        assert!(message(&outside).contains("token 99"));
    }
}
