use std::sync::Arc;

use backstop_types::{ConstraintMatcher, TokenId};
use serde_json::{Value, json};

use super::{
    AnswerShape, CallShape, CallableTool, ConstraintFactory, ConstraintReason, GrammarPart,
    Opening, TextShape,
};
use crate::{Tokenizer, chat_format};

const DEMO: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../models/demo/tokenizer.json"
);
const END_OF_TURN: TokenId = 4084;

fn demo() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::from_file(DEMO).unwrap())
}

fn factory(format: &str) -> ConstraintFactory {
    let format = chat_format(format).unwrap();
    ConstraintFactory::new(demo(), format, &[END_OF_TURN, 6], 4096).unwrap()
}

fn tool(index: usize, name: &str, parameters: Option<Value>) -> CallableTool {
    CallableTool {
        index,
        name: name.to_owned(),
        parameters,
        strict: true,
    }
}

fn shape(text: Option<TextShape>, tools: Vec<CallableTool>, opening: Opening) -> AnswerShape {
    let parallel = true;
    let calls = (!tools.is_empty()).then_some(CallShape { tools, parallel });
    AnswerShape {
        opening,
        text,
        calls,
    }
}

fn is_allowed(mask: &[u32], token: TokenId) -> bool {
    mask[token as usize / 32] >> (token % 32) & 1 == 1
}

/// Follows `answer`, and says at which token it is first refused; `Ok` with the tokens that may
/// follow if it is not.
fn follow(matcher: &mut dyn ConstraintMatcher, answer: &str) -> Result<Vec<TokenId>, usize> {
    let tokens = demo().encode(answer, false).unwrap();
    let mut mask = vec![u32::MAX; 4096 / 32];
    for (index, token) in tokens.iter().enumerate() {
        matcher.fill_mask(&mut mask).map_err(|_| index)?;
        if !is_allowed(&mask, *token) {
            return Err(index);
        }
        matcher.advance(*token).map_err(|_| index)?;
    }
    matcher.fill_mask(&mut mask).map_err(|_| tokens.len())?;
    Ok((0..4096)
        .filter(|token| is_allowed(&mask, *token))
        .collect())
}

fn accepts(factory: &ConstraintFactory, shape: &AnswerShape, answer: &str) -> bool {
    let constraint = factory.compile(shape).unwrap();
    let mut matcher = constraint.0.matcher();
    let next = follow(&mut *matcher, answer);
    next.is_ok_and(|next| next == [6, END_OF_TURN])
}

#[test]
fn forced_calls_have_the_layout_of_the_template() {
    let factory = factory("cohere_cmd4");
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                        "required": ["city"]});
    let tools = vec![tool(0, "get_weather", Some(schema)), tool(1, "now", None)];
    let forced = shape(None, tools, Opening::ReasoningClosed);
    let one = "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"get_weather\", \"parameters\": {\"city\": \"Köln\", \"days\": 3}}\n]<|END_ACTION|>";
    assert!(accepts(&factory, &forced, one));
    let two = "<|START_ACTION|>[\n    {\"tool_call_id\": \"7\", \"tool_name\": \"now\", \"parameters\": {}},\n    {\"tool_call_id\": \"8\", \"tool_name\": \"get_weather\", \"parameters\": {\"city\": \"\"}}\n]<|END_ACTION|>";
    assert!(accepts(&factory, &forced, two));
    for refused in [
        "<|START_TEXT|>no<|END_TEXT|>",
        "<|START_ACTION|>[\n]<|END_ACTION|>",
        "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"other\"",
        "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"get_weather\", \"parameters\": {}",
        "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"get_weather\", \"parameters\": {\"city\": \"x\", \"year\"",
        "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"now\", \"parameters\": {}}\n]<|END_ACTION|><|START_TEXT|>",
    ] {
        let constraint = factory.compile(&forced).unwrap();
        assert!(
            follow(&mut *constraint.0.matcher(), refused).is_err(),
            "{refused}"
        );
    }
}

