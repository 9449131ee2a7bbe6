//! What is the same, and what is not.

use serde_json::json;

use super::*;

const ALL: Asked = Asked {
    tools: true,
    json: true,
};

fn calls(calls: &[(&str, &str)]) -> Vec<ToolCall> {
    let call = |(number, (name, arguments)): (usize, &(&str, &str))| ToolCall {
        id: format!("call-{number}"),
        name: (*name).into(),
        arguments: (*arguments).into(),
    };
    calls.iter().enumerate().map(call).collect()
}

fn tools(a: &[(&str, &str)], b: &[(&str, &str)]) -> (Option<bool>, Option<bool>) {
    let agreement = ToolAgreement::of(&calls(a), &calls(b));
    assert_eq!(agreement.called, [!a.is_empty(), !b.is_empty()]);
    (agreement.same_names, agreement.same_arguments)
}

#[test]
fn calls_are_compared_by_value_and_without_order() {
    let (yes, no) = (Some(true), Some(false));
    let one = [("f", r#"{"a": 1, "b": [2]}"#)];
    assert_eq!(tools(&one, &[("f", r#"{"b":[2.0],"a":1}"#)]), (yes, yes));
    assert_eq!(tools(&one, &[("f", r#"{"b": [3], "a": 1}"#)]), (yes, no));
    assert_eq!(tools(&one, &[("g", r#"{"a": 1, "b": [2]}"#)]), (no, no));
    assert_eq!(tools(&one, &[]), (None, None));
    let two = [("f", "{}"), ("g", r#"{"x": "y"}"#)];
    let turned = [("g", r#"{"x":"y"}"#), ("f", "")];
    assert_eq!(tools(&two, &turned), (yes, yes));
    assert_eq!(tools(&two, &one), (no, no));
    // The same tool twice has to have both calls' arguments.
    assert_eq!(
        tools(&[("f", "1"), ("f", "2")], &[("f", "2"), ("f", "2")]),
        (yes, no)
    );
    // What is no JSON is the same if it is the same text.
    assert_eq!(tools(&[("f", "{a")], &[("f", "{a")]), (yes, yes));
    assert_eq!(tools(&[("f", "{a")], &[("f", "{}")]), (yes, no));
}

#[test]
fn json_is_compared_by_keys_and_by_values() {
    let of = |a: &str, b: &str| {
        let agreement = JsonAgreement::of(a, b);
        (agreement.valid, agreement.same_keys, agreement.same_values)
    };
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(
        of(r#"{"a": [{"b": 1}]}"#, r#"{"a":[{"b":1.0}]}"#),
        ([true; 2], yes, yes)
    );
    assert_eq!(
        of(r#"{"a": [{"b": 1}]}"#, r#"{"a": [{"b": 2}, {"b": 3}]}"#),
        ([true; 2], yes, no)
    );
    assert_eq!(of(r#"{"a": 1}"#, r#"{"c": 1}"#), ([true; 2], no, no));
    assert_eq!(of("```json\n{}\n```", "{}"), ([false, true], None, None));
}

#[test]
fn texts_are_compared_as_far_as_that_is_cheap() {
    let answer = |text: &str| Answer {
        text: text.into(),
        finish_reason: Some("stop".into()),
        ..Answer::default()
    };
    let nothing = Asked {
        tools: false,
        json: false,
    };
    let of = |a: &str, b: &str| Agreement::of(nothing, &answer(a), &answer(b));
    assert_eq!(
        of("kitten", "sitting").text_similarity,
        Some(1.0 - 3.0 / 7.0)
    );
    assert_eq!(of("", "").text_similarity, None);
    assert_eq!(of("", "x").text_similarity, Some(0.0));
    assert!(of("a", "a").same_answer && !of("a", "b").same_answer);
    assert_eq!((of("a", "a").tools, of("a", "a").json), (None, None));
    let long = "é".repeat(TEXT_CHARACTERS_MAX + 1);
    let cut = of(&long, &long);
    assert!(cut.text_cut && cut.text_similarity == Some(1.0));
    let asked = Agreement::of(ALL, &answer("1"), &answer("x"));
    assert_eq!(asked.json.unwrap().valid, [true, false]);
}

#[test]
fn what_is_asked_for_is_seen_in_the_request() {
    let of = |body: Value| Asked::of(body.as_object().unwrap());
    assert_eq!(
        of(json!({"tools": [{}], "response_format": {"type": "json_schema"}})),
        ALL
    );
    let none = of(json!({"tools": [], "response_format": {"type": "text"}}));
    assert!(!none.tools && !none.json);
}
