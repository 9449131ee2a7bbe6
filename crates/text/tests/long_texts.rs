//! Long texts are encoded in pieces with the tokens of the whole, and refused once they are too long.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

use std::path::{Path, PathBuf};

use backstop_text::{BytePairVocabulary, PromptText, Tokenizer, TokenizerError};
use serde_json::{Value, json};

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo/tokenizer.json")
}

fn load(json: &Value) -> Tokenizer {
    Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
}

/// The demo model's tokens and merges under another rule by which text is cut.
fn with_rule(file: &Value, rule: &str) -> Tokenizer {
    let mut tokens: Vec<(u64, String)> = file["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(token, id)| (id.as_u64().unwrap(), token.clone()))
        .collect();
    tokens.sort();
    let tokens: Vec<String> = tokens.into_iter().map(|(_, token)| token).collect();
    let merge = |merge: &Value| match merge {
        Value::Array(pair) => {
            let halves: Vec<&str> = pair.iter().filter_map(Value::as_str).collect();
            halves.join(" ")
        }
        merge => merge.as_str().unwrap().to_owned(),
    };
    let vocabulary = BytePairVocabulary {
        pre_tokenizer: rule.to_owned(),
        tokens,
        merges: file["model"]["merges"]
            .as_array()
            .unwrap()
            .iter()
            .map(merge)
            .collect(),
        ..BytePairVocabulary::default()
    };
    Tokenizer::from_byte_pairs(&vocabulary).unwrap()
}

fn split(regex: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
}

/// Rules of models whose files are not here.
fn other_rules() -> Vec<(&'static str, Vec<Value>)> {
    let deepseek = vec![
        split(r"\p{N}{1,3}"),
        split("[一-龥぀-ゟ゠-ヿ]+"),
        split(concat!(
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"##,
            r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )),
    ];
    let o200k = vec![split(concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ))];
    vec![("deepseek-v3", deepseek), ("o200k", o200k)]
}

/// A vocabulary of pieces that begin with a mark for a space.
fn pieces_json(model: Value, pre_tokenizer: Value, normalizer: Value) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "Fuse"}]},
        "model": model,
    })
}

fn piece_tokenizers() -> Vec<(String, Tokenizer)> {
    let ascii = (0x21..0x7f_u8).map(|byte| char::from(byte).to_string());
    let words = [
        "▁",
        "\n",
        "é",
        "▁t",
        "he",
        "▁the",
        "▁a",
        "nd",
        "▁and",
        "in",
        "on",
        "er",
        "▁▁",
        "▁▁▁▁",
    ];
    let words = words.iter().map(|word| (*word).to_owned());
    let tokens: Vec<String> = ["<unk>".to_owned()]
        .into_iter()
        .chain(ascii)
        .chain(words)
        .collect();
    let scores: Vec<Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!([
                token,
                -10.0 / token.chars().count() as f64 - id as f64 / 1e3
            ])
        })
        .collect();
    let unigram = json!({"type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": scores});
    let ids: serde_json::Map<String, Value> = tokens
        .iter()
        .cloned()
        .zip((0..).map(|id: u32| json!(id)))
        .collect();
    let merges = [
        ["▁", "t"],
        ["h", "e"],
        ["▁t", "he"],
        ["▁", "a"],
        ["n", "d"],
        ["▁a", "nd"],
        ["i", "n"],
        ["o", "n"],
        ["e", "r"],
        ["▁", "▁"],
        ["▁▁", "▁▁"],
    ];
    let merged = json!({"type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": true,
                        "continuing_subword_prefix": null, "end_of_word_suffix": null,
                        "byte_fallback": false, "vocab": ids, "merges": merges});
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let prepend =
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]});
    let metaspace = |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
    let mut all = vec![
        (
            "merged in one".to_owned(),
            pieces_json(merged.clone(), Value::Null, replace),
        ),
        (
            "merged in one behind a space".to_owned(),
            pieces_json(merged.clone(), Value::Null, prepend),
        ),
    ];
    for scheme in ["first", "always", "never"] {
        all.push((
            format!("unigram, {scheme}"),
            pieces_json(unigram.clone(), metaspace(scheme), Value::Null),
        ));
        all.push((
            format!("merged, {scheme}"),
            pieces_json(merged.clone(), metaspace(scheme), Value::Null),
        ));
    }
    all.into_iter()
        .map(|(name, json)| (name, load(&json)))
        .collect()
}

fn tokenizers() -> Vec<(String, Tokenizer)> {
    let file: Value = serde_json::from_str(&std::fs::read_to_string(demo()).unwrap()).unwrap();
    let mut all = vec![("demo".to_owned(), load(&file))];
    for rule in ["gpt-2", "llama-bpe", "qwen2", "smollm", "default"] {
        all.push((rule.to_owned(), with_rule(&file, rule)));
    }
    for (name, mut rules) in other_rules() {
        rules.push(json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}));
        let mut file = file.clone();
        file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": rules});
        all.push((name.to_owned(), load(&file)));
    }
    all.extend(piece_tokenizers());
    all
}

