//! SentencePiece tokenizers of the kind that merges pairs (Kudo and Richardson 2018), which come as
//! a list of tokens with scores.
//!
//! Of two neighbours that make a token, those are merged first whose token has the highest score. A
//! list of merges says the same: for each token all ways to make it of two others, in the order of
//! scores, as transformers converts such vocabularies.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::added::{AddedTokens, beginning};
use super::{Tokenizer, TokenizerError};

/// How these tokenizers write a space.
const SPACE: &str = "\u{2581}";
/// Bytes of a token; longer ones are a broken file, and would make too many merges.
const TOKEN_BYTES_MAX: usize = 4096;

/// A SentencePiece tokenizer as data.
#[derive(Clone, Debug, Default)]
pub struct SentencePieceVocabulary {
    /// The tokens by id, with U+2581 for a space.
    pub tokens: Vec<String>,
    /// Their scores.
    pub scores: Vec<f64>,
    /// Ids of tokens that merging may make. Single characters are among them.
    pub normal: Vec<u32>,
    /// Ids of tokens that are never text: control tokens.
    pub control: Vec<u32>,
    /// Ids of tokens that are taken from a text before anything is merged.
    pub user_defined: Vec<u32>,
    /// The token that stands for characters that are no tokens, where there are none for bytes.
    pub unknown: Option<u32>,
    /// The token that begins a text, if one does.
    pub begin: Option<u32>,
    /// Whether a text begins with a space that was not written.
    pub adds_space: bool,
}

impl Tokenizer {
    /// Builds a tokenizer from its parts.
    pub fn from_sentence_pieces(
        vocabulary: &SentencePieceVocabulary,
    ) -> Result<Self, TokenizerError> {
        let json = vocabulary.to_json().map_err(TokenizerError::Load)?;
        Self::from_json(json.to_string().as_bytes())
    }
}

impl SentencePieceVocabulary {
    /// The same in the format of `tokenizer.json`.
    pub(super) fn to_json(&self) -> Result<Value, String> {
        let tokens = AddedTokens {
            tokens: &self.tokens,
            control: &self.control,
            user_defined: &self.user_defined,
        };
        let ids = tokens.ids()?;
        if self.scores.len() != self.tokens.len() {
            let (scores, count) = (self.scores.len(), self.tokens.len());
            return Err(format!("there are {scores} scores for {count} tokens"));
        }
        let replaced = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
        let mut normalizers = vec![replaced(" ", SPACE)];
        let mut decoders = vec![
            replaced(SPACE, " "),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if self.adds_space {
            normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        let unknown = self.unknown.map(|id| tokens.text(id)).transpose()?;
        let begin = self
            .begin
            .map(|id| Ok::<_, String>(beginning(id, tokens.text(id)?)));
        let begin = begin.transpose()?;
        let vocabulary: Map<String, Value> = (0..)
            .zip(&self.tokens)
            .map(|(id, token): (u32, _)| (token.clone(), json!(id)))
            .collect();
        Ok(json!({
            "version": "1.0",
            "added_tokens": tokens.to_json()?,
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": null,
            "post_processor": begin,
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {
                "type": "BPE",
                "unk_token": unknown,
                "fuse_unk": true,
                "byte_fallback": true,
                "ignore_merges": false,
                "vocab": vocabulary,
                "merges": self.merges(&ids)?,
            },
        }))
    }

    /// All ways to make a token of two others, the highest scores first.
    fn merges<'a>(&'a self, ids: &HashMap<&str, usize>) -> Result<Vec<[&'a str; 2]>, String> {
        let mut may_be_part = vec![false; self.tokens.len()];
        for &id in &self.normal {
            let part = may_be_part.get_mut(id as usize);
            *part.ok_or_else(|| format!("token {id} is not in the vocabulary"))? = true;
        }
        let is_part = |text: &str| ids.get(text).is_some_and(|&id| may_be_part[id]);
        let mut merges = Vec::new();
        for &id in &self.normal {
            let (token, score) = (&self.tokens[id as usize], self.scores[id as usize]);
            if token.len() > TOKEN_BYTES_MAX || score.is_nan() {
                return Err(format!(
                    "token {id} is too long, or its score is not a number"
                ));
            }
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if is_part(left) && is_part(right) {
                    merges.push((score, [left, right]));
                }
            }
        }
        merges.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        Ok(merges.into_iter().map(|(_, pair)| pair).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> SentencePieceVocabulary {
        let bytes = (0..=255).map(|byte: u8| format!("<0x{byte:02X}>"));
        let pieces = [
            "a",
            "b",
            "c",
            "\u{2581}",
            "bc",
            "ab",
            "\u{2581}a",
            "abc",
            "<call>",
        ];
        let special = ["<unk>", "<s>"].map(str::to_owned).into_iter();
        let tokens: Vec<String> = special
            .chain(bytes)
            .chain(pieces.map(str::to_owned))
            .collect();
        SentencePieceVocabulary {
            scores: (0..tokens.len()).map(|id| -(id as f64)).collect(),
            normal: (258..266).collect(),
            control: vec![1],
            user_defined: vec![266],
            unknown: Some(0),
            begin: Some(1),
            adds_space: false,
            tokens,
        }
    }

    fn ids(vocabulary: &SentencePieceVocabulary, text: &str) -> Vec<u32> {
        let tokenizer = Tokenizer::from_sentence_pieces(vocabulary).expect("a tokenizer");
        tokenizer.encode(text, true).expect("tokens")
    }

    #[test]
    fn the_token_with_the_highest_score_is_made_first() {
        // `bc` before `ab`, and then nothing makes `abc` but `a` and `bc`.
        assert_eq!(ids(&vocabulary(), "abc"), [1, 265]);
        assert_eq!(ids(&vocabulary(), "abb"), [1, 263, 259]);
        let mut other = vocabulary();
        other.scores[262] = -1000.0;
        assert_eq!(
            ids(&other, "abcb"),
            [1, 265, 259],
            "`ab` and `c` make it as well"
        );
        other.normal.retain(|id| *id != 265);
        assert_eq!(ids(&other, "abc"), [1, 263, 260]);
    }

    #[test]
    fn spaces_bytes_and_special_tokens_are_found() {
        let mut vocabulary = vocabulary();
        assert_eq!(ids(&vocabulary, "<s>a\n"), [1, 1, 258, 2 + 10]);
        assert_eq!(ids(&vocabulary, "b<call>"), [1, 259, 266]);
        vocabulary.adds_space = true;
        assert_eq!(ids(&vocabulary, "ac"), [1, 264, 260]);
        let tokenizer = Tokenizer::from_sentence_pieces(&vocabulary).expect("a tokenizer");
        assert_eq!(tokenizer.token_bytes(264), Some(b" a".as_slice()));
        assert_eq!(tokenizer.token_bytes(12), Some(b"\n".as_slice()));
        assert!(tokenizer.is_special(1) && !tokenizer.is_special(266));
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let message = |change: fn(&mut SentencePieceVocabulary)| {
            let mut vocabulary = vocabulary();
            change(&mut vocabulary);
            let result = Tokenizer::from_sentence_pieces(&vocabulary);
            result.unwrap_err().to_string()
        };
        let scores = message(|vocabulary| vocabulary.scores.truncate(5));
        assert!(scores.contains("5 scores for 267 tokens"), "{scores}");
        let outside = message(|vocabulary| vocabulary.normal.push(999));
        assert!(outside.contains("token 999"), "{outside}");
        let score = message(|vocabulary| vocabulary.scores[260] = f64::NAN);
        assert!(score.contains("token 260"), "{score}");
    }
}
