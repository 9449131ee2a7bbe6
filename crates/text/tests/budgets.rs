//! Reasoning ends where its budget is spent, in every chat format, with tags as control tokens and
//! as plain text, along grammars and without.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a test helper that panics fails its test, and none uses all of what is shared"
)]

mod schema_generator;
mod walker;

use std::sync::Arc;

use backstop_text::constraint::{
    AnswerShape, CallShape, CallableTool, Opening, ReasoningBudget, TextShape,
};
use backstop_text::{
    ChatFormat, OfferedTools, ParsedMessage, ParserOptions, StreamOptions, TextStream, chat_format,
};
use backstop_types::{ConstraintMatcher, SharedConstraint, TokenId};
use serde_json::json;

use self::schema_generator::Random;
use self::walker::{END_OF_TURN, Walker};

/// A format and its tags.
const FORMATS: &[(&str, &[&str])] = &[
    ("cohere_cmd4", &[]),
    (
        "hermes",
        &["<think>", "</think>", "<tool_call>", "</tool_call>"],
    ),
    ("chatml", &["<think>", "</think>"]),
    ("mistral", &["[THINK]", "[/THINK]", "[TOOL_CALLS]"]),
    (
        "harmony",
        &[
            "<|start|>",
            "<|channel|>",
            "<|constrain|>",
            "<|message|>",
            "<|end|>",
        ],
    ),
    (
        "deepseek_v3",
        &["<think>", "</think>", "<｜tool▁calls▁begin｜>"],
    ),
    (
        "kimi_k2",
        &["<think>", "</think>", "<|tool_calls_section_begin|>"],
    ),
    (
        "qwen3_coder",
        &["<think>", "</think>", "<tool_call>", "</tool_call>"],
    ),
    (
        "glm45",
        &["<think>", "</think>", "<tool_call>", "</tool_call>"],
    ),
];

fn walkers(format: &str, tags: &[&str]) -> Vec<Walker> {
    let without_tags = (!tags.is_empty()).then(|| Walker::new(format, &[], &[]));
    let mut walkers = vec![Walker::new(format, tags, &[])];
    walkers.extend(without_tags);
    walkers
}

fn budget(
    walker: &Walker,
    format: &str,
    tokens: u32,
    opening: Opening,
    grammar: Option<SharedConstraint>,
) -> SharedConstraint {
    let budget = ReasoningBudget {
        tokens,
        tokenizer: Arc::clone(&walker.tokenizer),
        format: chat_format(format).unwrap(),
        opening,
        grammar,
    };
    budget.into_constraint().unwrap()
}

/// The tokens that may come next.
fn allowed(walker: &Walker, matcher: &mut dyn ConstraintMatcher) -> Vec<TokenId> {
    let mut mask = vec![0_u32; walker.vocabulary_size.div_ceil(32)];
    matcher.fill_mask(&mut mask).unwrap();
    let is_allowed = |token: &TokenId| mask[*token as usize / 32] >> (*token % 32) & 1 == 1;
    (0..walker.vocabulary_size as TokenId)
        .filter(is_allowed)
        .collect()
}

/// Says `text` as long as it may choose, and otherwise what it must; then as many tokens more.
fn say(walker: &Walker, constraint: &SharedConstraint, text: &str, more: usize) -> Vec<TokenId> {
    let mut matcher = constraint.0.matcher();
    let mut wanted = walker.tokenizer.encode(text, false).unwrap().into_iter();
    let mut tokens = Vec::new();
    while tokens.len() < 400 {
        let allowed = allowed(walker, &mut *matcher);
        let token = match allowed.as_slice() {
            [only] => *only,
            _ => match wanted.next() {
                Some(token) => token,
                None => break,
            },
        };
        assert!(allowed.contains(&token), "{}", walker.text(&tokens));
        matcher.advance(token).unwrap();
        tokens.push(token);
    }
    tokens.truncate(tokens.len() + more);
    tokens
}

