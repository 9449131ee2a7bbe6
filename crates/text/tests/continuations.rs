//! Prompts that end within their final message, with real chat templates: each ends exactly where
//! the message does, and the answer is read as what it goes on with.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

use std::path::Path;

use backstop_text::constraint::Opening;
use backstop_text::{
    ChatFormat, ChatTemplate, ChatTemplateInput, Continuation, ControlTexts, ParsedEvent,
    ParserOptions, PromptText, Tokenizer, chat_format,
};
use serde_json::{Map, Value, json};

/// Templates with their formats.
const TEMPLATES: &[(&str, &str)] = &[
    ("deepseek-v3.1", "deepseek_v31"),
    ("glm-4.7-flash", "glm47"),
    ("gpt-oss", "harmony"),
    ("mistral-nemo", "mistral"),
    ("qwen2.5", "hermes"),
    ("qwen3", "hermes"),
    ("qwen3-coder", "qwen3_coder"),
    ("smollm2", "chatml"),
    ("demo", "cohere_cmd4"),
];

const MARK: &str = "0123456789abcdef0123456789abcdef";

struct Model {
    name: &'static str,
    template: ChatTemplate,
    format: &'static ChatFormat,
    controls: ControlTexts,
}

fn models() -> impl Iterator<Item = Model> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let tokenizer = Tokenizer::from_file(root.join("models/demo/tokenizer.json")).unwrap();
    TEMPLATES.iter().map(move |(name, format)| {
        let path = match *name {
            "demo" => root.join("models/demo/chat_template.jinja"),
            name => root.join(format!("tests/goldens/templates/{name}.jinja")),
        };
        let source = std::fs::read_to_string(path).unwrap();
        let format = chat_format(format).unwrap();
        Model {
            name,
            template: ChatTemplate::from_source(&source).unwrap(),
            format,
            controls: ControlTexts::new(&tokenizer, format, &[&source]).unwrap(),
        }
    })
}

fn tools() -> Vec<Value> {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    vec![
        json!({"type": "function", "function": {"name": "weather", "description": "w", "parameters": parameters}}),
    ]
}

impl Model {
    /// As the server does.
    fn prompt(&self, mut messages: Vec<Value>, tools: Option<Vec<Value>>) -> (String, Opening) {
        let continuation = Continuation::begin(&mut messages, self.format, MARK.to_owned());
        let mut input = ChatTemplateInput {
            messages,
            tools,
            bos_token: Some("<s>".to_owned()),
            eos_token: Some("</s>".to_owned()),
            extra: Map::new(),
            ..ChatTemplateInput::default()
        };
        let render = |input: &ChatTemplateInput| {
            let rendered = self.template.render(input);
            PromptText::raw(rendered.unwrap_or_else(|error| panic!("{}: {error}", self.name)))
        };
        if let Ok((text, opening)) = continuation.cut(render(&input), self.format) {
            return (text.into_string(), opening);
        }
        assert!(continuation.is_within_reasoning(), "{}", self.name);
        input.messages.pop();
        input.add_generation_prompt = true;
        let begun = render(&input);
        let text = continuation.append_reasoning(begun, self.format, &self.controls);
        (text.unwrap().into_string(), Opening::Reasoning)
    }

    fn events(&self, opening: Opening, answer: &str) -> Vec<ParsedEvent> {
        let mut parser = self.format.parser(ParserOptions {
            opening,
            parse_tools: true,
            ..ParserOptions::default()
        });
        let mut events = parser.push(answer);
        events.extend(parser.finish());
        events
    }
}

fn user() -> Value {
    json!({"role": "user", "content": "Is it warm?"})
}

