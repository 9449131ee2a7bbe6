use super::super::ParserOptions;
use super::super::testing::{calls, check, in_reasoning, text, thinking, with_tools};

#[test]
fn both_generations_of_calls_are_read() {
    let weather = ("get_weather", "{\"city\": \"杭州 <｜tool▁sep｜> x\"}");
    for format in ["deepseek_v3", "deepseek_v31"] {
        check(
            format,
            &with_tools(),
            &[
                text("你好 <｜tool \n", "你好 <｜tool \n"),
                calls(
                    "I look.\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{\"city\": \"杭州 <｜tool▁sep｜> x\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
                    "I look.\n",
                    &[weather, ("now", "{}")],
                ),
                thinking(
                    "<think>Hm.\n</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\": \"杭州 <｜tool▁sep｜> x\"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜><｜tool▁call▁end｜><｜tool▁calls▁end｜>",
                    "Hm.\n",
                    "",
                    &[weather, ("now", "{}")],
                ),
                // A tool of that name.
                calls(
                    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>",
                    "",
                    &[("function", "{\"a\": 1}")],
                ),
            ],
        );
    }
}

#[test]
fn malformed_and_unfinished_calls_lose_nothing_that_matters() {
    check(
        "deepseek_v3",
        &with_tools(),
        &[
            text(
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>no",
                "",
            ),
            text(
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>hello<｜tool▁call▁end｜>",
                "hello",
            ),
            text(
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now()<｜tool▁calls▁end｜>",
                "functionnow()",
            ),
            calls(
                "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{\"a\": \"<｜tool",
                "",
                &[("now", "{\"a\": \"<｜tool")],
            ),
            text("a<｜tool▁calls▁end｜>b<｜tool▁sep｜>", "ab"),
        ],
    );
}

#[test]
fn reasoning_may_begin_in_the_prompt_and_calls_end_it() {
    check(
        "deepseek_v3",
        &in_reasoning(),
        &[
            thinking("\nHm.\n</think>\n\nHi", "\nHm.\n", "\n\nHi", &[]),
            thinking(
                "Hm.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
                "Hm.",
                "",
                &[("now", "{}")],
            ),
        ],
    );
    let raw = "a<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}";
    check(
        "deepseek_v31",
        &ParserOptions::default(),
        &[text(raw, "anow{}")],
    );
}
