//! A small byte-level vocabulary for tests.

use serde_json::{Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// Byte-level BPE over the full alphabet, with a few merges and added tokens; 256 is `Ġ` + `h`.
pub(crate) fn byte_level_json() -> Value {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let mut vocab = serde_json::Map::new();
    for (id, character) in alphabet.iter().enumerate() {
        vocab.insert(character.to_string(), json!(id));
    }
    vocab.insert("Ġh".to_owned(), json!(256));
    vocab.insert("ðŁ".to_owned(), json!(257));
    vocab.insert("<|END_OF_TURN_TOKEN|>".to_owned(), json!(258));
    vocab.insert("<|START_TEXT|>".to_owned(), json!(262));
    let added = |id: u32, content: &str, special: bool| {
        json!({"id": id, "content": content, "special": special, "normalized": false,
               "single_word": false, "lstrip": false, "rstrip": false})
    };
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": [added(258, "<|END_OF_TURN_TOKEN|>", true), added(262, "<|START_TEXT|>", false)],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": [["Ġ", "h"], ["ð", "Ł"]]}
    })
}
