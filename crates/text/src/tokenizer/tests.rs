//! Tests of the tokenizer on small vocabularies of each supported kind.

use serde_json::{Value, json};

use super::{Tokenizer, TokenizerError};
use crate::test_vocabulary::byte_level_json;

fn load(json: &Value) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_json(json.to_string().as_bytes())
}

fn joined_bytes(tokenizer: &Tokenizer, text: &str) -> Vec<u8> {
    let ids = tokenizer.encode(text, false).unwrap();
    ids.iter()
        .flat_map(|id| tokenizer.token_bytes(*id).unwrap().to_vec())
        .collect()
}

#[test]
fn every_byte_of_the_alphabet_is_inverted() {
    let tokenizer = load(&byte_level_json()).unwrap();
    let mut seen: Vec<u8> = (0..256)
        .map(|id| tokenizer.token_bytes(id).unwrap()[0])
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..=255).collect::<Vec<u8>>());
    assert_eq!(tokenizer.token_bytes(256).unwrap(), b" h");
    assert_eq!(tokenizer.token_bytes(257).unwrap(), b"\xf0\x9f");
    assert_eq!(tokenizer.token_text(257), "\u{fffd}");
}

#[test]
fn filler_tokens_have_texts_that_nothing_is_encoded_to() {
    let tokenizer = load(&byte_level_json()).unwrap();
    let size = tokenizer.vocab_size();
    let filled = load(&byte_level_json())
        .unwrap()
        .with_filler_tokens(size + 2);
    assert_eq!(filled.vocab_size(), size + 2);
    let last = size as u32 + 1;
    let text = format!(" #{last}");
    assert_eq!(filled.token_bytes(last).unwrap(), text.as_bytes());
    assert_eq!(
        filled.encode(&text, false).unwrap(),
        tokenizer.encode(&text, false).unwrap()
    );
    assert_eq!(tokenizer.with_filler_tokens(3).vocab_size(), size);
}

#[test]
fn bytes_of_the_tokens_are_the_bytes_of_the_text() {
    let tokenizer = load(&byte_level_json()).unwrap();
    for text in [
        "hi there",
        "  a\n\n\tb  ",
        "naïve 🦀 日本語",
        "it's 12345 <x>",
        "",
        "\u{0}\u{ad}",
    ] {
        assert_eq!(joined_bytes(&tokenizer, text), text.as_bytes(), "{text:?}");
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
    }
}

#[test]
fn splitting_keeps_up_with_long_runs() {
    let tokenizer = load(&byte_level_json()).unwrap();
    for text in [
        " ".repeat(300_000) + "x",
        "a".repeat(300_000),
        "\n ".repeat(100_000),
    ] {
        assert_eq!(joined_bytes(&tokenizer, &text).len(), text.len());
    }
}

#[test]
fn added_tokens_are_their_content_and_holes_are_nothing() {
    let tokenizer = load(&byte_level_json()).unwrap();
    let ids = tokenizer
        .encode("<|START_TEXT|>h<|END_OF_TURN_TOKEN|>", true)
        .unwrap();
    assert_eq!((ids[0], ids[2]), (262, 258));
    assert_eq!(tokenizer.token_bytes(262).unwrap(), b"<|START_TEXT|>");
    assert!(tokenizer.is_special(258) && !tokenizer.is_special(262));
    assert_eq!(tokenizer.token_to_id("<|START_TEXT|>"), Some(262));
    assert_eq!(tokenizer.id_to_token(256).as_deref(), Some("Ġh"));
    assert_eq!(tokenizer.vocab_size(), 263);
    for missing in [259, 261, 263, u32::MAX] {
        assert_eq!(tokenizer.token_bytes(missing), None);
        assert_eq!(tokenizer.token_text(missing), "");
        assert!(!tokenizer.is_special(missing));
    }
}

#[test]
fn truncation_in_the_file_is_ignored() {
    let tokenizer = load(&byte_level_json()).unwrap();
    assert_eq!(tokenizer.encode("abcdefgh", false).unwrap().len(), 8);
}

#[test]
fn text_vocabularies_with_byte_fallback() {
    let mut json = byte_level_json();
    json["pre_tokenizer"] = Value::Null;
    json["added_tokens"] = json!([]);
    json["model"] = json!({
        "type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "merges": [["▁", "h"]],
        "vocab": {"<unk>": 0, "▁": 1, "h": 2, "▁h": 3, "<0xC3>": 4, "<0xA9>": 5, "<0xZZ>": 6},
    });
    json["decoder"] = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]});
    let tokenizer = load(&json).unwrap();
    assert_eq!(tokenizer.token_bytes(3).unwrap(), b" h");
    assert_eq!(tokenizer.token_bytes(4).unwrap(), b"\xc3");
    assert_eq!(tokenizer.token_bytes(6).unwrap(), b"<0xZZ>");
    json["decoder"] =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    assert_eq!(load(&json).unwrap().token_bytes(3).unwrap(), b" h");
}

#[test]
fn an_unknown_decoder_is_named() {
    let mut json = byte_level_json();
    json["decoder"] = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    assert!(load(&json).unwrap_err().to_string().contains("WordPiece"));
    json["decoder"] = json!({"type": "Sequence", "decoders": [
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}, {"type": "Fuse"},
    ]});
    assert!(load(&json).unwrap_err().to_string().contains("Strip"));
    json["decoder"] = Value::Null;
    assert!(load(&json).unwrap_err().to_string().contains("none"));
    assert!(Tokenizer::from_json(b"{}").is_err());
    assert!(Tokenizer::from_file("/nonexistent/tokenizer.json").is_err());
}

#[test]
fn what_is_no_small_file_is_refused() {
    let error = Tokenizer::from_file("/dev/zero").unwrap_err().to_string();
    assert!(error.ends_with("not a regular file"), "{error}");
    let many = format!("[{}0]", "0,".repeat(8 << 20));
    let error = Tokenizer::from_json(many.as_bytes())
        .unwrap_err()
        .to_string();
    assert!(error.contains("JSON values"), "{error}");
}