fn parse(
    walker: &Walker,
    format: &ChatFormat,
    opening: Opening,
    tokens: &[TokenId],
) -> ParsedMessage {
    let parser = format.parser(ParserOptions {
        opening,
        parse_tools: true,
        tools: OfferedTools::new(&[]),
        ..ParserOptions::default()
    });
    let options = StreamOptions {
        stop: Vec::new(),
        min_tokens: 0,
        include_stop: false,
        skip_special_tokens: true,
        hidden_tokens: vec![END_OF_TURN],
        parser,
    };
    let mut stream = TextStream::new(Arc::clone(&walker.tokenizer), options);
    let mut events = Vec::new();
    for token in tokens {
        events.extend(stream.push(*token).events);
    }
    events.extend(stream.finish());
    events.into_iter().collect()
}

#[test]
fn reasoning_ends_where_its_budget_is_spent_and_the_answer_follows() {
    for (format, tags) in FORMATS {
        let format = chat_format(format).unwrap();
        for walker in walkers(format.id, tags) {
            for tokens in [0, 1, 7] {
                let constraint = budget(&walker, format.id, tokens, Opening::Reasoning, None);
                let thought = "one two three four five six seven eight nine ten eleven twelve";
                let said = say(&walker, &constraint, thought, 0);
                let raw = walker.text(&said);
                let message = parse(&walker, format, Opening::Reasoning, &said);
                let count = walker
                    .tokenizer
                    .encode(&message.reasoning, false)
                    .unwrap()
                    .len();
                assert!(count <= tokens as usize, "{}: {raw}", format.id);
                assert_eq!(
                    message.reasoning.is_empty(),
                    tokens == 0,
                    "{}: {raw}",
                    format.id
                );
                // What was left of the thought is the answer, where that needs no tag of its own.
                let needs_tag = ["harmony"].contains(&format.id);
                assert!(
                    needs_tag || message.content.ends_with("twelve"),
                    "{}: {raw}",
                    format.id
                );
                let whole = message.reasoning + &message.content;
                assert!(
                    needs_tag || whole.starts_with("one"),
                    "{}: {raw}",
                    format.id
                );
            }
        }
    }
}

#[test]
fn a_budget_that_is_not_spent_allows_everything() {
    for (format, tags) in FORMATS {
        for walker in walkers(format, tags) {
            let constraint = budget(&walker, format, 1000, Opening::Reasoning, None);
            let mut matcher = constraint.0.matcher();
            for token in walker.tokenizer.encode("I think that", false).unwrap() {
                let allowed = allowed(&walker, &mut *matcher);
                assert_eq!(allowed.len(), walker.vocabulary_size, "{format}");
                matcher.advance(token).unwrap();
            }
        }
    }
}

#[test]
fn reasoning_that_the_model_begins_counts_too_and_does_not_begin_again() {
    let openers = [
        ("cohere_cmd4", "<|START_THINKING|>", "<|END_THINKING|>"),
        ("hermes", "<think>", "</think>"),
        ("mistral", "[THINK]", "[/THINK]"),
        (
            "harmony",
            "<|channel|>analysis<|message|>",
            "<|end|><|start|>assistant",
        ),
    ];
    for (format, opener, closer) in openers {
        let (_, tags) = FORMATS.iter().find(|(id, _)| *id == format).unwrap();
        let format = chat_format(format).unwrap();
        for walker in walkers(format.id, tags) {
            let constraint = budget(&walker, format.id, 4, Opening::Turn, None);
            let said = say(
                &walker,
                &constraint,
                &format!("{opener}one two three four five six"),
                0,
            );
            let raw = walker.text(&said);
            assert!(raw.contains(closer), "{}: {raw}", format.id);
            // The answer may be anything, but no reasoning.
            let mut matcher = constraint.0.matcher();
            let end = raw.find(closer).unwrap() + closer.len();
            let again = format!("{}{opener}", &raw[..end]);
            let tokens = walker.tokenizer.encode(&again, false).unwrap();
            let refused = tokens.iter().any(|token| {
                let is_allowed = allowed(&walker, &mut *matcher).contains(token);
                if is_allowed {
                    matcher.advance(*token).unwrap();
                }
                !is_allowed
            });
            assert!(refused, "{}: {again}", format.id);
        }
    }
}

