//! Tests of a whole answer, from tokens to events.

use std::sync::Arc;

use backstop_types::TokenId;

use super::{StreamOptions, TextStream};
use crate::constraint::Opening;
use crate::test_vocabulary::byte_level_json;
use crate::{ParsedMessage, ParserOptions, Tokenizer, chat_format};

const END_OF_TURN: TokenId = 258;

fn options(format: &str, stop: &[&str]) -> StreamOptions {
    let parser = ParserOptions {
        opening: Opening::Reasoning,
        parse_tools: true,
        ..Default::default()
    };
    StreamOptions {
        stop: stop.iter().map(|stop| (*stop).to_owned()).collect(),
        min_tokens: 0,
        include_stop: false,
        skip_special_tokens: true,
        hidden_tokens: Vec::new(),
        parser: chat_format(format).unwrap().parser(parser),
    }
}

fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::from_json(byte_level_json().to_string().as_bytes()).unwrap())
}

/// Runs a text through a stream, token by token.
fn run(options: StreamOptions, text: &str) -> (ParsedMessage, Option<String>) {
    let tokenizer = tokenizer();
    let tokens = tokenizer.encode(text, false).unwrap();
    let mut stream = TextStream::new(tokenizer, options);
    let mut message = ParsedMessage::default();
    let mut stopped = None;
    for token in tokens {
        let delta = stream.push(token);
        delta
            .events
            .into_iter()
            .for_each(|event| message.apply(event));
        stopped = stopped.or(delta.stopped);
    }
    stream
        .finish()
        .into_iter()
        .for_each(|event| message.apply(event));
    assert_eq!(stream.finish(), []);
    (message, stopped)
}

#[test]
fn an_answer_with_reasoning() {
    let text = "Hm é🦀.<|END_THINKING|><|START_TEXT|>Hi 日本!<|END_TEXT|><|END_OF_TURN_TOKEN|>";
    let (message, stopped) = run(options("cohere_cmd4", &[]), text);
    assert_eq!(
        (message.reasoning.as_str(), message.content.as_str()),
        ("Hm é🦀.", "Hi 日本!")
    );
    assert_eq!(stopped, None);
}

#[test]
fn stop_strings_are_found_in_the_raw_text() {
    let text = "a b<|START_TEXT|>c END d";
    let (message, stopped) = run(options("cohere_cmd4", &["END"]), text);
    assert_eq!(
        (message.reasoning.as_str(), message.content.as_str()),
        ("a b", "c ")
    );
    assert_eq!(stopped.as_deref(), Some("END"));
    let (message, stopped) = run(options("cohere_cmd4", &["b"]), text);
    assert_eq!(
        (message.reasoning.as_str(), stopped.as_deref()),
        ("a ", Some("b"))
    );
    let mut including = options("plain", &["c E"]);
    including.include_stop = true;
    assert_eq!(run(including, text).0.content, "a b<|START_TEXT|>c E");
    let (message, stopped) = run(options("plain", &["END OF"]), text);
    assert_eq!((message.content.as_str(), stopped), (text, None));
}

#[test]
fn stop_strings_do_not_match_in_tags() {
    let text = "a b<|START_TEXT|>c";
    let (message, stopped) = run(options("cohere_cmd4", &["START", "b<", "T|>c", "bc"]), text);
    assert_eq!(
        (message.reasoning.as_str(), message.content.as_str()),
        ("a b", "c")
    );
    assert_eq!(stopped, None);
    assert_eq!(run(options("plain", &["START"]), text).0.content, "a b<|");
}

#[test]
fn special_and_hidden_tokens_do_not_show() {
    let text = "a<|END_OF_TURN_TOKEN|>b<|START_TEXT|>c";
    assert_eq!(
        run(options("plain", &[]), text).0.content,
        "ab<|START_TEXT|>c"
    );
    let mut shown = options("plain", &[]);
    shown.skip_special_tokens = false;
    assert_eq!(run(shown, text).0.content, text);
    let mut hidden = options("plain", &[]);
    hidden.skip_special_tokens = false;
    hidden.hidden_tokens = vec![END_OF_TURN, 262];
    assert_eq!(run(hidden, text).0.content, "abc");
}

#[test]
fn special_tokens_reach_the_parser_that_needs_them() {
    let mut json = byte_level_json();
    json["added_tokens"][1]["special"] = true.into();
    let tokenizer = Arc::new(Tokenizer::from_json(json.to_string().as_bytes()).unwrap());
    assert!(tokenizer.is_special(262));
    let mut stream = TextStream::new(tokenizer.clone(), options("cohere_cmd4", &[]));
    let tokens = tokenizer.encode("a<|START_TEXT|>b", false).unwrap();
    let events = tokens
        .into_iter()
        .flat_map(|token| stream.push(token).events);
    let message = ParsedMessage::from_iter(events);
    assert_eq!(
        (message.reasoning.as_str(), message.content.as_str()),
        ("a", "b")
    );
}

#[test]
fn an_answer_cut_inside_a_character() {
    let mut stream = TextStream::new(tokenizer(), options("plain", &[]));
    assert_eq!(stream.push(257), Default::default());
    assert_eq!(
        ParsedMessage::from_iter(stream.finish()).content,
        "\u{fffd}"
    );
    let mut stream = TextStream::new(tokenizer(), options("plain", &[]));
    assert_eq!(stream.push(TokenId::MAX), Default::default());
    assert_eq!(stream.finish(), []);
}

#[test]
fn streams_can_move_between_threads() {
    fn assert_send<T: Send>() {}
    fn assert_sync<T: Sync>() {}
    assert_send::<TextStream>();
    assert_sync::<Tokenizer>();
    assert_sync::<crate::ChatTemplate>();
}
