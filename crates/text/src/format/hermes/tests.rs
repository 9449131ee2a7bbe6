use super::super::ParserOptions;
use super::super::testing::{calls, check, in_reasoning, text, thinking, with_tools};

#[test]
fn answers_are_split_into_their_parts() {
    let weather = ("get_weather", "{\"city\": \"Köln 🌧\", \"days\": 3}");
    check(
        "hermes",
        &with_tools(),
        &[
            text("Hello <b>there</b> \n", "Hello <b>there</b> \n"),
            text(" \n", " \n"),
            text("", ""),
            calls(
                "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln 🌧\", \"days\": 3}}\n</tool_call>",
                "",
                &[weather],
            ),
            calls(
                "Let me look.\n\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"arguments\": {\"city\": \"Köln 🌧\", \"days\": 3}, \"name\": \"get_weather\"}\n</tool_call>\n",
                "Let me look.",
                &[("now", "{}"), weather],
            ),
            calls(
                "<tool_call>{\"name\":\"now\"}</tool_call> \n And so on.\n",
                " \n And so on.\n",
                &[("now", "{}")],
            ),
            thinking(
                "<think>\nI need <tool_call> here?\n\n</think>\n\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
                "I need <tool_call> here?",
                "",
                &[("now", "{}")],
            ),
            thinking("\n<think>\n\n</think>\n\nHi\n", "", "Hi\n", &[]),
            thinking("<think>cut off\n", "cut off\n", "", &[]),
            // Two objects in one block, and arguments as a string.
            calls(
                "<tool_call>\n{\"name\": \"now\", \"arguments\": \"{}\"}\n{\"name\": \"now\", \"parameters\": {\"a\": 1}}\n</tool_call>",
                "",
                &[("now", "{}"), ("now", "{\"a\": 1}")],
            ),
        ],
    );
}

#[test]
fn tags_are_text_where_they_mean_nothing() {
    check(
        "hermes",
        &with_tools(),
        &[
            text(
                "The tag </tool_call> ends </think> it",
                "The tag </tool_call> ends </think> it",
            ),
            text("Use <think> to think", "Use <think> to think"),
            text("a <tool_cal", "a <tool_cal"),
            calls(
                "<tool_call>{\"name\": \"now\", \"arguments\": {\"t\": \"</tool_call> <think>\"}}</tool_call>",
                "",
                &[("now", "{\"t\": \"</tool_call> <think>\"}")],
            ),
        ],
    );
    let without_tools = ParserOptions::default();
    let call = "x\n<tool_call>\n{\"name\": \"now\"}\n</tool_call>";
    check("hermes", &without_tools, &[text(call, call)]);
    let call = "<think>\nHm.\n</think>\n\n<tool_call>\n{\"name\": \"now\"}\n</tool_call>";
    let content = "<tool_call>\n{\"name\": \"now\"}\n</tool_call>";
    check(
        "hermes",
        &without_tools,
        &[thinking(call, "Hm.", content, &[])],
    );
    check(
        "chatml",
        &with_tools(),
        &[thinking(call, "Hm.", content, &[])],
    );
}

#[test]
fn malformed_and_unfinished_calls_lose_nothing_that_matters() {
    check(
        "hermes",
        &with_tools(),
        &[
            text("<tool_call>\nnow()\n</tool_call>", "\nnow()\n"),
            text("<tool_call>{\"name\": 7}</tool_call>", "{\"name\": 7}"),
            text("<tool_call>\n{\"name\": \"no", ""),
            text("<tool_call>", ""),
            text(
                "<tool_call>{\"name\": \"now\", \"argu</tool_call>",
                "{\"name\": \"now\", \"argu",
            ),
            calls(
                "<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": \"b",
                "",
                &[("now", "{\"a\": \"b")],
            ),
            calls(
                "<tool_call>{\"name\": \"now\", \"arguments\": {}}}</tool_call>",
                "}",
                &[("now", "{}")],
            ),
            calls(
                "<tool_call>{\"name\": \"now\", \"arguments\": {}}<tool_call>{\"name\": \"now\"}",
                "",
                &[("now", "{}"), ("now", "{}")],
            ),
        ],
    );
}

#[test]
fn reasoning_may_begin_in_the_prompt() {
    check(
        "hermes",
        &in_reasoning(),
        &[
            thinking("Hm.\n</think>\n\nHi", "Hm.", "Hi", &[]),
            thinking("\n</think>\n\nHi </think>", "", "Hi </think>", &[]),
            thinking("Hm. <tool_call>", "Hm. <tool_call>", "", &[]),
        ],
    );
    check("hermes", &with_tools(), &[text("\n</think>\n\nHi", "Hi")]);
}