#[test]
fn a_single_call_is_all_where_calls_are_not_parallel() {
    let factory = factory("cohere_cmd4");
    let mut single = shape(
        Some(TextShape::Any),
        vec![tool(0, "now", None)],
        Opening::Turn,
    );
    single.calls.as_mut().unwrap().parallel = false;
    let call = "{\"tool_call_id\": \"0\", \"tool_name\": \"now\", \"parameters\": {}}";
    assert!(accepts(
        &factory,
        &single,
        &format!("<|START_ACTION|>[\n    {call}\n]<|END_ACTION|>")
    ));
    assert!(!accepts(
        &factory,
        &single,
        &format!("<|START_ACTION|>[\n    {call},\n    {call}\n]<|END_ACTION|>")
    ));
    assert!(accepts(
        &factory,
        &single,
        "<|START_TEXT|>any {text}\n\n<|END_TEXT|>"
    ));
    assert!(accepts(
        &factory,
        &single,
        "<|START_THINKING|>hm<|END_THINKING|><|START_TEXT|><|END_TEXT|>"
    ));
}

#[test]
fn reasoning_is_free_until_it_ends() {
    let factory = factory("cohere_cmd4");
    let json = shape(Some(TextShape::JsonObject), vec![], Opening::Reasoning);
    let answer = "I think { \" \\ so.<|END_THINKING|><|START_TEXT|>{\"a\": [1, null],\n  \"b\":{}}<|END_TEXT|>";
    assert!(accepts(&factory, &json, answer));
    assert!(!accepts(&factory, &json, "never ends"));
    assert!(!accepts(
        &factory,
        &json,
        "<|END_THINKING|><|START_TEXT|>[]<|END_TEXT|>"
    ));
    assert!(!accepts(
        &factory,
        &json,
        "<|END_THINKING|><|START_TEXT|>{   }<|END_TEXT|>"
    ));
}

#[test]
fn text_that_is_continued_has_no_opening_tag() {
    let factory = factory("cohere_cmd4");
    let rest = shape(
        Some(TextShape::Any),
        vec![tool(0, "now", None)],
        Opening::Text,
    );
    assert!(accepts(&factory, &rest, " and so on<|END_TEXT|>"));
    assert!(!accepts(
        &factory,
        &rest,
        "<|START_TEXT|> and so on<|END_TEXT|>"
    ));
}

#[test]
fn a_format_without_tags_has_text_alone() {
    let factory = factory("plain");
    let texts = [
        (TextShape::Json(json!({"enum": ["ä", 1]})), "\"ä\"", "2"),
        (
            TextShape::Regex("[a-c]+/\\d{2}".to_owned()),
            "cab/42",
            "cab/4x",
        ),
        (
            TextShape::Choice(vec!["yes".into(), "no \"way\"".into()]),
            "no \"way\"",
            "maybe",
        ),
        (
            TextShape::Lark("start: \"(\" start \")\" | \"x\"".to_owned()),
            "((x))",
            "(()",
        ),
    ];
    for (text, accepted, refused) in texts {
        let text = shape(Some(text), vec![], Opening::Turn);
        assert!(accepts(&factory, &text, accepted), "{accepted}");
        assert!(!accepts(&factory, &text, refused), "{refused}");
    }
    let forced = shape(None, vec![tool(0, "now", None)], Opening::Turn);
    assert_eq!(
        factory.compile(&forced).unwrap_err().reason,
        ConstraintReason::NoToolCalls("plain")
    );
}

#[test]
fn control_tokens_are_never_part_of_a_text() {
    let factory = factory("plain");
    let string = shape(
        Some(TextShape::Json(json!({"type": "string"}))),
        vec![],
        Opening::Turn,
    );
    let constraint = factory.compile(&string).unwrap();
    let next = follow(&mut *constraint.0.matcher(), "\"in a string").unwrap();
    assert!(next.len() > 2000);
    let tokenizer = demo();
    assert!(next.iter().all(|token| !tokenizer.is_special(*token)));
}

