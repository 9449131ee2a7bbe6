//! Which tokens end an answer, and who says so.

use backstop_text::Tokenizer;

use crate::checkpoint::{Checkpoint, TokenizerSource};

/// A token that ends an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndToken {
    /// Its id.
    pub id: u32,
    /// What says that it ends an answer, for people: a file, or a key of a GGUF file.
    pub source: &'static str,
}

/// Adds a token that is not yet among the ends.
pub(crate) fn add(ends: &mut Vec<EndToken>, id: u32, source: &'static str) {
    if ends.iter().all(|end| end.id != id) {
        ends.push(EndToken { id, source });
    }
}

impl Checkpoint {
    /// The tokens that end an answer: those of the generation defaults, and the tokenizer's own end of a text, which
    /// models write at the end of what was not a conversation. A GGUF file has them all among its defaults.
    ///
    /// No other token does, however much its text looks like an end.
    pub fn end_tokens(&self, tokenizer: &Tokenizer) -> Vec<EndToken> {
        let mut ends = Vec::new();
        let generation = self.generation_config();
        for &id in &generation.eos_token_ids {
            add(&mut ends, id, self.who_ends_with(id, generation.eos_file));
        }
        let special = self.special_tokens();
        let own = special
            .eos
            .as_deref()
            .and_then(|text| tokenizer.token_to_id(text));
        if let (Some(id), TokenizerSource::File(_)) = (own, self.tokenizer()) {
            add(&mut ends, id, special.eos_file);
        }
        ends
    }

    /// What names this token among the generation defaults.
    fn who_ends_with(&self, id: u32, file: &'static str) -> &'static str {
        match self.tokenizer() {
            TokenizerSource::File(_) => file,
            TokenizerSource::Embedded(embedded) => {
                let known = embedded.ends.iter().find(|end| end.id == id);
                // The file's own are all known, and the settings replace them.
                known.map_or("--hf-overrides", |end| end.source)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::test_support::Directory;

    /// A vocabulary of a letter and these control tokens.
    fn tokenizer(control: &[&str]) -> Tokenizer {
        let mut vocabulary = json!({"a": 0});
        let mut added = Vec::new();
        for (text, id) in control.iter().zip(1..) {
            vocabulary[text] = json!(id);
            added.push(
                json!({"id": id, "content": text, "special": true, "normalized": false,
                              "single_word": false, "lstrip": false, "rstrip": false}),
            );
        }
        let json = json!({
            "version": "1.0",
            "added_tokens": added,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                        "use_regex": true},
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        });
        Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
    }

    fn ends(directory: &Directory) -> Vec<(u32, &'static str)> {
        let checkpoint = Checkpoint::open_shape(&directory.join("config.json"), directory, &[]);
        let tokenizer = tokenizer(&["<|endoftext|>", "<|im_end|>", "<|end|>"]);
        let ends = checkpoint.unwrap().end_tokens(&tokenizer);
        ends.iter().map(|end| (end.id, end.source)).collect()
    }

    #[test]
    fn an_answer_ends_with_what_the_defaults_name_and_with_the_end_of_a_text() {
        let directory = Directory::with_config();
        assert_eq!(ends(&directory), []);
        directory.write("config.json", r#"{"eos_token_id": 1}"#);
        assert_eq!(ends(&directory), [(1, "config.json")]);
        directory.write("generation_config.json", r#"{"eos_token_id": [2, 2]}"#);
        assert_eq!(ends(&directory), [(2, "generation_config.json")]);
        directory.write("tokenizer_config.json", r#"{"eos_token": "<|endoftext|>"}"#);
        let both = [(2, "generation_config.json"), (1, "tokenizer_config.json")];
        assert_eq!(ends(&directory), both);
        directory.write("tokenizer_config.json", r#"{"eos_token": "<|im_end|>"}"#);
        assert_eq!(ends(&directory), both[..1], "named twice");
        directory.write("tokenizer_config.json", r#"{"eos_token": "</s>"}"#);
        assert_eq!(ends(&directory), both[..1], "no token");
    }

    #[test]
    fn the_older_map_of_special_tokens_counts_where_transformers_reads_it() {
        let directory = Directory::with_config();
        directory.write(
            "special_tokens_map.json",
            r#"{"eos_token": {"content": "<|im_end|>", "lstrip": false}}"#,
        );
        assert_eq!(ends(&directory), [(2, "special_tokens_map.json")]);
        directory.write(
            "tokenizer_config.json",
            r#"{"eos_token": "<|endoftext|>", "bos_token": "<|end|>"}"#,
        );
        assert_eq!(ends(&directory), [(2, "special_tokens_map.json")]);
        directory.write(
            "tokenizer_config.json",
            r#"{"eos_token": "<|endoftext|>", "added_tokens_decoder": {}}"#,
        );
        assert_eq!(ends(&directory), [(1, "tokenizer_config.json")]);
    }
}
