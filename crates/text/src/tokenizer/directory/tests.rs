use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::test_vocabulary::byte_level_json;

/// A directory with a `tokenizer.json` of 256 tokens and more, which goes away with its owner.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("backstop-tokenizer-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        let directory = Self(path);
        directory.write("tokenizer.json", &byte_level_json());
        directory
    }

    fn write(&self, name: &str, json: &Value) {
        fs::write(self.0.join(name), json.to_string()).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.0.join(name)).unwrap();
    }

    fn open(&self) -> Tokenizer {
        Tokenizer::from_directory(&self.0).unwrap()
    }

    fn error(&self) -> String {
        Tokenizer::from_directory(&self.0).unwrap_err().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The first id behind the vocabulary.
fn first_id() -> u32 {
    let json = byte_level_json().to_string();
    Tokenizer::from_json(json.as_bytes()).unwrap().vocab_size() as u32
}

fn encoded(directory: &Directory, text: &str) -> Vec<u32> {
    directory.open().encode(text, false).unwrap()
}

#[test]
fn tokens_that_only_the_configuration_lists_are_tokens() {
    let directory = Directory::new();
    let id = first_id();
    assert!(encoded(&directory, "<tool>").len() > 1);
    let token = |special: bool| json!({"content": "<tool>", "special": special, "lstrip": true});
    directory.write(
        "tokenizer_config.json",
        &json!({"added_tokens_decoder": {(id.to_string()): token(false)}}),
    );
    assert_eq!(encoded(&directory, "  <tool>"), [id]);
    assert!(!directory.open().is_special(id));
    directory.write(
        "tokenizer_config.json",
        &json!({"added_tokens_decoder": {(id.to_string()): token(true)}}),
    );
    assert!(directory.open().is_special(id));
    let named =
        json!({"added_tokens_decoder": {(id.to_string()): token(false)}, "eos_token": "<tool>"});
    directory.write("tokenizer_config.json", &named);
    assert!(directory.open().is_special(id), "what is named is special");
}

#[test]
fn older_lists_count_where_the_configuration_has_none() {
    let directory = Directory::new();
    let id = first_id();
    directory.write("added_tokens.json", &json!({"<b>": id + 1, "<a>": id}));
    directory.write(
        "special_tokens_map.json",
        &json!({"additional_special_tokens": ["<b>"], "eos_token": {"content": "<x>"}}),
    );
    assert_eq!(encoded(&directory, "<a><b>"), [id, id + 1]);
    let tokenizer = directory.open();
    assert!(tokenizer.is_special(id + 1) && !tokenizer.is_special(id));
    assert_eq!(
        tokenizer.token_to_id("<x>"),
        None,
        "nothing says which id it has"
    );
    directory.write(
        "tokenizer_config.json",
        &json!({"added_tokens_decoder": {}}),
    );
    assert_eq!(directory.open().token_to_id("<a>"), None);
}

#[test]
fn a_word_of_the_vocabulary_that_is_named_becomes_special() {
    let directory = Directory::new();
    assert!(!directory.open().is_special(97));
    let text = directory.open().id_to_token(97).unwrap();
    directory.write(
        "tokenizer_config.json",
        &json!({"eos_token": text, "add_bos_token": true}),
    );
    assert!(directory.open().is_special(97));
}

#[test]
fn lists_that_do_not_fit_are_refused() {
    let directory = Directory::new();
    let id = first_id() + 5;
    let gap = json!({"added_tokens_decoder": {(id.to_string()): {"content": "<tool>"}}});
    for (config, reason) in [
        (gap, "\"<tool>\" is listed as"),
        (json!({"added_tokens_decoder": []}), "not an object"),
        (
            json!({"added_tokens_decoder": {"x": {"content": "a"}}}),
            "no id",
        ),
        (json!({"added_tokens_decoder": {"1": {}}}), "no text"),
        (json!([]), "tokenizer_config.json"),
    ] {
        directory.write("tokenizer_config.json", &config);
        let error = directory.error();
        assert!(error.contains(reason), "{reason}: {error}");
    }
    directory.remove("tokenizer_config.json");
    directory.write("added_tokens.json", &json!({"<a>": "x"}));
    assert!(directory.error().contains("added_tokens.json"));
}

#[test]
fn without_a_tokenizer_json_other_files_are_read_or_it_is_said_what_to_do() {
    let directory = Directory::new();
    directory.remove("tokenizer.json");
    assert!(directory.error().contains("tokenizer.json"));
    directory.write("vocab.json", &json!({"a": 0, "b": 1, "ab": 2}));
    assert!(directory.error().contains("merges.txt"));
    fs::write(directory.0.join("merges.txt"), "a b\n").unwrap();
    let error = directory.error();
    assert!(
        error.contains("tokenizer_class") && error.contains("save_pretrained"),
        "{error}"
    );
    let config = json!({"tokenizer_class": "GPT2Tokenizer",
                        "added_tokens_decoder": {"3": {"content": "<end>", "special": true}}});
    directory.write("tokenizer_config.json", &config);
    assert_eq!(encoded(&directory, "ab<end>"), [2, 3]);
    directory.write("tekken.json", &json!({}));
    assert_eq!(encoded(&directory, "ab"), [2], "the first that is there");
    fs::write(directory.0.join("tokenizer.model"), [0xff; 20]).unwrap();
    assert!(directory.error().contains("tokenizer.model: "));
}