/// Text of about so many bytes of all kinds: prose, code, numbers, marks, other scripts, tables.
fn mixed(bytes: usize) -> String {
    let parts = [
        "The quick brown fox, and then it's over. ",
        "in 1234567 years' time\n",
        "fn main() {\n    let x = 3;\n}\n",
        "\"a\": [1, 2.5, \"b c\"],\r\n",
        "naïve café — “quoted” e\u{301}\u{302}\n\n",
        "你好，世界。这是一个测试。\n末尾\n",
        "            deeply indented\n",
        "| a    |    b   |\n",
        "🦀🎉👨‍👩‍👧 emoji ",
        "don't / and/or <|x|> http://a.b/c?d=e#f ",
        "\t\ttabs\tand  two spaces ",
        "x\u{a0}y\u{3000}z ",
        "/ begins a line\n/ again ",
    ];
    let mut state = 1_u64;
    let mut text = String::new();
    while text.len() < bytes {
        // Knuth's constants; any order will do.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text.push_str(parts[(state >> 33) as usize % parts.len()]);
    }
    text
}

#[test]
fn the_tokens_of_a_long_text_are_those_of_the_whole() {
    for (name, tokenizer) in tokenizers() {
        // Too long without a cut. Where a space goes before each piece there is none.
        let by_pieces = name.contains("merged") || name.contains("unigram");
        let text = mixed(if by_pieces { 300 << 10 } else { 800 << 10 });
        let whole = tokenizer.encode(&text, true).unwrap();
        let pieces = tokenizer.encode_within(&PromptText::raw(text), true, usize::MAX);
        assert!(pieces.is_ok_and(|pieces| pieces == whole), "{name}");
    }
}

fn hostile(bytes: usize) -> Vec<(&'static str, String)> {
    let of = |unit: &str| unit.repeat(bytes / unit.len());
    vec![
        ("spaces", of(" ")),
        ("a letter", of("a")),
        (
            "spaces, then a letter",
            " ".repeat(bytes / 10) + &"a".repeat(bytes - bytes / 10),
        ),
        ("newlines", of("\n")),
        ("emoji", of("🦀")),
        ("combining marks", of("\u{301}")),
        ("joined emoji", of("👨\u{200d}")),
        ("digits", of("1")),
        ("marks", of("<|")),
        ("control tokens", of("<|END_TEXT|>")),
        ("carriage returns", of("\r \n")),
        ("apostrophes", of("'s")),
    ]
}

#[test]
fn what_is_too_long_is_refused_whatever_it_is() {
    let text_bytes = 1 << 20;
    for (name, tokenizer) in tokenizers() {
        for (kind, text) in hostile(text_bytes) {
            let result = tokenizer.encode_within(&PromptText::raw(text), false, 4096);
            match result {
                Err(TokenizerError::TooLong { tokens }) => assert!(tokens > 4096, "{name}, {kind}"),
                // One unknown token for all of it, or a normalizer that composes it.
                Err(TokenizerError::Unbroken) | Ok(_) => {
                    assert!(!name.contains("demo"), "{name}, {kind}")
                }
                Err(error) => panic!("{name}, {kind}: {error}"),
            }
        }
    }
}

#[test]
fn what_fits_has_the_tokens_of_the_whole_whatever_it_is() {
    for (name, tokenizer) in tokenizers() {
        for (kind, text) in hostile(150 << 10) {
            let whole = tokenizer.encode(&text, false).unwrap();
            // Pieces that are not in the vocabulary are one unknown token, however many.
            let tokens_max = match name.contains("merged") || name.contains("unigram") {
                true => text.len() + 1,
                false => whole.len(),
            };
            let prompt = PromptText::raw(text);
            let fits = tokenizer.encode_within(&prompt, false, tokens_max);
            assert!(fits.unwrap() == whole, "{name}, {kind}");
            if whole.len() > 1 {
                let result = tokenizer.encode_within(&prompt, false, whole.len() - 1);
                assert!(
                    matches!(result, Err(TokenizerError::TooLong { .. })),
                    "{name}, {kind}"
                );
            }
        }
    }
}

#[test]
fn a_long_run_does_not_stop_words_from_being_cut() {
    // Regular expressions that give up would leave all that follows as one word.
    let file: Value = serde_json::from_str(&std::fs::read_to_string(demo()).unwrap()).unwrap();
    for rule in ["gpt-2", "llama-bpe", "qwen2"] {
        let tokenizer = with_rule(&file, rule);
        let run = " ".repeat(760 << 10);
        let tail = " the cat's 12 and\n more";
        let tokens = tokenizer.encode(&format!("{run}{tail}"), false).unwrap();
        let expected = tokenizer.encode(&format!("        {tail}"), false).unwrap();
        assert_eq!(
            tokens[tokens.len() - 5..],
            expected[expected.len() - 5..],
            "{rule}"
        );
    }
}
