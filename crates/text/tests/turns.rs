//! Whatever a turn says, written as its chat format writes it and cut into any pieces: the format's
//! parser finds the same turn in it, and the same in any other pieces.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

use backstop_text::format::FORMATS;
use backstop_text::{ChatFormat, OfferedTools, ParsedMessage, ParserOptions, chat_format};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;
use serde_json::{Map, Value, json};

/// A turn of an assistant, apart from how it is written.
#[derive(Clone, Debug)]
struct Turn {
    reasoning: String,
    content: String,
    calls: Vec<(&'static str, Map<String, Value>)>,
}

const TOOLS: [&str; 2] = ["edit.file", "now"];

fn tools() -> OfferedTools {
    let properties = json!({
        "path": {"type": "string"},
        "größe": {"type": "integer"},
        "edits": {"type": "array"},
        "options": {"$ref": "#/$defs/options"},
        "mode": {"type": ["string", "null"]},
    });
    let parameters = json!({"type": "object", "properties": properties,
        "$defs": {"options": {"type": "object"}}});
    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    OfferedTools::new(&TOOLS.map(tool))
}

/// All marks of all formats.
fn marks() -> Vec<&'static str> {
    let parsers = FORMATS
        .iter()
        .map(|format| format.parser(ParserOptions::default()));
    let mut marks: Vec<&str> = parsers.flat_map(|parser| parser.tags().to_vec()).collect();
    marks.extend([
        "functions.",
        "name",
        "arguments",
        "to=",
        "```json\n",
        "```",
        "function",
    ]);
    marks.sort_unstable();
    marks.dedup();
    marks
}

