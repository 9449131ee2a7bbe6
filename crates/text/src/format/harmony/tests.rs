use super::super::ParserOptions;
use super::super::testing::{Case, calls, check, text, thinking, with_tools};
use crate::constraint::Opening;

#[test]
fn channels_are_told_apart() {
    check(
        "harmony",
        &with_tools(),
        &[
            thinking(
                "<|channel|>analysis<|message|>Hm, 東京?<|end|><|start|>assistant<|channel|>final<|message|>Hi! \n<|return|>",
                "Hm, 東京?",
                "Hi! \n",
                &[],
            ),
            thinking(
                "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\": \"東京 <|end|> x\"}<|call|>",
                "Hm.",
                "",
                &[("get_weather", "{\"city\": \"東京 <|end|> x\"}")],
            ),
            calls(
                " to=functions.now<|channel|>commentary json<|message|>{}",
                "",
                &[("now", "{}")],
            ),
            thinking(
                "<|channel|>analysis<|message|>A<|end|><|start|>assistant<|channel|>analysis<|message|>B<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.now<|channel|>commentary<|message|><|call|><|start|>assistant<|channel|>final<|message|>Done.",
                "A\nB",
                "I look.\nDone.",
                &[("now", "{}")],
            ),
            thinking(
                "<|channel|>analysis to=browser.search code<|message|>{\"q\": 1}<|call|>",
                "{\"q\": 1}",
                "",
                &[],
            ),
        ],
    );
}

#[test]
fn answers_that_go_on_are_content() {
    let cases: Vec<Case<'_>> = [" and so on", "to be", "t", "", "too <|chan"]
        .map(|raw| text(raw, raw))
        .into();
    check("harmony", &with_tools(), &cases);
    check(
        "harmony",
        &with_tools(),
        &[text("and so on<|end|>\n", "and so on")],
    );
}

#[test]
fn malformed_and_unfinished_messages_lose_nothing_that_matters() {
    check(
        "harmony",
        &with_tools(),
        &[
            text("<|channel|>comm", ""),
            text(
                "<|channel|>final<|message|>a<|channel|>final<|message|>b",
                "a\nb",
            ),
            text("<|message|>a", "a"),
            text("<|channel|>commentary to=functions.<|message|>a", "a"),
            text(
                "<|channel|>commentary to=functions.now<|message|>x = 1<|call|>",
                "nowx = 1",
            ),
            calls(
                "<|channel|>commentary to=functions.now<|message|>{\"a\": \"<|en",
                "",
                &[("now", "{\"a\": \"<|en")],
            ),
        ],
    );
    let raw = "<|channel|>commentary to=functions.now<|message|>{\"a\": 1}<|call|>";
    check(
        "harmony",
        &ParserOptions::default(),
        &[text(raw, "{\"a\": 1}")],
    );
    let options = ParserOptions {
        opening: Opening::Reasoning,
        ..with_tools()
    };
    let raw = "Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi";
    check("harmony", &options, &[thinking(raw, "Hm.", "Hi", &[])]);
}