#[test]
fn the_part_that_cannot_be_enforced_is_named() {
    let factory = factory("cohere_cmd4");
    let object = |property: Value| json!({"type": "object", "properties": {"a": property}, "required": ["a"]});
    let cases = [
        (
            object(json!({"not": {"type": "string"}})),
            ConstraintReason::Keyword("not"),
        ),
        (
            object(json!({"uniqueItems": true, "type": "array"})),
            ConstraintReason::Keyword("uniqueItems"),
        ),
        (
            object(json!({"type": "string", "pattern": "^(?<=a)b"})),
            ConstraintReason::Construct("a lookbehind"),
        ),
        (
            object(json!({"oneOf": [{"minimum": 1}, {"maximum": 5}]})),
            ConstraintReason::Keyword("oneOf"),
        ),
        (
            object(json!({"$ref": "#/$defs/missing"})),
            ConstraintReason::Keyword("$ref"),
        ),
        (
            object(json!({"$ref": "https://example.com/schema"})),
            ConstraintReason::Keyword("$ref"),
        ),
        (object(json!(false)), ConstraintReason::Unsatisfiable),
        (
            object(json!({"type": "integer", "minimum": 3, "maximum": 2})),
            ConstraintReason::Unsatisfiable,
        ),
        (object(json!({"enum": []})), ConstraintReason::Unsatisfiable),
        (json!({"type": "string"}), ConstraintReason::Unsatisfiable),
        (json!({"type": 7}), ConstraintReason::Invalid),
        (object(json!({"pattern": "("})), ConstraintReason::Invalid),
        (object(json!({"pattern": 1})), ConstraintReason::Invalid),
        (object(json!({"type": "text"})), ConstraintReason::Invalid),
    ];
    for (schema, expected) in cases {
        let tools = vec![
            tool(0, "fine", None),
            tool(4, "broken", Some(schema.clone())),
        ];
        let error = factory
            .compile(&shape(None, tools, Opening::Turn))
            .unwrap_err();
        assert_eq!(error.part, GrammarPart::Tool(4), "{schema}");
        assert_eq!(error.reason, expected, "{schema}");
    }
}

#[test]
fn equal_shapes_share_their_grammar() {
    let factory = factory("cohere_cmd4");
    let text = |schema| shape(Some(TextShape::Json(schema)), vec![], Opening::Turn);
    let first = factory.compile(&text(json!({"type": "number"}))).unwrap();
    assert_eq!(
        factory.compile(&text(json!({"type": "number"}))).unwrap(),
        first
    );
    assert_ne!(
        factory.compile(&text(json!({"type": "integer"}))).unwrap(),
        first
    );
}

#[test]
fn what_follows_the_end_is_the_end() {
    let factory = factory("plain");
    let constraint = factory
        .compile(&shape(Some(TextShape::JsonObject), vec![], Opening::Turn))
        .unwrap();
    let mut matcher = constraint.0.matcher();
    assert_eq!(follow(&mut *matcher, "{}").unwrap(), [6, END_OF_TURN]);
    matcher.advance(6).unwrap();
    assert_eq!(follow(&mut *matcher, "").unwrap(), [6, END_OF_TURN]);
    assert!(constraint.0.matcher().advance(6).is_err());
}

#[test]
fn vocabulary_and_logits_may_differ_in_size() {
    let format = chat_format("plain").unwrap();
    for logits in [4085, 4096, 5000] {
        let factory = ConstraintFactory::new(demo(), format, &[END_OF_TURN], logits).unwrap();
        let shape = shape(Some(TextShape::JsonObject), vec![], Opening::Turn);
        let mut matcher = factory.compile(&shape).unwrap().0.matcher();
        let mut mask = vec![u32::MAX; logits.div_ceil(32)];
        matcher.fill_mask(&mut mask).unwrap();
        let beyond = logits as TokenId..mask.len() as TokenId * 32;
        assert!(beyond.into_iter().all(|token| !is_allowed(&mask, token)));
    }
    assert!(ConstraintFactory::new(demo(), format, &[], 4096).is_err());
    assert!(ConstraintFactory::new(demo(), format, &[9999], 4096).is_err());
}

#[test]
fn the_place_of_a_fault_is_told_without_names() {
    let factory = factory("plain");
    let inner =
        json!({"type": "array", "items": {"anyOf": [{"type": "null"}, {"pattern": "a(?<!b)"}]}});
    let schema = json!({"type": "object", "properties": {"secret": {}, "hidden": inner}});
    let text = shape(Some(TextShape::Json(schema)), vec![], Opening::Turn);
    let error = factory.compile(&text).unwrap_err();
    assert_eq!(error.part, GrammarPart::Text);
    assert_eq!(error.place.unwrap(), "properties.1.items.anyOf.1");
}