/// Text of marks, of parts of them, and of what is special in JSON or long in UTF-8.
fn text() -> impl Strategy<Value = String> {
    const ODD: [&str; 24] = [
        "\"", "\\", "\\\"", "{", "}", "[", "]", "[{", "}]", ",", ":", ";", "'", "\n", "\n\n", "\t",
        " ", "<", ">", "a", "ä", "日本", "🙂", "null",
    ];
    let part = (select(marks()), any::<(u8, u8)>()).prop_map(|(mark, (start, end))| {
        let bounds: Vec<usize> = mark.char_indices().map(|(index, _)| index).collect();
        let start = bounds[usize::from(start) % bounds.len()];
        let end = bounds[usize::from(end) % bounds.len()];
        mark[start.min(end)..start.max(end)].to_owned()
    });
    let piece = prop_oneof![
        4 => select(&ODD[..]).prop_map(str::to_owned),
        2 => part,
        1 => select(marks()).prop_map(str::to_owned),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn arguments() -> impl Strategy<Value = Map<String, Value>> {
    let path = text().prop_map(|text| ("path", json!(text)));
    let size = any::<i64>().prop_map(|number| ("größe", json!(number)));
    let edits = vec(text(), 0..3).prop_map(|texts| ("edits", json!(texts)));
    let options = (text(), text()).prop_map(|(key, text)| ("options", json!({key: [text, 1.5]})));
    // Without quotes, `null` is no string.
    let mode = prop_oneof![
        Just(json!(null)),
        text().prop_map(|text| json!(format!("m{text}")))
    ];
    let mode = mode.prop_map(|mode| ("mode", mode));
    let argument = prop_oneof![path, size, edits, options, mode];
    vec(argument, 0..5).prop_map(|arguments| {
        let named = arguments.into_iter();
        named
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    })
}

fn turn() -> impl Strategy<Value = Turn> {
    let calls = vec((select(&TOOLS[..]), arguments()), 0..4);
    (text(), text(), calls).prop_map(|(reasoning, content, calls)| Turn {
        reasoning,
        content,
        calls,
    })
}

/// Takes marks out of a text, and white space from both its ends.
fn without(marks: &[&str], text: &str) -> String {
    let mut text = text.to_owned();
    while let Some(mark) = marks.iter().find(|mark| text.contains(**mark)) {
        text = text.replace(mark, "");
    }
    text.trim().to_owned()
}

impl Turn {
    /// What of this turn the format can say.
    fn in_format(&self, format: &ChatFormat) -> Self {
        let tags = format.parser(ParserOptions::default()).tags();
        let mut turn = Self {
            reasoning: without(tags, &self.reasoning),
            content: without(tags, &self.content),
            calls: self.calls.clone(),
        };
        if !format.calls_tools() {
            turn.calls.clear();
        }
        match format.id {
            "plain" => {
                turn.reasoning.clear();
                turn.content.clone_from(&self.content);
            }
            "llama3_json" => {
                turn.reasoning.clear();
                if turn.content.starts_with('{') {
                    turn.content.insert(0, '(');
                }
                if !turn.content.is_empty() {
                    turn.calls.clear();
                }
            }
            "qwen3_coder" => turn.without_in_strings("</parameter>"),
            "glm45" | "glm47" => turn.without_in_strings("</arg_value>"),
            _ => {}
        }
        turn
    }

    /// What ends a value can be no part of one that has no quotes.
    fn without_in_strings(&mut self, tag: &str) {
        let arguments = self
            .calls
            .iter_mut()
            .flat_map(|(_, arguments)| arguments.values_mut());
        for value in arguments {
            if let Value::String(text) = value {
                while text.contains(tag) {
                    *text = text.replace(tag, "");
                }
            }
        }
    }
}

/// The calls, each made of name, arguments and number, with something around and between them.
fn calls(turn: &Turn, around: [&str; 3], call: impl Fn(&str, &str, usize) -> String) -> String {
    let calls = turn.calls.iter().enumerate();
    let calls = calls.map(|(index, (name, arguments))| {
        let arguments = Value::Object(arguments.clone()).to_string();
        call(name, &arguments, index)
    });
    let calls: Vec<String> = calls.collect();
    match calls.is_empty() {
        true => String::new(),
        false => format!("{}{}{}", around[0], calls.join(around[1]), around[2]),
    }
}

/// The calls whose parameters have tags of their own; `around` is what stands before and after the
/// parameters' names and values.
fn tagged_calls(
    turn: &Turn,
    name: impl Fn(&str) -> String,
    around: [&str; 3],
    end: &str,
) -> String {
    let value = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let calls = turn.calls.iter().map(|(tool, arguments)| {
        let arguments = arguments.iter();
        let arguments = arguments.map(|(key, argument)| {
            format!(
                "{}{key}{}{}{}",
                around[0],
                around[1],
                value(argument),
                around[2]
            )
        });
        format!("{}{}{end}", name(tool), arguments.collect::<String>())
    });
    calls.collect()
}

fn between(open: &str, text: &str, close: &str) -> String {
    match text.is_empty() {
        true => String::new(),
        false => format!("{open}{text}{close}"),
    }
}

/// The calls of formats that mark no text but calls.
fn calls_between_tags(turn: &Turn, format: &str) -> String {
    match format {
        "deepseek_v3" => calls(
            turn,
            ["<｜tool▁calls▁begin｜>", "\n", "<｜tool▁calls▁end｜>"],
            |name, json, _| {
                format!(
                    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{json}\n```<｜tool▁call▁end｜>"
                )
            },
        ),
        "deepseek_v31" => calls(
            turn,
            ["<｜tool▁calls▁begin｜>", "", "<｜tool▁calls▁end｜>"],
            |name, json, _| {
                format!("<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{json}<｜tool▁call▁end｜>")
            },
        ),
        "kimi_k2" => calls(
            turn,
            [
                "<|tool_calls_section_begin|>",
                "",
                "<|tool_calls_section_end|>",
            ],
            |name, json, index| {
                format!(
                    "<|tool_call_begin|>functions.{name}:{index}<|tool_call_argument_begin|>{json}<|tool_call_end|>"
                )
            },
        ),
        "qwen3_coder" => {
            let name = |tool: &str| format!("\n<tool_call>\n<function={tool}>\n");
            let around = ["<parameter=", ">\n", "\n</parameter>\n"];
            tagged_calls(turn, name, around, "</function>\n</tool_call>")
        }
        "glm45" => {
            let name = |tool: &str| format!("\n<tool_call>{tool}\n");
            let around = ["<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n"];
            tagged_calls(turn, name, around, "</tool_call>")
        }
        "glm47" => {
            let name = |tool: &str| format!("<tool_call>{tool}");
            let around = ["<arg_key>", "</arg_key><arg_value>", "</arg_value>"];
            tagged_calls(turn, name, around, "</tool_call>")
        }
        other => panic!("how does {other} write a turn?"),
    }
}

/// The turn as templates of the format write it.
fn written(turn: &Turn, format: &str) -> String {
    let Turn {
        reasoning, content, ..
    } = turn;
    let thought = between("<think>", reasoning, "</think>");
    let object = |arguments: &'static str| {
        move |name: &str, json: &str, _| {
            format!("{{\"name\": \"{name}\", \"{arguments}\": {json}}}")
        }
    };
    match format {
        "cohere_cmd4" => {
            between("<|START_THINKING|>", reasoning, "<|END_THINKING|>")
                + &between("<|START_TEXT|>", content, "<|END_TEXT|>")
                + &calls(
                    turn,
                    ["<|START_ACTION|>[\n    ", ",\n    ", "\n]<|END_ACTION|>"],
                    |name, json, index| {
                        format!(
                            "{{\"tool_call_id\": \"{index}\", \"tool_name\": \"{name}\", \"parameters\": {json}}}"
                        )
                    },
                )
        }
        "hermes" | "chatml" => {
            between("<think>\n", reasoning, "\n</think>\n\n")
                + content
                + &calls(
                    turn,
                    [
                        "\n<tool_call>\n",
                        "\n</tool_call>\n<tool_call>\n",
                        "\n</tool_call>",
                    ],
                    object("arguments"),
                )
        }
        "llama3_json" => content.clone() + &calls(turn, ["", "; ", ""], object("parameters")),
        "mistral" => {
            between("[THINK]", reasoning, "[/THINK]")
                + content
                + &calls(turn, ["[TOOL_CALLS] [", ", ", "]"], object("arguments"))
        }
        "harmony" => {
            between(
                "<|channel|>analysis<|message|>",
                reasoning,
                "<|end|><|start|>assistant",
            ) + &between(
                "<|channel|>final<|message|>",
                content,
                "<|end|><|start|>assistant",
            ) + &calls(turn, ["", "<|start|>assistant", ""], |name, json, _| {
                format!(
                    "<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{json}<|call|>"
                )
            })
        }
        "plain" => content.clone(),
        _ => thought + content + &calls_between_tags(turn, format),
    }
}

fn options() -> ParserOptions {
    ParserOptions {
        parse_tools: true,
        tools: tools(),
        ..ParserOptions::default()
    }
}

/// Parses text that comes in pieces of these numbers of characters, again and again.
fn parse(format: &str, text: &str, sizes: &[usize]) -> ParsedMessage {
    let mut parser = chat_format(format).unwrap().parser(options());
    let mut events = Vec::new();
    let mut rest = text;
    for size in sizes.iter().cycle() {
        let end = rest
            .char_indices()
            .nth(*size)
            .map_or(rest.len(), |(index, _)| index);
        events.extend(parser.push(&rest[..end]));
        rest = &rest[end..];
        if rest.is_empty() {
            break;
        }
    }
    events.extend(parser.finish());
    events.into_iter().collect()
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    vec(1_usize..9, 1..8)
}

const AT_ONCE: &[usize] = &[usize::MAX];

proptest! {
    #[test]
    fn every_turn_is_read_as_it_was_written(turn in turn(), sizes in sizes()) {
        for format in FORMATS {
            let turn = turn.in_format(format);
            let raw = written(&turn, format.id);
            let found = parse(format.id, &raw, AT_ONCE);
            prop_assert_eq!(&found.reasoning, &turn.reasoning, "{}: {}", format.id, raw);
            prop_assert_eq!(&found.content, &turn.content, "{}: {}", format.id, raw);
            prop_assert_eq!(found.tool_calls.len(), turn.calls.len(), "{}: {}", format.id, raw);
            for (call, (name, arguments)) in found.tool_calls.iter().zip(&turn.calls) {
                prop_assert_eq!(&call.name, name, "{}: {}", format.id, raw);
                let found: Value = serde_json::from_str(&call.arguments).unwrap();
                prop_assert_eq!(&found, &Value::Object(arguments.clone()), "{}: {}", format.id, raw);
            }
            prop_assert_eq!(parse(format.id, &raw, &sizes), found, "{}: {}", format.id, raw);
        }
    }

    #[test]
    fn a_turn_that_is_cut_off_keeps_what_was_complete(turn in turn(), sizes in sizes(), cut in any::<usize>()) {
        for format in FORMATS {
            let raw = written(&turn.in_format(format), format.id);
            let whole = parse(format.id, &raw, AT_ONCE);
            let bounds: Vec<usize> = raw.char_indices().map(|(index, _)| index).collect();
            let end = bounds.get(cut % (bounds.len() + 1)).copied().unwrap_or(raw.len());
            let raw = &raw[..end];
            let found = parse(format.id, raw, AT_ONCE);
            prop_assert_eq!(&parse(format.id, raw, &sizes), &found, "{}: {}", format.id, raw);
            let complete = found.tool_calls.len().saturating_sub(1);
            prop_assert!(found.tool_calls.len() <= whole.tool_calls.len());
            prop_assert_eq!(&found.tool_calls[..complete], &whole.tool_calls[..complete]);
        }
    }

    #[test]
    fn no_text_is_read_otherwise_in_pieces(texts in vec(text(), 1..4), sizes in sizes()) {
        let raw = texts.concat();
        for format in FORMATS {
            let found = parse(format.id, &raw, AT_ONCE);
            prop_assert_eq!(parse(format.id, &raw, &sizes), found, "{}: {}", format.id, raw);
        }
    }
}