/// A conversation in which a tool was called.
fn with_calls(last: Value) -> Vec<Value> {
    let call = json!({"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}});
    vec![
        user(),
        json!({"role": "assistant", "content": "", "reasoning": "I ask.", "reasoning_content": "I ask.", "tool_calls": [call]}),
        json!({"role": "tool", "tool_call_id": "abcdefghi", "content": "31 degrees"}),
        last,
    ]
}

fn text() -> Value {
    json!({"role": "assistant", "content": "It is \n"})
}

fn thought_and_text() -> Value {
    json!({"role": "assistant", "content": "It is \n", "reasoning": "Rome, then.", "reasoning_content": "Rome, then."})
}

fn thought() -> Value {
    json!({"role": "assistant", "content": "", "reasoning": "Rome, \n", "reasoning_content": "Rome, \n"})
}

#[test]
fn text_goes_on_where_it_ends_and_is_text_whatever_it_looks_like() {
    for model in models() {
        for last in [text(), thought_and_text()] {
            let conversations = [
                (vec![user(), last.clone()], None),
                (vec![user(), last.clone()], Some(tools())),
                (with_calls(last), Some(tools())),
            ];
            for (messages, tools) in conversations {
                let (prompt, opening) = model.prompt(messages, tools);
                assert!(prompt.ends_with("It is \n"), "{}: {prompt}", model.name);
                assert_eq!(
                    prompt.matches("It is").count(),
                    1,
                    "{}: {prompt}",
                    model.name
                );
                assert_eq!(opening, Opening::Text, "{}", model.name);
                for answer in ["warm", " to=the sun", "{\"name\": 1", "\n\n3"] {
                    let expected = [ParsedEvent::ContentDelta(answer.to_owned())];
                    assert_eq!(model.events(opening, answer), expected, "{}", model.name);
                }
            }
        }
    }
}

#[test]
fn reasoning_goes_on_where_it_ends() {
    for model in models() {
        let conversations = [
            (vec![user(), thought()], None),
            (vec![user(), thought()], Some(tools())),
            (with_calls(thought()), Some(tools())),
        ];
        for (messages, tools) in conversations {
            let (prompt, opening) = model.prompt(messages, tools);
            assert!(prompt.ends_with("Rome, \n"), "{}: {prompt}", model.name);
            assert_eq!(
                prompt.matches("Rome, ").count(),
                1,
                "{}: {prompt}",
                model.name
            );
            assert_eq!(opening, Opening::Reasoning, "{}", model.name);
            let before = prompt.strip_suffix("Rome, \n").unwrap();
            assert_eq!(
                model.format.opening(before),
                Opening::Reasoning,
                "{}: {prompt}",
                model.name
            );
            let expected = [ParsedEvent::ReasoningDelta("so".to_owned())];
            assert_eq!(model.events(opening, "so"), expected, "{}", model.name);
        }
    }
}

#[test]
fn reasoning_may_stand_in_the_text() {
    for model in
        models().filter(|model| ["hermes", "glm47", "deepseek_v31"].contains(&model.format.id))
    {
        let open = json!({"role": "assistant", "content": "<think>\nRome, "});
        let (prompt, opening) = model.prompt(vec![user(), open], None);
        assert_eq!(opening, Opening::Reasoning, "{}: {prompt}", model.name);
        assert!(prompt.ends_with("Rome, "), "{}: {prompt}", model.name);
        let last = prompt.rfind("<think>").unwrap();
        assert!(
            prompt[..last].matches("<think>").count() == prompt[..last].matches("</think>").count()
                || !prompt[..last].contains("<think>"),
            "{}: {prompt}",
            model.name
        );
        let closed = json!({"role": "assistant", "content": "<think>\nRome.\n</think>\n\nIt is "});
        let (prompt, opening) = model.prompt(vec![user(), closed], None);
        assert_eq!(opening, Opening::Text, "{}: {prompt}", model.name);
        assert!(prompt.ends_with("It is "), "{}: {prompt}", model.name);
    }
}

#[test]
fn a_message_that_has_not_begun_may_begin_with_anything() {
    for model in models() {
        let empty = json!({"role": "assistant", "content": ""});
        let (_, opening) = model.prompt(vec![user(), empty], None);
        let marks_text = ["harmony", "cohere_cmd4"].contains(&model.format.id);
        assert_eq!(opening == Opening::Text, marks_text, "{}", model.name);
    }
}
