//! A vocabulary of the 256 bytes, where a byte's id is its value, and a few marks.

use backstop_text::Tokenizer;
use serde_json::{Map, Value, json};

/// Ends a turn.
pub(crate) const EOS: u32 = 256;
/// Ids are below this.
pub(crate) const VOCAB_SIZE: u32 = 271;

const MARKS: [(&str, bool); 15] = [
    ("<|END_OF_TURN_TOKEN|>", true),
    ("<|START_THINKING|>", false),
    ("<|END_THINKING|>", false),
    ("<|START_TEXT|>", false),
    ("<|END_TEXT|>", false),
    ("<|START_ACTION|>", false),
    ("<|END_ACTION|>", false),
    ("<|START_TOOL_RESULT|>", false),
    ("<|END_TOOL_RESULT|>", false),
    ("<|fim_prefix|>", false),
    ("<|fim_middle|>", false),
    ("<|fim_suffix|>", false),
    ("<|fim_pad|>", false),
    ("<|repo_name|>", false),
    ("<|file_sep|>", false),
];

pub(crate) fn tokenizer() -> Tokenizer {
    let mut vocab = Map::new();
    for byte in 0..=255u8 {
        vocab.insert(character(byte).to_string(), json!(byte));
    }
    let marks: Vec<Value> = MARKS
        .iter()
        .zip(256u32..)
        .map(|((content, special), id)| {
            json!({"id": id, "content": content, "special": special, "normalized": false,
                   "single_word": false, "lstrip": false, "rstrip": false})
        })
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                            "use_regex": false});
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": marks,
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null,
        "decoder": byte_level, "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
}

/// GPT-2's alphabet: printable Latin-1 stands for itself, the rest follows from U+0100 on.
fn character(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|other| !printable(*other)).count() as u32;
    char::from_u32(0x100 + rank).unwrap()
}
