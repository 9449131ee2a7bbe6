use serde_json::json;

use super::*;
use crate::test_vocabulary::byte_level_json;
use crate::{ControlTexts, SentencePieceVocabulary, chat_format};

/// A byte-level vocabulary that has these tokens as well, which are not marked as special.
fn tokenizer(tokens: &[&str]) -> Tokenizer {
    let mut vocabulary = byte_level_json();
    for (token, id) in tokens.iter().zip(300..) {
        vocabulary["model"]["vocab"][token] = json!(id);
        let added = vocabulary["added_tokens"].as_array_mut().unwrap();
        added.push(
            json!({"id": id, "content": token, "special": false, "normalized": false,
                          "single_word": false, "lstrip": false, "rstrip": false}),
        );
    }
    Tokenizer::from_json(vocabulary.to_string().as_bytes()).unwrap()
}

/// The prompt of a model with these tokens for the parts `context`, `before` and `behind`, as text.
fn prompt(tokens: &[&str]) -> String {
    let tokenizer = tokenizer(tokens);
    let fim = FimTokens::detect(&tokenizer).unwrap();
    written(&tokenizer, &fim)
}

fn written(tokenizer: &Tokenizer, fim: &FimTokens) -> String {
    let encode = |text| tokenizer.encode(text, false).unwrap();
    let parts = FimParts {
        context: encode("context"),
        prefix: encode("before"),
        suffix: encode("behind"),
    };
    let prompt = fim.prompt(tokenizer, parts, true).unwrap();
    tokenizer.decode(&prompt, false).unwrap()
}

#[test]
fn each_family_has_its_order() {
    let qwen = ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"];
    assert_eq!(
        prompt(&[&qwen[..], &["<|repo_name|>", "<|file_sep|>"]].concat()),
        "context<|fim_prefix|>before<|fim_suffix|>behind<|fim_middle|>"
    );
    assert_eq!(
        prompt(&["<fim_prefix>", "<fim_middle>", "<fim_suffix>"]),
        "context<fim_prefix>before<fim_suffix>behind<fim_middle>"
    );
    assert_eq!(
        prompt(&["[PREFIX]", "[MIDDLE]", "[SUFFIX]"]),
        "context[SUFFIX]behind[PREFIX]before"
    );
    assert_eq!(
        prompt(&["<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>"]),
        "context<｜fim▁begin｜>before<｜fim▁hole｜>behind<｜fim▁end｜>"
    );
    assert_eq!(
        prompt(&["▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>"]),
        "context▁<PRE>before▁<SUF>behind▁<MID>"
    );
    assert_eq!(
        prompt(&["<|code_prefix|>", "<|code_middle|>", "<|code_suffix|>"]),
        "context<|code_prefix|>before<|code_suffix|>behind<|code_middle|>"
    );
    assert_eq!(
        prompt(&["<[fim-suffix]>", "<[fim-prefix]>", "<[fim-middle]>"]),
        "context<[fim-suffix]>behind<[fim-prefix]>before<[fim-middle]>"
    );
}

#[test]
fn every_family_is_known_by_its_tokens_or_by_its_name_alone() {
    for family in FIM_FAMILIES {
        let tokens: Vec<&str> = family.texts().collect();
        let tokenizer = tokenizer(&tokens);
        let named = FimTokens::named(&tokenizer, family.id).unwrap();
        let detected = FimTokens::detect(&tokenizer).unwrap();
        match family.id {
            "mellum" => assert_ne!(named.order, detected.order),
            _ => assert_eq!(named, detected, "{}", family.id),
        }
        assert!(named.ends.windows(2).all(|pair| pair[0] < pair[1]));
        let lacking = tests::tokenizer(&tokens[1..]);
        let error = FimTokens::named(&lacking, family.id).unwrap_err();
        assert!(error.contains(tokens[0]), "{error}");
    }
    let tokenizer = tokenizer(&["<|fim_prefix|>", "<|fim_suffix|>"]);
    assert_eq!(FimTokens::detect(&tokenizer), None);
    let error = FimTokens::named(&tokenizer, "unheard-of").unwrap_err();
    assert!(error.contains("qwen") && error.contains("none"), "{error}");
}

#[test]
fn all_that_ends_a_middle_is_known() {
    let tokens = [
        "<fim_prefix>",
        "<fim_middle>",
        "<fim_suffix>",
        "<fim_pad>",
        "<file_sep>",
        "<repo_name>",
        "<|endoftext|>",
        "<unrelated>",
    ];
    let tokenizer = tokenizer(&tokens);
    let fim = FimTokens::detect(&tokenizer).unwrap();
    assert_eq!(fim.ends(), [300, 301, 302, 303, 304, 305, 306]);
    assert_eq!((fim.file(), fim.repository()), (Some(304), Some(305)));
}