#[test]
fn hints_are_enforced_as_far_as_they_can_be() {
    let properties = json!({
        "a": {"type": "array", "items": {"type": "integer"}, "uniqueItems": true, "maxItems": 2},
        "b": {"not": {"const": 1}, "if": {}, "then": {}, "oneOf": [{"minimum": 1}, {"maximum": 5}]},
        "c": {"type": "string", "pattern": "^(?<=x)y$", "maxLength": 2},
        "d": {"type": "string", "pattern": "^[xy](?=z)z"},
    });
    let schema = json!({"type": "object", "properties": properties, "required": ["a", "b", "c", "d"],
        "propertyNames": {"maxLength": 1}, "dependentRequired": {"a": ["b"]}});
    for format in ["cohere_cmd4", "qwen3_coder"] {
        let factory = factory(format);
        let mut tool = tool(3, "f", Some(schema.clone()));
        let strict = shape(None, vec![tool.clone()], Opening::ReasoningClosed);
        assert!(factory.compile(&strict).is_err());
        tool.strict = false;
        let hint = shape(None, vec![tool], Opening::ReasoningClosed);
        let compiled = factory.compile_with_notes(&hint).unwrap();
        let mut left_out: Vec<&str> = compiled
            .left_out
            .iter()
            .map(|left_out| left_out.keyword)
            .collect();
        left_out.sort_unstable();
        let expected = [
            "dependentRequired",
            "if",
            "not",
            "oneOf",
            "pattern",
            "propertyNames",
            "then",
            "uniqueItems",
        ];
        assert_eq!(left_out, expected, "{format}");
        assert!(
            compiled
                .left_out
                .iter()
                .all(|left_out| left_out.part == GrammarPart::Tool(3))
        );
        if format == "cohere_cmd4" {
            let start = "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"f\", \"parameters\": ";
            let call = |json: &str| format!("{start}{json}}}\n]<|END_ACTION|>");
            assert!(accepts(
                &factory,
                &hint,
                &call("{\"a\": [1, 1], \"b\": 3, \"c\": \"ab\", \"d\": \"xz\"}")
            ));
            for refused in [
                "{\"a\": [1, 1, 1], \"b\": 3, \"c\": \"ab\", \"d\": \"xz\"}",
                "{\"a\": [], \"b\": 3, \"c\": \"abc\", \"d\": \"xz\"}",
                "{\"a\": [], \"b\": 3, \"c\": \"ab\", \"d\": \"x\"}",
            ] {
                assert!(!accepts(&factory, &hint, &call(refused)), "{refused}");
            }
        }
    }
    let broken = shape(
        Some(TextShape::JsonHint(json!({"$ref": "#/nowhere"}))),
        vec![],
        Opening::Turn,
    );
    let reason = factory("plain").compile(&broken).unwrap_err().reason;
    assert_eq!(reason, ConstraintReason::Keyword("$ref"));
}

#[test]
fn arrays_of_few_values_are_held_to_be_without_repetitions() {
    let factory = factory("plain");
    let items = [
        (
            json!({"enum": ["a", "b", "c", "a"]}),
            "[\"c\",\"a\"]",
            "[\"c\",\"c\"]",
        ),
        (
            json!({"type": "boolean"}),
            "[true,false]",
            "[true,false,true]",
        ),
        (
            json!({"type": "string", "enum": ["a", 1]}),
            "[\"a\"]",
            "[1]",
        ),
        (json!({"$ref": "#/$defs/x"}), "[null,2]", "[2,2]"),
    ];
    for (items, accepted, refused) in items {
        let schema = json!({"type": "array", "items": items, "uniqueItems": true, "minItems": 1,
            "$defs": {"x": {"title": "X", "enum": [null, 2]}}});
        let text = shape(Some(TextShape::Json(schema)), vec![], Opening::Turn);
        assert!(accepts(&factory, &text, accepted), "{accepted}");
        assert!(!accepts(&factory, &text, refused), "{refused}");
        assert!(!accepts(&factory, &text, "[]"));
    }
    let untyped = json!({"items": {"const": 1}, "uniqueItems": true});
    let text = shape(Some(TextShape::Json(untyped)), vec![], Opening::Turn);
    assert!(accepts(&factory, &text, "\"x\"") && accepts(&factory, &text, "[1]"));
    assert!(!accepts(&factory, &text, "[1,1]"));
    let many: Vec<u32> = (0..7).collect();
    let long = [
        "x".repeat(1000),
        "y".repeat(1000),
        "z".repeat(1000),
        "w".repeat(1000),
    ];
    for many in [json!(many), json!(long)] {
        let many = json!({"type": "array", "items": {"enum": many}, "uniqueItems": true});
        let text = shape(Some(TextShape::Json(many)), vec![], Opening::Turn);
        let reason = factory.compile(&text).unwrap_err().reason;
        assert_eq!(reason, ConstraintReason::Keyword("uniqueItems"));
    }
}

