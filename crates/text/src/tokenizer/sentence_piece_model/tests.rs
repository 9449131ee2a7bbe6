use serde_json::json;

use super::*;
use crate::Tokenizer;

/// A field of a message.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, value.len() as u8], value].concat()
}

fn number(number: u64, value: u8) -> Vec<u8> {
    let key = number << 3;
    match key < 0x80 {
        true => vec![key as u8, value],
        false => vec![key as u8 | 0x80, (key >> 7) as u8, value],
    }
}

fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
    let float = [&[0x15][..], &score.to_le_bytes()].concat();
    field(
        1,
        &[field(1, text.as_bytes()), float, number(3, kind)].concat(),
    )
}

/// A model of these pieces behind three special ones, all bytes and a space; `space`: whether texts begin
/// with one.
fn model(pieces: &[Vec<u8>], space: u8) -> Vec<u8> {
    let special = [("<unk>", 2), ("<s>", 3), ("</s>", 3)];
    let mut bytes: Vec<u8> = special
        .iter()
        .flat_map(|(text, kind)| piece(text, 0.0, *kind))
        .collect();
    for byte in 0..=255 {
        bytes.extend(piece(&format!("<0x{byte:02X}>"), 0.0, 6));
    }
    bytes.extend(piece(SPACE, -900.0, 1));
    bytes.extend(pieces.concat());
    let trainer = [number(3, 2), number(35, 1), number(40, 0), number(41, 1)].concat();
    bytes.extend(field(2, &trainer));
    bytes.extend(field(3, &[number(3, space), number(4, 0)].concat()));
    bytes
}

fn words() -> Vec<Vec<u8>> {
    let words = [("a", -4.0), ("b", -5.0), ("ab", -1.0), ("\u{2581}ab", -2.0)];
    words
        .iter()
        .map(|(text, score)| piece(text, *score, 1))
        .collect()
}

/// The id of the word in this place.
fn word(place: u32) -> u32 {
    3 + 256 + 1 + place
}

fn read_with(model: &[u8], config: Value) -> Result<SentencePieceVocabulary, String> {
    read(model, config.as_object().unwrap())
}

fn ids(model: &[u8], config: Value, text: &str) -> Vec<u32> {
    let pieces = read_with(model, config).unwrap();
    let tokenizer = Tokenizer::from_sentence_pieces(&pieces).unwrap();
    tokenizer.encode(text, true).unwrap()
}

#[test]
fn the_model_says_how_texts_begin_and_the_configuration_may_forbid_it() {
    let model = model(&words(), 1);
    assert_eq!(ids(&model, json!({}), "ab"), [1, word(3)]);
    assert_eq!(ids(&model, json!({}), "ab\n"), [1, word(3), 3 + 10]);
    assert_eq!(
        ids(&model, json!({"add_bos_token": false}), "ab"),
        [word(3)]
    );
    let config = json!({"add_prefix_space": false, "tokenizer_class": "LlamaTokenizerFast"});
    assert_eq!(ids(&model, config, "ab"), [1, word(2)]);
    let space = word(0) - 1;
    assert_eq!(ids(&model, json!({}), "</s>"), [1, 2]);
    assert_eq!(
        ids(&model, json!({}), "<0x0A>")[..2],
        [1, space],
        "a text, no byte"
    );
}

#[test]
fn user_defined_pieces_are_found_with_the_spaces_in_them() {
    let mut pieces = words();
    pieces.push(piece("\u{2581}\u{2581}", 0.0, 4));
    assert_eq!(
        ids(&model(&pieces, 0), json!({}), "ab  b"),
        [1, word(2), word(4), word(1)]
    );
    let refused = read_with(&model(&pieces, 1), json!({})).unwrap_err();
    assert!(refused.contains("user-defined"), "{refused}");
}

#[test]
fn what_would_not_be_exact_is_refused() {
    let model = model(&words(), 1);
    let also = |number: u8, value: &[u8]| [model.clone(), field(number, value)].concat();
    for (model, reason) in [
        (also(2, &number(3, 1)), "BPE"),
        (also(2, &number(35, 0)), "byte_fallback"),
        (also(2, &number(24, 1)), "behind words"),
        (also(3, &number(4, 1)), "drops spaces"),
        (also(3, &number(5, 0)), "U+2581"),
        (also(3, &field(2, b"rules")), "changes characters"),
        (also(1, &[number(3, 5)].concat()), "unused"),
        (also(1, &field(1, b"\xff")), "UTF-8"),
        (model[..model.len() - 1].to_vec(), "ends within"),
    ] {
        let error = read_with(&model, json!({})).err().unwrap_or_default();
        assert!(error.contains(reason), "{reason}: {error}");
    }
    for (config, reason) in [
        (json!({"tokenizer_class": "T5Tokenizer"}), "T5Tokenizer"),
        (json!({"legacy": false}), "legacy"),
        (json!({"add_eos_token": true}), "add_eos_token"),
    ] {
        let error = read_with(&model, config).err().unwrap_or_default();
        assert!(error.contains(reason), "{reason}: {error}");
    }
}
