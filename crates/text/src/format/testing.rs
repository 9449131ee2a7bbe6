//! What the tests of all formats share: tables of raw answers, cut in every way.

use serde_json::{Value, json};

use super::{OfferedTools, ParsedEvent, ParsedMessage, ParserOptions, ToolCallIds, chat_format};
use crate::constraint::Opening;

/// A raw answer and what it is.
pub(super) struct Case<'a> {
    pub(super) raw: &'a str,
    pub(super) reasoning: &'a str,
    pub(super) content: &'a str,
    pub(super) calls: &'a [(&'a str, &'a str)],
}

/// An answer of text alone.
pub(super) const fn text<'a>(raw: &'a str, content: &'a str) -> Case<'a> {
    calls(raw, content, &[])
}

/// An answer without reasoning.
pub(super) const fn calls<'a>(
    raw: &'a str,
    content: &'a str,
    calls: &'a [(&'a str, &'a str)],
) -> Case<'a> {
    thinking(raw, "", content, calls)
}

/// Any answer.
pub(super) const fn thinking<'a>(
    raw: &'a str,
    reasoning: &'a str,
    content: &'a str,
    calls: &'a [(&'a str, &'a str)],
) -> Case<'a> {
    Case {
        raw,
        reasoning,
        content,
        calls,
    }
}

/// Options of a request that offers `get_weather(city: string, days: integer)` and `now()`.
pub(super) fn with_tools() -> ParserOptions {
    let tool = |name: &str, properties: Value| {
        json!({"type": "function", "function": {
            "name": name, "parameters": {"type": "object", "properties": properties}}})
    };
    let properties = json!({
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "units": {"type": ["string", "null"]},
        "hourly": {"type": "boolean"},
        "filter": {"type": "object"},
    });
    ParserOptions {
        parse_tools: true,
        tools: OfferedTools::new(&[tool("get_weather", properties), tool("now", json!({}))]),
        tool_call_ids: ToolCallIds::from_seed(1),
        ..ParserOptions::default()
    }
}

/// Options of a request whose prompt began the reasoning.
pub(super) fn in_reasoning() -> ParserOptions {
    ParserOptions {
        opening: Opening::Reasoning,
        ..with_tools()
    }
}

/// Parses an answer that comes in these pieces.
pub(super) fn parse<'a>(
    format: &str,
    options: &ParserOptions,
    pieces: impl IntoIterator<Item = &'a str>,
) -> ParsedMessage {
    let mut parser = chat_format(format).unwrap().parser(options.clone());
    let pieces = pieces.into_iter();
    let mut events: Vec<ParsedEvent> = pieces.flat_map(|piece| parser.push(piece)).collect();
    events.extend(parser.finish());
    let mut started = 0;
    for event in &events {
        match event {
            ParsedEvent::ToolCallStart { index, id, .. } => {
                assert!(*index == started && !id.is_empty(), "{events:?}");
                started += 1;
            }
            ParsedEvent::ToolCallArgumentsDelta { index, .. } => {
                assert_eq!(index + 1, started, "arguments of another call: {events:?}");
            }
            _ => {}
        }
    }
    events.into_iter().collect()
}

/// Checks that every answer is what it should be, whole and however it is cut.
pub(super) fn check(format: &str, options: &ParserOptions, cases: &[Case<'_>]) {
    for case in cases {
        let raw = case.raw;
        let whole = parse(format, options, [raw]);
        let found = whole.tool_calls.iter();
        let found: Vec<(&str, &str)> = found.map(|c| (&*c.name, &*c.arguments)).collect();
        let found = (&*whole.reasoning, &*whole.content, found);
        assert_eq!(
            found,
            (case.reasoning, case.content, case.calls.to_vec()),
            "{raw}"
        );
        assert_cuts_do_not_matter(format, options, raw, &whole);
    }
}

/// Every cut into two, every character alone, and some pieces of random length.
fn assert_cuts_do_not_matter(
    format: &str,
    options: &ParserOptions,
    raw: &str,
    whole: &ParsedMessage,
) {
    let mut bounds: Vec<usize> = raw.char_indices().map(|(index, _)| index).collect();
    bounds.push(raw.len());
    for cut in &bounds {
        let (left, right) = raw.split_at(*cut);
        assert_eq!(
            parse(format, options, [left, right]),
            *whole,
            "{left} | {right}"
        );
    }
    let pieces = |cuts: &[usize]| -> Vec<&str> {
        cuts.windows(2).map(|ends| &raw[ends[0]..ends[1]]).collect()
    };
    assert_eq!(
        parse(format, options, pieces(&bounds)),
        *whole,
        "{raw}: characters"
    );
    let mut random = 1_u64;
    for _ in 0..32 {
        let mut keep = |index: &usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *index == 0 || *index == raw.len() || random >> 61 < 3
        };
        let cuts: Vec<usize> = bounds.iter().copied().filter(|index| keep(index)).collect();
        assert_eq!(
            parse(format, options, pieces(&cuts)),
            *whole,
            "{raw}: {cuts:?}"
        );
    }
}