#[test]
fn expressions_with_lookaheads_are_enforced_everywhere() {
    let pattern = "^(?=.*[A-Z])(?!.*foo).{3,}$";
    let texts = [
        TextShape::Regex(pattern.to_owned()),
        TextShape::Json(json!({"type": "string", "pattern": pattern})),
        TextShape::Json(
            json!({"type": "object", "patternProperties": {pattern: {"const": 1}},
            "additionalProperties": false}),
        ),
    ];
    let written: [fn(&str) -> String; 3] = [
        |text| text.to_owned(),
        |text| format!("\"{text}\""),
        |text| format!("{{\"{text}\":1}}"),
    ];
    let factory = factory("plain");
    for (text, write) in texts.into_iter().zip(written) {
        let constraint = shape(Some(text.clone()), vec![], Opening::Turn);
        let may_end = |answer: &str| {
            let constraint = factory.compile(&constraint).unwrap();
            let next = follow(&mut *constraint.0.matcher(), answer);
            next.is_ok_and(|next| next.contains(&END_OF_TURN))
        };
        assert!(may_end(&write("abCd")), "{text:?}");
        for refused in ["abcd", "Afoo", "aB"] {
            assert!(!may_end(&write(refused)), "{text:?}: {refused}");
        }
    }
}

#[test]
fn any_character_may_stand_in_a_constant() {
    let odd = "\u{0}\u{1}\t\n\r\u{1f}\u{7f}\u{80}\u{2028}\u{feff}\u{fffd}\u{10ffff}\"\\/";
    for character in odd.chars() {
        let constant = format!("a{character}b");
        for format in ["qwen3_coder", "glm45", "glm47"] {
            let factory = factory(format);
            let schema = json!({"type": "object", "properties": {"k": {"enum": [constant, "c"]}}, "required": ["k"]});
            let forced = shape(
                None,
                vec![tool(0, "f", Some(schema))],
                Opening::ReasoningClosed,
            );
            let call = match format {
                "qwen3_coder" => format!(
                    "<tool_call>\n<function=f>\n<parameter=k>\n{constant}\n</parameter>\n</function>\n</tool_call>"
                ),
                "glm45" => format!(
                    "<tool_call>f\n<arg_key>k</arg_key>\n<arg_value>{constant}</arg_value>\n</tool_call>"
                ),
                _ => format!(
                    "<tool_call>f<arg_key>k</arg_key><arg_value>{constant}</arg_value></tool_call>"
                ),
            };
            let constraint = factory.compile(&forced).unwrap();
            let mut matcher = constraint.0.matcher();
            let next = follow(&mut *matcher, &call);
            assert!(
                next.is_ok_and(|next| next.contains(&END_OF_TURN)),
                "{format}: {constant:?}"
            );
        }
        let plain = factory("plain");
        let choice = shape(
            Some(TextShape::Choice(vec![constant.clone()])),
            vec![],
            Opening::Turn,
        );
        assert!(accepts(&plain, &choice, &constant), "{constant:?}");
        let json = shape(
            Some(TextShape::Json(json!({"const": constant}))),
            vec![],
            Opening::Turn,
        );
        assert!(plain.compile(&json).is_ok(), "{constant:?}");
    }
}

#[test]
fn a_forced_call_closes_reasoning_that_the_prompt_began() {
    // The demo's vocabulary has no tokens for these tags.
    let formats = [
        (
            "hermes",
            "</think>\n\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
        ),
        (
            "qwen3_coder",
            "</think>\n\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
        ),
        ("glm47", "</think><tool_call>now</tool_call>"),
        (
            "mistral",
            "[/THINK][TOOL_CALLS][{\"name\": \"now\", \"arguments\": {}}]",
        ),
    ];
    for (format, call) in formats {
        let factory = factory(format);
        let none = json!({"type": "object", "properties": {}});
        let mut forced = shape(None, vec![tool(0, "now", Some(none))], Opening::Reasoning);
        forced.calls.as_mut().unwrap().parallel = false;
        assert!(
            accepts(&factory, &forced, &format!("I ask.{call}")),
            "{format}"
        );
        let (_, open) = call.split_at(call.find(['>', ']']).unwrap() + 1);
        let without_end = format!("I ask.{open}");
        assert!(!accepts(&factory, &forced, &without_end), "{format}");
    }
}