#[test]
fn a_file_may_name_the_tokens() {
    let ids = |middle| FimIds {
        prefix: Some(300),
        suffix: Some(301),
        middle,
        padding: Some(303),
        ..FimIds::default()
    };
    let foreign = tokenizer(&["<a>", "<b>", "<c>", "<d>"]);
    let fim = FimTokens::from_ids(&foreign, ids(Some(302))).unwrap();
    assert_eq!(written(&foreign, &fim), "context<a>before<b>behind<c>");
    assert_eq!(fim.ends(), [300, 301, 302, 303]);
    assert_eq!(FimTokens::from_ids(&foreign, ids(None)), None);
    // What is known of a family is more than what files say.
    let known = tokenizer(&["[PREFIX]", "[SUFFIX]", "[MIDDLE]", "<d>"]);
    let fim = FimTokens::from_ids(&known, ids(Some(302))).unwrap();
    assert_eq!(written(&known, &fim), "context[SUFFIX]behind[PREFIX]before");
    assert_eq!(fim.ends(), [300, 301, 302, 303]);
}

#[test]
fn texts_of_control_tokens_stay_text() {
    let tokens = ["<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"];
    let tokenizer = tokenizer(&tokens);
    let controls = ControlTexts::new(&tokenizer, chat_format("plain").unwrap(), &[]).unwrap();
    let text = "a<fim_suffix>b<|END_OF_TURN_TOKEN|><fim_pad>";
    let prompt = controls.as_text(text.to_owned());
    let encoded = tokenizer.encode_within(&prompt, false, 1000).unwrap();
    assert!(encoded.iter().all(|token| *token < 258), "{encoded:?}");
    assert_eq!(tokenizer.decode(&encoded, false).unwrap(), text);
    let raw = tokenizer.encode(text, false).unwrap();
    assert!(raw.contains(&302) && raw.contains(&258) && raw.contains(&303));
}

#[test]
fn a_suffix_begins_without_the_space_that_texts_begin_with() {
    let bytes = (0..=255).map(|byte: u8| format!("<0x{byte:02X}>"));
    let pieces = ["a", "b", "\u{2581}", "ab", "\u{2581}a", "<s>"].map(str::to_owned);
    let tokens: Vec<String> = bytes.chain(pieces).collect();
    let mut vocabulary = SentencePieceVocabulary {
        scores: (0..tokens.len()).map(|id| -(id as f64)).collect(),
        normal: (256..261).collect(),
        control: vec![261],
        tokens,
        adds_space: true,
        ..SentencePieceVocabulary::default()
    };
    let continuation = |vocabulary: &SentencePieceVocabulary, text: PromptText| {
        let tokenizer = Tokenizer::from_sentence_pieces(vocabulary).unwrap();
        tokenizer.encode_continuation(&text, 10).unwrap()
    };
    let raw = |text: &str| PromptText::raw(text.to_owned());
    let tokenizer = Tokenizer::from_sentence_pieces(&vocabulary).unwrap();
    assert_eq!(tokenizer.encode("ab", false).unwrap(), [258, 259]);
    assert_eq!(continuation(&vocabulary, raw("ab")), [259]);
    assert_eq!(continuation(&vocabulary, raw(" ab")), [258, 259]);
    let marked = PromptText::with_content_points("<s>a".to_owned(), vec![1]);
    assert_eq!(continuation(&vocabulary, marked).last(), Some(&256));
    assert_eq!(continuation(&vocabulary, raw("")), [0u32; 0]);
    vocabulary.adds_space = false;
    assert_eq!(continuation(&vocabulary, raw("ab")), [259]);
    let tokenizer = Tokenizer::from_sentence_pieces(&vocabulary).unwrap();
    let long = tokenizer.encode_continuation(&raw(&"b".repeat(11)), 10);
    assert!(matches!(long, Err(TokenizerError::TooLong { tokens: 11 })));
}

#[test]
fn the_end_of_a_text_is_no_mark_of_a_middle() {
    let marks = [
        "<|fim_prefix|>",
        "<|fim_middle|>",
        "<|fim_suffix|>",
        "<|repo_name|>",
        "<|file_sep|>",
    ];
    let tokenizer = tokenizer(&[&marks[..], &["<|fim_pad|>", "<|endoftext|>"]].concat());
    let id = |text| tokenizer.token_to_id(text).unwrap();
    let detected = FimTokens::detect(&tokenizer).unwrap();
    assert!(marks.iter().all(|text| detected.is_mark(id(text))));
    let end = id("<|endoftext|>");
    assert!(detected.ends().contains(&end) && !detected.is_mark(end));
    let ids = FimIds {
        prefix: Some(id(marks[0])),
        middle: Some(id(marks[1])),
        suffix: Some(id(marks[2])),
        padding: Some(id("<|fim_pad|>")),
        ..FimIds::default()
    };
    let named = FimTokens::from_ids(&tokenizer, ids).unwrap();
    assert!(named.is_mark(id("<|fim_pad|>")) && !named.is_mark(end));
    assert!(named.is_mark(id("<|file_sep|>")) && named.ends().contains(&end));
}
