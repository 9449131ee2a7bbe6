use super::super::ParserOptions;
use super::super::testing::{calls, check, in_reasoning, text, thinking, with_tools};

#[test]
fn both_generations_of_calls_are_read() {
    let arguments = "{\"city\": \"上海 \\\"3\\\" </tool_call>\\n\", \"days\": 3, \"hourly\": true, \"units\": null}";
    for format in ["glm45", "glm47"] {
        check(
            format,
            &with_tools(),
            &[
                calls(
                    "I look.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>上海 \"3\" </tool_call>\n</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n<arg_key>hourly</arg_key>\n<arg_value>true</arg_value>\n<arg_key>units</arg_key>\n<arg_value>null</arg_value>\n</tool_call>\n<tool_call>now\n</tool_call>",
                    "I look.",
                    &[("get_weather", arguments), ("now", "{}")],
                ),
                thinking(
                    "<think>Hm.\n</think><tool_call>get_weather<arg_key>city</arg_key><arg_value>上海 \"3\" </tool_call>\n</arg_value><arg_key>days</arg_key><arg_value>3</arg_value><arg_key>hourly</arg_key><arg_value>true</arg_value><arg_key>units</arg_key><arg_value>null</arg_value></tool_call><tool_call>now</tool_call>",
                    "Hm.",
                    "",
                    &[("get_weather", arguments), ("now", "{}")],
                ),
            ],
        );
    }
}

#[test]
fn malformed_and_unfinished_calls_lose_nothing_that_matters() {
    check(
        "glm45",
        &with_tools(),
        &[
            text(
                "你好 </tool_call> <arg_key>\n",
                "你好 </tool_call> <arg_key>\n",
            ),
            text("<tool_call>get_w", ""),
            text(
                "<tool_call>\n{\"name\": \"now\"}\n</tool_call>",
                "\n{\"name\": \"now\"}\n",
            ),
            calls(
                "<tool_call>get_weather<arg_key>ci",
                "",
                &[("get_weather", "")],
            ),
            calls(
                "<tool_call>get_weather<arg_key>city</arg_key><arg_value>上</arg_va",
                "",
                &[("get_weather", "{\"city\": \"上</arg_va")],
            ),
            calls(
                "<tool_call>get_weather<arg_key>city<arg_value>x</arg_value></tool_call>\nSo.",
                "So.",
                &[("get_weather", "{\"city\": \"x\"}")],
            ),
        ],
    );
    let raw = "<tool_call>now</tool_call>";
    check("glm47", &ParserOptions::default(), &[text(raw, raw)]);
}

#[test]
fn reasoning_may_begin_in_the_prompt() {
    check(
        "glm47",
        &in_reasoning(),
        &[thinking("\nHm.</think>\nHi", "Hm.", "Hi", &[])],
    );
}
