use std::collections::BTreeSet;

use tokenizers::{
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper,
};

use super::*;

/// The pieces of a text; what merging would see, but in the text's own letters.
fn pieces(name: &str, text: &str) -> Vec<String> {
    let json = PreTokenizer::named(name).unwrap().to_json();
    let steps: PreTokenizerWrapper = serde_json::from_value(json).unwrap();
    let mut cut = PreTokenizedString::from(text);
    steps.pre_tokenize(&mut cut).unwrap();
    let splits = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
    let pieces = splits.into_iter();
    pieces
        .map(|(_, (start, end), _)| text[start..end].to_owned())
        .collect()
}

#[test]
fn every_name_has_one_rule_that_loses_nothing() {
    let mut names = BTreeSet::new();
    let text = "It'S 12345 naïveté\u{301}s,\t\tHelloWorld  \r\n\n 你好世界! ☺️ ١٢٣٤ foo_bar/baz\u{85} end  ";
    for name in PRE_TOKENIZERS.iter().flat_map(|rule| rule.names) {
        assert!(names.insert(name), "{name} is there twice");
        assert_eq!(pieces(name, text).concat(), text, "{name}");
    }
}

#[test]
fn digits_are_grouped_as_each_family_has_them() {
    let cases = [
        ("gpt-2", vec!["1234567"]),
        ("default", vec!["123", "456", "7"]),
        ("llama-bpe", vec!["123", "456", "7"]),
        ("qwen2", vec!["1", "2", "3", "4", "5", "6", "7"]),
        ("deepseek-llm", vec!["1", "2", "3", "4", "5", "6", "7"]),
        ("deepseek-v3", vec!["123", "456", "7"]),
        ("tekken", vec!["1", "2", "3", "4", "5", "6", "7"]),
        ("gpt-4o", vec!["123", "456", "7"]),
        ("cohere2moe", vec!["1", "234", "567"]),
        ("superbpe", vec!["1", "234", "567"]),
        ("viking", vec!["1", "2", "3", "4", "5", "6", "7"]),
    ];
    for (name, expected) in cases {
        assert_eq!(pieces(name, "1234567"), expected, "{name}");
    }
}

#[test]
fn words_end_where_each_family_ends_them() {
    let cases = [
        ("gpt-2", "HelloWorld's", vec!["HelloWorld", "'s"]),
        ("tekken", "HelloWorld's", vec!["Hello", "World", "'s"]),
        ("gpt-4o", "HelloWorld's", vec!["Hello", "World's"]),
        (
            "kimi-k2",
            "HelloWorld's你好a",
            vec!["Hello", "World's", "你好", "a"],
        ),
        ("tekken", "ÉTÉÉté", vec!["ÉTÉÉté"]),
        ("tekken", "étéÉTÉ", vec!["été", "ÉTÉ"]),
        ("deepseek-coder", "a b\n", vec!["a", " b", "\n"]),
        ("bloom", "a-b, c", vec!["a-b", ",", " c"]),
        ("exaone-moe", "a b  c", vec!["a b", " ", " c"]),
        ("qwen2", "e\u{301}x", vec!["e", "\u{301}x"]),
        ("qwen35", "e\u{301}x", vec!["e\u{301}x"]),
    ];
    for (name, text, expected) in cases {
        assert_eq!(pieces(name, text), expected, "{name}");
    }
}
