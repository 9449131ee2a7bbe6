//! Byte-level tokenizers that come as a list of tokens and a list of merges, with no more than the
//! name of the rule by which text is cut before merging.

use serde_json::{Map, Value, json};

use super::added::{AddedTokens, beginning};
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

/// How text is cut before merging, and what else goes with it.
struct Rule {
    names: &'static [&'static str],
    /// Applied one after the other; each cuts its matches out of what the earlier ones left.
    expressions: &'static [&'static str],
    /// Whether a word that is a token is taken whole, whatever the merges say.
    ignores_merges: bool,
    /// Whether composed characters are used where there are such.
    composes: bool,
    adds_bos: bool,
}

const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// From `llama-vocab.cpp` of llama.cpp, where they have the expressions of the models' own files.
const RULES: &[Rule] = &[
    Rule {
        names: &["default"],
        expressions: &[
            r"[\p{P}\$\+<=>\^~\|]+",
            GPT_2,
            r"\p{N}+",
            r"[0-9][0-9][0-9]",
        ],
        ignores_merges: false,
        composes: false,
        adds_bos: false,
    },
    Rule {
        names: &["gpt-2", "phi-2"],
        expressions: &[GPT_2],
        ignores_merges: false,
        composes: false,
        adds_bos: false,
    },
    Rule {
        names: &["smollm", "starcoder", "refact", "command-r"],
        expressions: &[r"\p{N}", GPT_2],
        ignores_merges: false,
        composes: false,
        adds_bos: false,
    },
    Rule {
        names: &["llama-bpe", "llama3", "llama-v3"],
        expressions: &[LLAMA_3],
        ignores_merges: true,
        composes: false,
        adds_bos: true,
    },
    // Vocabularies of the same kind that have no token to begin a text with, SmolLM3's among them.
    Rule {
        names: &["smaug-bpe"],
        expressions: &[LLAMA_3],
        ignores_merges: true,
        composes: false,
        adds_bos: false,
    },
    Rule {
        names: &["qwen2", "deepseek-r1-qwen"],
        expressions: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignores_merges: false,
        composes: true,
        adds_bos: false,
    },
];

impl Tokenizer {
    /// Builds a tokenizer from its parts. Fails on a rule that is not known, by its name.
    pub fn from_byte_pairs(vocabulary: &BytePairVocabulary) -> Result<Self, TokenizerError> {
        let json = vocabulary.to_json().map_err(TokenizerError::Load)?;
        Self::from_json(json.to_string().as_bytes())
    }
}

impl BytePairVocabulary {
    /// The same in the format of `tokenizer.json`.
    fn to_json(&self) -> Result<Value, String> {
        let rule = self.rule()?;
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
        let mut steps: Vec<Value> = rule.expressions.iter().map(|regex| split(regex)).collect();
        steps.push(json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
        }));
        Ok(json!({
            "version": "1.0",
            "added_tokens": added.to_json()?,
            "normalizer": rule.composes.then(|| json!({"type": "NFC"})),
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
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

    fn rule(&self) -> Result<&'static Rule, String> {
        let name = self.pre_tokenizer.as_str();
        let rule = RULES.iter().find(|rule| rule.names.contains(&name));
        rule.ok_or_else(|| {
            let known: Vec<&str> = RULES.iter().flat_map(|rule| rule.names).copied().collect();
            let shown: String = name.chars().take(64).collect();
            format!(
                "the pre-tokenizer {shown:?} is not supported; supported are: {}",
                known.join(", ")
            )
        })
    }
}

fn split(regex: &str) -> Value {
    json!({
        "type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false,
    })
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
        assert!(message(&vocabulary("youtu")).contains("\"youtu\""));
        let mut twice = vocabulary("gpt-2");
        twice.tokens[1] = "a".to_owned();
        assert!(message(&twice).contains("tokens 0 and 1 are the same"));
        let mut outside = vocabulary("gpt-2");
        outside.control = vec![99];
        assert!(message(&outside).contains("token 99"));
    }
}
