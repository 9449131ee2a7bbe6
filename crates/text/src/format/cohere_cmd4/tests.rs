//! Tests of the command-4 parser: examples of every rule, and cuts that must not matter.

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

use super::super::{
    OutputParser, ParsedEvent, ParsedMessage, ParserOptions, ToolCallIds, chat_format,
};
use super::TAGS;
use crate::constraint::Opening;

fn parser(starts_in_reasoning: bool, parse_tools: bool) -> Box<dyn OutputParser> {
    let tool_call_ids = ToolCallIds::from_seed(1);
    chat_format("cohere_cmd4").unwrap().parser(ParserOptions {
        opening: match starts_in_reasoning {
            true => Opening::Reasoning,
            false => Opening::Turn,
        },
        parse_tools,
        tool_call_ids,
        ..ParserOptions::default()
    })
}

fn parse_pieces<'a>(
    mut parser: Box<dyn OutputParser>,
    pieces: impl IntoIterator<Item = &'a str>,
) -> ParsedMessage {
    let mut events: Vec<ParsedEvent> = pieces
        .into_iter()
        .flat_map(|piece| parser.push(piece))
        .collect();
    events.extend(parser.finish());
    for (position, event) in events.iter().enumerate() {
        if let ParsedEvent::ToolCallArgumentsDelta { index, .. } = event {
            let start = events[..position].iter().any(
                |event| matches!(event, ParsedEvent::ToolCallStart { index: started, .. } if started == index),
            );
            assert!(start, "arguments before their call: {events:?}");
        }
    }
    events.into_iter().collect()
}

fn parse(text: &str) -> ParsedMessage {
    parse_pieces(parser(true, true), [text])
}

fn summary(message: &ParsedMessage) -> (&str, &str, Vec<(&str, &str)>) {
    let calls = message.tool_calls.iter();
    let calls = calls
        .map(|call| (call.name.as_str(), call.arguments.as_str()))
        .collect();
    (&message.reasoning, &message.content, calls)
}

#[test]
fn thinking_then_text() {
    let message =
        parse(" Hm,\n<b>.\n<|END_THINKING|>\n<|START_TEXT|>Hi <there>|> \n<|END_TEXT|>\n");
    assert_eq!(
        summary(&message),
        (" Hm,\n<b>.\n", "Hi <there>|> \n", vec![])
    );
}

#[test]
fn sections_end_where_the_next_begins() {
    let message = parse("a<|START_TEXT|>b<|START_THINKING|>c<|START_RESPONSE|>d");
    assert_eq!(summary(&message), ("ac", "bd", vec![]));
}

#[test]
fn text_outside_of_sections_is_content() {
    let outside = |text| parse_pieces(parser(false, true), [text]).content;
    assert_eq!(outside("\n  plain  \n text \n"), "\n  plain  \n text \n");
    assert_eq!(outside(" \n<|START_TEXT|>x<|END_TEXT|> \n"), "x");
    assert_eq!(
        outside("Let me see.\n<|START_ACTION|>[]<|END_ACTION|>"),
        "Let me see.\n"
    );
}

#[test]
fn turn_tokens_and_lone_tags_never_show() {
    let everything: String = TAGS.iter().flat_map(|tag| [tag, "."]).collect();
    for starts_in_reasoning in [false, true] {
        for parse_tools in [false, true] {
            let parser = parser(starts_in_reasoning, parse_tools);
            let message = parse_pieces(parser, [everything.as_str()]);
            assert!(!format!("{message:?}").contains("<|"), "{message:?}");
        }
    }
}

