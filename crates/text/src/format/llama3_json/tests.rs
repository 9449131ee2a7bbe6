use super::super::ParserOptions;
use super::super::testing::{calls, check, text, with_tools};

#[test]
fn json_of_an_offered_tool_is_a_call() {
    check(
        "llama3_json",
        &with_tools(),
        &[
            calls(
                "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Zürich ☀️ <|python_tag|> x\"}}",
                "",
                &[("get_weather", "{\"city\": \"Zürich ☀️ <|python_tag|> x\"}")],
            ),
            calls(
                "\n {\"name\": \"now\", \"parameters\": {}}; {\"name\": \"now\", \"arguments\": {\"a\": [1]}}\n",
                "",
                &[("now", "{}"), ("now", "{\"a\": [1]}")],
            ),
            calls(
                "<|python_tag|>{\"type\": \"function\", \"name\": \"now\", \"parameters\": null}",
                "",
                &[("now", "{}")],
            ),
            calls(
                "Let me look.<|python_tag|>{\"name\": \"now\"}",
                "Let me look.",
                &[("now", "{}")],
            ),
            calls("{\"name\": \"now\"} Done.", " Done.", &[("now", "{}")]),
        ],
    );
}

#[test]
fn everything_else_is_text() {
    let texts = [
        "Hello {\"name\": \"now\"}",
        "{\"name\": \"Bob\", \"parameters\": {\"age\": 3}}",
        "{\"name\": \"Bob\"}",
        "{\"answer\": 42}",
        "[{\"name\": \"now\"}]",
        " \n",
        "{\"name\": \"other\"}; {\"name\": \"now\"}",
        "{} ",
        "a <|python_ta",
    ];
    for raw in texts {
        check("llama3_json", &with_tools(), &[text(raw, raw)]);
    }
    let code = "<|python_tag|>print('hi')";
    check("llama3_json", &with_tools(), &[text(code, "print('hi')")]);
    let call = "{\"name\": \"now\", \"parameters\": {}}";
    check(
        "llama3_json",
        &ParserOptions::default(),
        &[text(call, call)],
    );
}

#[test]
fn a_call_that_is_cut_off_keeps_what_was_reported() {
    check(
        "llama3_json",
        &with_tools(),
        &[
            text("{\"name\": \"no", ""),
            calls(
                "{\"name\": \"now\", \"parameters\": {\"a\": \"<|pyth",
                "",
                &[("now", "{\"a\": \"<|pyth")],
            ),
            calls(
                "{\"name\": \"now\", \"parameters\": {}}; {\"na",
                "",
                &[("now", "{}")],
            ),
        ],
    );
}