#[test]
fn a_tag_that_has_begun_is_finished_and_a_character_too() {
    let walker = Walker::new("hermes", &[], &[]);
    let format = chat_format("hermes").unwrap();
    let begun = walker.tokenizer.encode("I see.</thi", false).unwrap();
    let length = begun.len() as u32;
    let constraint = budget(&walker, "hermes", length, Opening::Reasoning, None);
    let said = say(&walker, &constraint, "I see.</thinks so", 0);
    let message = parse(&walker, format, Opening::Reasoning, &said);
    assert_eq!(message.reasoning, "I see.", "{}", walker.text(&said));

    // The demo's vocabulary writes this character with several tokens.
    let character = walker.tokenizer.encode("𒀀", false).unwrap();
    assert!(character.len() > 2);
    let constraint = budget(&walker, "hermes", 1, Opening::Reasoning, None);
    let said = say(&walker, &constraint, "𒀀𒀀", 0);
    let message = parse(&walker, format, Opening::Reasoning, &said);
    assert_eq!(
        (message.reasoning.as_str(), message.content.as_str()),
        ("𒀀", "𒀀")
    );
}

#[test]
fn a_grammar_takes_over_where_reasoning_ends() {
    let schema =
        json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
    for (format, tags) in FORMATS.iter().filter(|(format, _)| *format != "chatml") {
        for walker in walkers(format, tags) {
            let tool = CallableTool {
                index: 0,
                name: "f".to_owned(),
                parameters: Some(schema.clone()),
                strict: true,
            };
            let calls = CallShape {
                tools: vec![tool],
                parallel: false,
            };
            let forced = |text, calls| AnswerShape {
                opening: Opening::Reasoning,
                text,
                calls,
            };
            let shapes = [
                forced(None, Some(calls)),
                forced(Some(TextShape::Json(schema.clone())), None),
            ];
            for shape in shapes {
                let grammar = walker.factory.compile(&shape).unwrap();
                let constraint = budget(&walker, format, 5, Opening::Reasoning, Some(grammar));
                let mut random = Random::new(7);
                let said = walker.walk(&constraint, &mut random);
                let id = chat_format(format).unwrap();
                let message = parse(&walker, id, Opening::Reasoning, &said);
                let raw = walker.text(&said);
                let arguments = match shape.calls.is_some() {
                    true => message.tool_calls[0].arguments.clone(),
                    false => message.content.clone(),
                };
                walker::validate(&schema, &arguments)
                    .unwrap_or_else(|error| panic!("{raw}: {error}"));
            }
        }
    }
}

#[test]
fn whoever_begins_anew_with_the_same_tokens_goes_on_alike() {
    for (format, tags) in FORMATS {
        for walker in walkers(format, tags) {
            let constraint = budget(&walker, format, 5, Opening::Reasoning, None);
            let said = say(
                &walker,
                &constraint,
                "one two three four five six seven eight",
                0,
            );
            let mut matcher = constraint.0.matcher();
            for (length, token) in said.iter().enumerate() {
                let mut anew = constraint.0.matcher();
                for token in &said[..length] {
                    anew.advance(*token).unwrap();
                }
                assert_eq!(
                    allowed(&walker, &mut *anew),
                    allowed(&walker, &mut *matcher),
                    "{format}"
                );
                matcher.advance(*token).unwrap();
            }
        }
    }
}

#[test]
fn formats_without_reasoning_have_no_budget() {
    let walker = Walker::new("plain", &[], &[]);
    for (format, opening) in [
        ("plain", Opening::Turn),
        ("llama3_json", Opening::Turn),
        ("hermes", Opening::Text),
    ] {
        let budget = ReasoningBudget {
            tokens: 1,
            tokenizer: Arc::clone(&walker.tokenizer),
            format: chat_format(format).unwrap(),
            opening,
            grammar: None,
        };
        assert_eq!(budget.into_constraint(), None);
    }
}