#[test]
fn several_calls_with_exact_arguments() {
    let message = parse(
        "I will call.<|END_THINKING|><|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \
         \"tool_name\": \"f\", \"parameters\": {\"a\": [1,  2.50], \"s\": \"}]\\\"\\\\\"}},\n    \
         {\"tool_call_id\": \"1\", \"tool_name\": \"g\\u00e9\", \"parameters\": {}},\n    \
         {\"tool_name\": \"h\"}, {\"tool_name\": \"i\", \"parameters\": null}\n]<|END_ACTION|>",
    );
    let calls = vec![
        ("f", "{\"a\": [1,  2.50], \"s\": \"}]\\\"\\\\\"}"),
        ("gé", "{}"),
        ("h", "{}"),
        ("i", "{}"),
    ];
    assert_eq!(summary(&message), ("I will call.", "", calls));
    let ids: Vec<String> = (0..4)
        .map(|index| ToolCallIds::from_seed(1).id(index))
        .collect();
    assert_eq!(
        message
            .tool_calls
            .iter()
            .map(|call| &call.id)
            .collect::<Vec<_>>(),
        ids.iter().collect::<Vec<_>>()
    );
}

#[test]
fn odd_but_valid_actions() {
    let calls = |action: &str| {
        let message = parse(&format!(
            "<|END_THINKING|><|START_ACTION|>{action}<|END_ACTION|>"
        ));
        assert_eq!(
            (message.reasoning.as_str(), message.content.as_str()),
            ("", ""),
            "{action}"
        );
        message
            .tool_calls
            .iter()
            .map(|c| format!("{}{}", c.name, c.arguments))
            .collect::<Vec<_>>()
    };
    let none: [&str; 0] = [];
    assert_eq!(
        calls(r#"{"tool_name":"f","parameters":{"x":{"y":[]}}}"#),
        [r#"f{"x":{"y":[]}}"#]
    );
    assert_eq!(
        calls(r#"[{"parameters":{"x":1},"tool_name":"f"}]"#),
        [r#"f{"x":1}"#]
    );
    assert_eq!(
        calls(r#"[{"tool_name":"f","parameters":12 ,"z":[{}]},]"#),
        ["f12"]
    );
    assert_eq!(calls(r#"[{"tool_name":"f","parameters":true}]"#), ["ftrue"]);
    assert_eq!(
        calls(r#"[{"tool_name":"f","parameters":{},"parameters":{"b":1}}]"#),
        ["f{}"]
    );
    assert_eq!(calls(r#"[{"tool_name":"f","parameters":{}}"#), ["f{}"]);
    assert_eq!(
        calls(r#"[{"tool_name":"f","parameters":"{\"a\": 1}"}]"#),
        [r#"f{"a": 1}"#]
    );
    assert_eq!(
        calls(r#"[{"tool_name":"f","parameters":"a b"}]"#),
        [r#"f"a b""#]
    );
    assert_eq!(calls(" [ ] "), none);
    assert_eq!(calls(""), none);
}

#[test]
fn calls_are_numbered_over_all_blocks() {
    let block = r#"<|START_ACTION|>[{"tool_name":"f","parameters":{}}]<|END_ACTION|>"#;
    let message = parse(&format!("{block}{block}"));
    assert_eq!(message.tool_calls.len(), 2);
    assert_ne!(message.tool_calls[0].id, message.tool_calls[1].id);
}

#[test]
fn malformed_actions_become_content() {
    let parsed = |action: &str| {
        let message = parse(&format!("<|START_ACTION|>{action}<|END_ACTION|>"));
        let calls = message
            .tool_calls
            .iter()
            .map(|c| format!("{}{}", c.name, c.arguments));
        (message.content.clone(), calls.collect::<Vec<_>>())
    };
    for action in [
        "call f please",
        r#"[{"tool_name": invalid}]"#,
        r#"[{"tool_name": 7}]"#,
        r#"[{"tool_name": ""}]"#,
        r#"[{"parameters": {"a": 1}}]"#,
        r#"[{"tool_name": "f" "parameters": {}}]"#,
        r#"[{"tool_name": "f", "param"#,
        r#"["f"]"#,
        "[[",
    ] {
        assert_eq!(parsed(action), (action.to_owned(), vec![]));
    }
    let second = r#"[{"tool_name":"f","parameters":{}}, {"tool_name": oops}]"#;
    assert_eq!(
        parsed(second),
        (r#", {"tool_name": oops}]"#.into(), vec!["f{}".into()])
    );
    let tail = r#"[{"tool_name":"f","parameters":{}}] oops"#;
    assert_eq!(parsed(tail), ("] oops".into(), vec!["f{}".into()]));
    let after_parameters = r#"[{"tool_name":"f","parameters":{} oops}]"#;
    assert_eq!(
        parsed(after_parameters),
        (" oops}]".into(), vec!["f{}".into()])
    );
    let unterminated = r#"[{"tool_name":"f","parameters":{"a": "b}]"#;
    assert_eq!(
        parsed(unterminated),
        (String::new(), vec![r#"f{"a": "b}]"#.into()])
    );
}

#[test]
fn a_cut_off_action_keeps_what_was_reported() {
    let full = r#"<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "f", "parameters": {"a": "<|END_ACTION|> b"}}]<|END_ACTION|>"#;
    let arguments = r#"{"a": "<|END_ACTION|> b"}"#;
    for cut in 0..=full.len() {
        let message = parse(&full[..cut]);
        assert_eq!(message.content, "", "{}", &full[..cut]);
        if let Some(call) = message.tool_calls.first() {
            assert_eq!(call.name, "f");
            assert!(arguments.starts_with(&call.arguments), "{}", call.arguments);
        }
    }
    assert_eq!(parse(full).tool_calls[0].arguments, arguments);
}

#[test]
fn without_tools_an_action_is_content_without_tags() {
    let action = r#"[{"tool_name":"f","parameters":{"a":"<b>"}}]"#;
    let text = format!("x<|END_THINKING|><|START_ACTION|>{action}<|END_ACTION|>");
    let message = parse_pieces(parser(true, false), [text.as_str()]);
    assert_eq!(summary(&message), ("x", action, vec![]));
}

#[test]
fn arguments_stream_while_they_are_written() {
    let mut parser = parser(false, true);
    parser.push(r#"<|START_ACTION|>[{"tool_name": "f", "parameters": {"a"#);
    let events = parser.push("bc");
    assert_eq!(
        events,
        [ParsedEvent::ToolCallArgumentsDelta {
            index: 0,
            delta: "bc".into()
        }]
    );
}

/// Text made of the pieces that matter to the parser.
fn answer() -> impl proptest::strategy::Strategy<Value = String> {
    let tag = prop::sample::select(TAGS).prop_map(str::to_owned);
    let call =
        r#"\{"tool_name": "[a-z]{0,2}", "parameters": \{("k": ("[a\\"\\\\é]{0,2}"|1|null))?\}\}"#;
    let piece = proptest::prop_oneof![
        4 => tag,
        2 => call,
        2 => "<\\||\\[|\\]|, |\\{|\\}|\"|null|[a-zé \n]{1,4}",
        1 => "<\\|START_ACTION\\|>\\[\\{\"tool_name\": \"f\", ",
        1 => "\"parameters\": \\{\"a\": \\[1, \"",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

use proptest::strategy::Strategy as _;

proptest! {
    #[test]
    fn cuts_do_not_matter(
        text in answer(),
        starts_in_reasoning in any::<bool>(),
        parse_tools in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let whole = parse_pieces(parser(starts_in_reasoning, parse_tools), [text.as_str()]);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.retain(|cut| text.is_char_boundary(*cut));
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|ends| &text[ends[0]..ends[1]]);
        let cut = parse_pieces(parser(starts_in_reasoning, parse_tools), pieces);
        prop_assert_eq!(&cut, &whole);
        for tag in TAGS {
            prop_assert!(!whole.content.contains(tag) && !whole.reasoning.contains(tag));
        }
    }
}
