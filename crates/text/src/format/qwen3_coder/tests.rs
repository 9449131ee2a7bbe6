use super::super::ParserOptions;
use super::super::testing::{calls, check, text, thinking, with_tools};

#[test]
fn values_get_the_types_of_the_schema() {
    check(
        "qwen3_coder",
        &with_tools(),
        &[
            calls(
                "I look.\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nKöln \"West\"\n\\ 12\n</parameter>\n<parameter=days>\n3\n</parameter>\n<parameter=hourly>\nTrue\n</parameter>\n<parameter=filter>\n{\"a\": [1, \"ü\"],\n \"b\": null}\n</parameter>\n</function>\n</tool_call>",
                "I look.",
                &[(
                    "get_weather",
                    "{\"city\": \"Köln \\\"West\\\"\\n\\\\ 12\", \"days\": 3, \"hourly\": true, \"filter\": {\"a\": [1, \"ü\"],\n \"b\": null}}",
                )],
            ),
            calls(
                "<tool_call>\n<function=get_weather>\n<parameter=city>\n12\n</parameter>\n<parameter=units>\nnull\n</parameter>\n<parameter=days>\nmany\n</parameter>\n<parameter=other>\nnone\n</parameter>\n<parameter=more>\n[1]\n</parameter>\n</function>\n</tool_call>",
                "",
                &[(
                    "get_weather",
                    "{\"city\": \"12\", \"units\": null, \"days\": \"many\", \"other\": \"none\", \"more\": [1]}",
                )],
            ),
            calls(
                "<tool_call>\n<function=now>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>\n\nSo.",
                "So.",
                &[("now", "{}"), ("now", "{}")],
            ),
        ],
    );
}

#[test]
fn line_breaks_of_values_are_kept_but_those_of_the_layout() {
    let call = |raw: &str, arguments: &[(&str, &str)]| {
        check("qwen3_coder", &with_tools(), &[calls(raw, "", arguments)])
    };
    let cases: [(&str, &[(&str, &str)]); 4] = [
        (
            "\n\n\n  def f():\n\tpass\n\n",
            &[(
                "get_weather",
                "{\"city\": \"\\n\\n  def f():\\n\\tpass\\n\"}",
            )],
        ),
        ("\n\n", &[("get_weather", "{\"city\": \"\"}")]),
        ("", &[("get_weather", "{\"city\": \"\"}")]),
        ("x", &[("get_weather", "{\"city\": \"x\"}")]),
    ];
    for (value, arguments) in cases {
        let raw = format!(
            "<tool_call>\n<function=get_weather>\n<parameter=city>{value}</parameter>\n</function>\n</tool_call>"
        );
        call(&raw, arguments);
    }
}

#[test]
fn tags_inside_values_are_data() {
    check(
        "qwen3_coder",
        &with_tools(),
        &[calls(
            "<tool_call>\n<function=get_weather>\n<parameter=city>\n<tool_call><function=x></function></tool_call><think>\n</parameter>\n</function>\n</tool_call>",
            "",
            &[(
                "get_weather",
                "{\"city\": \"<tool_call><function=x></function></tool_call><think>\"}",
            )],
        )],
    );
}

#[test]
fn the_outer_tag_may_be_missing_where_the_tool_is_on_offer() {
    check(
        "qwen3_coder",
        &with_tools(),
        &[
            calls(
                "Hm.\n<function=now>\n</function>\n</tool_call>",
                "Hm.</tool_call>",
                &[("now", "{}")],
            ),
            text(
                "Write <function=name> \n here",
                "Write <function=name> \n here",
            ),
            text("Write <function=na", "Write <function=na"),
            text("Write <function=a<b>", "Write <function=a<b>"),
        ],
    );
}

#[test]
fn malformed_and_unfinished_calls_lose_nothing_that_matters() {
    check(
        "qwen3_coder",
        &with_tools(),
        &[
            text(
                "<tool_call>\n{\"name\": \"now\"}\n</tool_call>",
                "{\"name\": \"now\"}\n",
            ),
            text("<tool_call>\n<function=no", ""),
            text("<tool_call>\n<function=a</function>", "<function=a"),
            calls(
                "<tool_call>\n<function=get_weather>\n<parameter=city>\nKö",
                "",
                &[("get_weather", "{\"city\": \"Kö")],
            ),
            calls(
                "<tool_call>\n<function=get_weather>\n<parameter=days>\n12",
                "",
                &[("get_weather", "{\"days\": ")],
            ),
            calls(
                "<tool_call>\n<function=now>\nstray \n<b>\n</function>",
                "stray \n<b>\n",
                &[("now", "{}")],
            ),
            calls(
                "<tool_call>\n<function=now>\n<tool_call><function=now>",
                "",
                &[("now", "{}"), ("now", "")],
            ),
        ],
    );
}

#[test]
fn reasoning_comes_first_and_calls_need_tools() {
    let raw = "<think>\nHm.\n</think>\n\n<tool_call>\n<function=now>\n</function>\n</tool_call>";
    check(
        "qwen3_coder",
        &with_tools(),
        &[thinking(raw, "Hm.", "", &[("now", "{}")])],
    );
    let content = "<tool_call>\n<function=now>\n</function>\n</tool_call>";
    check(
        "qwen3_coder",
        &ParserOptions::default(),
        &[thinking(raw, "Hm.", content, &[])],
    );
}
