use super::super::testing::{calls, check, in_reasoning, parse, text, thinking, with_tools};
use super::super::{ParserOptions, ToolCallIds};

#[test]
fn lists_of_calls_are_read() {
    check(
        "mistral",
        &with_tools(),
        &[
            text("Bonjour, [INST] ça va ? \n", "Bonjour, [INST] ça va ? \n"),
            calls(
                "[TOOL_CALLS] [{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Orléans [ARGS] ok\"}}, {\"name\": \"now\", \"arguments\": {}, \"id\": \"abcdefghi\"}]",
                "",
                &[
                    ("get_weather", "{\"city\": \"Orléans [ARGS] ok\"}"),
                    ("now", "{}"),
                ],
            ),
            calls(
                "Je regarde.[TOOL_CALLS][{\"name\": \"now\"}]",
                "Je regarde.",
                &[("now", "{}")],
            ),
            thinking(
                "[THINK]Hm.\n[/THINK]\nOui.[TOOL_CALLS][{\"name\": \"now\"}]",
                "Hm.\n",
                "\nOui.",
                &[("now", "{}")],
            ),
        ],
    );
}

#[test]
fn named_calls_are_read() {
    check(
        "mistral",
        &with_tools(),
        &[
            calls(
                "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Nîmes\"}[TOOL_CALLS]now[CALL_ID]aB3dE6gH9[ARGS]{}",
                "",
                &[("get_weather", "{\"city\": \"Nîmes\"}"), ("now", "{}")],
            ),
            calls(
                "[TOOL_CALLS] now {\"a\": 1}\n",
                "",
                &[("now", "{\"a\": 1}")],
            ),
            calls(
                "[TOOL_CALLS]now[ARGS][TOOL_CALLS]now[ARGS]{}",
                "",
                &[("now", "{}"), ("now", "{}")],
            ),
            calls(
                "[TOOL_CALLS]now[ARGS]{\"a\": \"[TOOL",
                "",
                &[("now", "{\"a\": \"[TOOL")],
            ),
            text("[TOOL_CALLS]now", ""),
            text("[TOOL_CALLS]now[TOOL_CALLS]", "now"),
            text("[TOOL_CALLS]now[ARGS]a = 1", "nowa = 1"),
            text("[TOOL_CALLS] [not json", "[not json"),
            thinking(
                "[THINK]Hm.[TOOL_CALLS]now[ARGS]{}",
                "Hm.",
                "",
                &[("now", "{}")],
            ),
        ],
    );
    let raw = "[TOOL_CALLS]now[CALL_ID]aB3dE6gH9[ARGS]{}";
    assert_eq!(
        parse("mistral", &with_tools(), [raw]).tool_calls[0].id,
        "aB3dE6gH9"
    );
}

#[test]
fn ids_are_such_that_the_templates_accept_them() {
    let raw = "[TOOL_CALLS] [{\"name\": \"now\"}, {\"name\": \"now\", \"id\": \"x\"}]";
    let options = ParserOptions {
        tool_call_ids: ToolCallIds::from_seed(u128::MAX - 5),
        ..with_tools()
    };
    let message = parse("mistral", &options, [raw]);
    let ids: Vec<&str> = message
        .tool_calls
        .iter()
        .map(|call| call.id.as_str())
        .collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
    for id in ids {
        assert!(
            id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()),
            "{id}"
        );
    }
}

#[test]
fn tags_never_show() {
    let raw = "a[/THINK]b[ARGS]c[CALL_ID]d[TOOL_CALLS] [{\"name\": \"now\"}]";
    check(
        "mistral",
        &ParserOptions::default(),
        &[text(raw, "abcd [{\"name\": \"now\"}]")],
    );
    check(
        "mistral",
        &in_reasoning(),
        &[thinking("Hm.[/THINK]Oui.", "Hm.", "Oui.", &[])],
    );
}
