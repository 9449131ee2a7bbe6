use super::super::ParserOptions;
use super::super::testing::{calls, check, in_reasoning, parse, text, thinking, with_tools};

const TWO: &str = "I look.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:3<|tool_call_argument_begin|>{\"city\": \"北京 <|tool_call_end|> x\"}<|tool_call_end|><|tool_call_begin|> now:4 <|tool_call_argument_begin|><|tool_call_end|><|tool_calls_section_end|>";

#[test]
fn calls_keep_the_ids_of_the_model() {
    check(
        "kimi_k2",
        &with_tools(),
        &[calls(
            TWO,
            "I look.",
            &[
                ("get_weather", "{\"city\": \"北京 <|tool_call_end|> x\"}"),
                ("now", "{}"),
            ],
        )],
    );
    let message = parse("kimi_k2", &with_tools(), [TWO]);
    let ids: Vec<&str> = message
        .tool_calls
        .iter()
        .map(|call| call.id.as_str())
        .collect();
    assert_eq!(ids, ["functions.get_weather:3", "now:4"]);
}

#[test]
fn names_may_have_any_number_of_parts() {
    for (id, name) in [
        ("functions.a.b:12", "a.b"),
        ("a:b:0", "a:b"),
        ("functions.x", "x"),
        ("a:b", "a:b"),
    ] {
        assert_eq!(super::name_of(id), name);
    }
}

#[test]
fn malformed_and_unfinished_calls_lose_nothing_that_matters() {
    check(
        "kimi_k2",
        &with_tools(),
        &[
            text("你好 <|tool \n", "你好 <|tool \n"),
            text(
                "<|tool_calls_section_begin|><|tool_call_begin|>functions.no",
                "",
            ),
            text("<|tool_call_begin|>hello<|tool_call_end|>", "hello"),
            text(
                "<|tool_call_begin|>now:0<|tool_call_argument_begin|>a = 1<|tool_call_end|>",
                "nowa = 1",
            ),
            calls(
                "<|tool_call_begin|>now:0<|tool_call_argument_begin|>{\"a\": \"<|tool_call",
                "",
                &[("now", "{\"a\": \"<|tool_call")],
            ),
            text("a<|tool_call_end|>b<|tool_call_argument_begin|>", "ab"),
        ],
    );
    let raw = "a<|tool_call_begin|>now:0<|tool_call_argument_begin|>{}";
    check(
        "kimi_k2",
        &ParserOptions::default(),
        &[text(raw, "anow:0{}")],
    );
}

#[test]
fn calls_end_reasoning() {
    let call = "<|tool_calls_section_begin|><|tool_call_begin|>functions.now:0<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>";
    let raw = format!("Hm.{call}");
    check(
        "kimi_k2",
        &in_reasoning(),
        &[thinking(&raw, "Hm.", "", &[("now", "{}")])],
    );
    check(
        "kimi_k2",
        &in_reasoning(),
        &[thinking("Hm.</think>Hi", "Hm.", "Hi", &[])],
    );
}
