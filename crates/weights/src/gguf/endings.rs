//! The tokens that end an answer, of which GGUF files name some; others are known by their texts.

use backstop_text::FimIds;

use super::metadata::Metadata;
use super::tokenizer::{kind, token_id};
use crate::EndToken;
use crate::endings::add;

/// Keys of tokens that end a text, a turn, or a message.
const END_KEYS: [(&str, &str); 3] = [
    ("eos", "tokenizer.ggml.eos_token_id"),
    ("eot", "tokenizer.ggml.eot_token_id"),
    ("eom", "tokenizer.ggml.eom_token_id"),
];

/// What ends texts, turns and messages, as llama.cpp's `llama-vocab.cpp` knows it.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_turn>",
    "<turn|>",
    "<|tool_response>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "[e~[",
    "<eos>",
    STRIKE_END,
];

/// In many vocabularies a tag of HTML, and then no control token.
const STRIKE_END: &str = "</s>";

/// What stands behind a file, by which a model that fills in the middle goes on to another one.
const SEPARATORS: &[&str] = &[
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

/// Harmony and its like end a message of several with this, and the last with one of the others.
const MESSAGE_END: &str = "<|end|>";

/// The tokens of a vocabulary.
pub(super) struct Tokens<'a> {
    pub(super) texts: &'a [String],
    /// What each is, if the file says so.
    pub(super) kinds: Option<&'a [i64]>,
}

impl Tokens<'_> {
    /// Ends of texts first: the first is what stands for all of them.
    pub(super) fn ends(&self, metadata: &mut Metadata, fim: &FimIds) -> Vec<EndToken> {
        let mut ends = Vec::new();
        for (name, key) in END_KEYS {
            if let Some(id) = token_id(metadata, name, self.texts.len()) {
                add(&mut ends, id, key);
            }
        }
        for (id, text) in (0..).zip(self.texts) {
            if ENDS.contains(&text.as_str()) && self.is_control(id, text) {
                add(&mut ends, id, "known by its text");
            }
        }
        for id in [fim.padding, fim.repository, fim.file]
            .into_iter()
            .flatten()
        {
            add(&mut ends, id, "between files");
        }
        for (id, text) in (0..).zip(self.texts) {
            if SEPARATORS.contains(&text.as_str()) && self.is_control(id, text) {
                add(&mut ends, id, "between files, known by its text");
            }
        }
        if self.has_messages(&ends) {
            ends.retain(|end| self.text(end.id) != MESSAGE_END);
        }
        ends
    }

    /// Whether a token is no ordinary text. Converters wrote what was added to a vocabulary as
    /// user-defined, whatever it was for.
    fn is_control(&self, id: u32, text: &str) -> bool {
        let kind = self.kinds.map(|kinds| kinds.get(id as usize).copied());
        match kind {
            None | Some(Some(kind::CONTROL)) => true,
            Some(Some(kind::USER_DEFINED)) => text != STRIKE_END,
            Some(_) => false,
        }
    }

    /// Whether answers have several messages, one of which does not end them.
    fn has_messages(&self, ends: &[EndToken]) -> bool {
        let has = |text: &str| ends.iter().any(|end| self.text(end.id) == text);
        (has("<|call|>") || has("<|calls|>")) && (has("<|return|>") || has("<|flush|>"))
    }

    fn text(&self, id: u32) -> &str {
        self.texts.get(id as usize).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::gguf::reader::MetadataValue;

    /// The texts that end answers, of a vocabulary of these texts and kinds.
    fn ends<'a>(tokens: &[(&'a str, i64)], keys: &[(&str, i64)], fim: &FimIds) -> Vec<&'a str> {
        let texts: Vec<String> = tokens.iter().map(|(text, _)| (*text).to_owned()).collect();
        let kinds: Vec<i64> = tokens.iter().map(|(_, kind)| *kind).collect();
        let values: BTreeMap<String, MetadataValue> = keys
            .iter()
            .map(|(key, id)| {
                (
                    format!("tokenizer.ggml.{key}_token_id"),
                    MetadataValue::Integer(i128::from(*id)),
                )
            })
            .collect();
        let mut metadata = Metadata::new(values);
        let vocabulary = Tokens {
            texts: &texts,
            kinds: Some(&kinds),
        };
        let ends = vocabulary.ends(&mut metadata, fim);
        metadata.finish().unwrap();
        ends.iter().map(|end| tokens[end.id as usize].0).collect()
    }

    #[test]
    fn a_file_with_one_named_end_has_those_known_by_their_texts_too() {
        let qwen = [
            ("a", kind::NORMAL),
            ("<|file_sep|>", kind::USER_DEFINED),
            ("<|endoftext|>", kind::CONTROL),
            ("<|im_start|>", kind::CONTROL),
            ("<|im_end|>", kind::CONTROL),
            ("<tool_call>", kind::USER_DEFINED),
            ("<|fim_prefix|>", kind::USER_DEFINED),
            ("<|fim_pad|>", kind::USER_DEFINED),
        ];
        let named = FimIds {
            padding: Some(7),
            ..FimIds::default()
        };
        assert_eq!(
            ends(&qwen, &[("eos", 4)], &named),
            ["<|im_end|>", "<|endoftext|>", "<|fim_pad|>", "<|file_sep|>"]
        );
        let other = [("a", kind::NORMAL), ("b", kind::CONTROL)];
        assert_eq!(ends(&other, &[], &FimIds::default()), [""; 0]);
        assert_eq!(ends(&other, &[("eot", 1)], &FimIds::default()), ["b"]);
    }

    #[test]
    fn ordinary_texts_end_nothing() {
        let gemma = [
            ("</s>", kind::USER_DEFINED),
            ("<eos>", kind::CONTROL),
            ("<|im_end|>", kind::NORMAL),
            ("[EOS]", kind::NORMAL),
        ];
        assert_eq!(ends(&gemma, &[], &FimIds::default()), ["<eos>"]);
        let llama = [("</s>", kind::CONTROL)];
        assert_eq!(ends(&llama, &[], &FimIds::default()), ["</s>"]);
        let untyped = ["</s>".to_owned()];
        let vocabulary = Tokens {
            texts: &untyped,
            kinds: None,
        };
        let ends = vocabulary.ends(&mut Metadata::new(BTreeMap::new()), &FimIds::default());
        assert_eq!(ends.len(), 1);
    }

    #[test]
    fn one_message_of_several_does_not_end_an_answer() {
        let harmony = ["<|return|>", "<|end|>", "<|call|>"].map(|text| (text, kind::CONTROL));
        let keys = [("eos", 0), ("eot", 1)];
        assert_eq!(
            ends(&harmony, &keys, &FimIds::default()),
            ["<|return|>", "<|call|>"]
        );
        let solar = ["<|flush|>", "<|end|>", "<|calls|>"].map(|text| (text, kind::CONTROL));
        assert_eq!(
            ends(&solar, &[], &FimIds::default()),
            ["<|flush|>", "<|calls|>"]
        );
        let phi = ["<|end|>", "<|endoftext|>"].map(|text| (text, kind::CONTROL));
        assert_eq!(
            ends(&phi, &[], &FimIds::default()),
            ["<|end|>", "<|endoftext|>"]
        );
    }
}
