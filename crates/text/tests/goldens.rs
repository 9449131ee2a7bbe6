//! Chats and model outputs against what independent implementations make of them; see
//! `tests/goldens/README.md`.

use std::path::{Path, PathBuf};

use backstop_text::constraint::Opening;
use backstop_text::{
    ChatTemplate, ChatTemplateInput, ParsedEvent, ParsedMessage, ParserOptions,
    SentencePieceVocabulary, Tokenizer, chat_format,
};
use serde_json::{Value, json};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All goldens of a set by name; there must be at least this many.
fn goldens(set: &str, at_least: usize) -> Vec<(String, Value)> {
    let folder = repository().join("tests/goldens").join(set);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    let paths = paths.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    let name = |path: &Path| {
        path.file_stem()
            .expect("a file name")
            .to_string_lossy()
            .into_owned()
    };
    let mut goldens: Vec<_> = paths.map(|path| (name(&path), read_json(&path))).collect();
    goldens.sort_by(|(left, _), (right, _)| left.cmp(right));
    assert!(
        goldens.len() >= at_least,
        "only {} goldens in {}",
        goldens.len(),
        folder.display()
    );
    goldens
}

fn list(value: &Value) -> Option<Vec<Value>> {
    value.as_array().cloned()
}

#[test]
fn chats_are_rendered_and_tokenized_as_transformers_does() {
    let demo = repository().join("models/demo");
    let tokenizer = Tokenizer::from_file(demo.join("tokenizer.json")).unwrap();
    let source = std::fs::read_to_string(demo.join("chat_template.jinja")).unwrap();
    let template = ChatTemplate::from_source(&source).unwrap();
    let special_tokens = read_json(&demo.join("special_tokens_map.json"));
    let special_token = |name: &str| special_tokens[name].as_str().map(str::to_owned);
    let format = chat_format("cohere_cmd4").unwrap();
    for (name, golden) in goldens("chat", 30) {
        let request = &golden["request"];
        let input = ChatTemplateInput {
            messages: list(&request["messages"]).unwrap(),
            tools: list(&request["tools"]),
            documents: list(&request["documents"]),
            add_generation_prompt: request["add_generation_prompt"].as_bool().unwrap(),
            bos_token: special_token("bos_token"),
            eos_token: special_token("eos_token"),
            extra: request["arguments"].as_object().unwrap().clone(),
            now_unix_seconds: 0,
        };
        let text = template
            .render(&input)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(text, golden["text"].as_str().unwrap(), "{name}");
        let tokens = tokenizer.encode(&text, false).unwrap();
        assert_eq!(json!(tokens), golden["tokens"], "{name}");
        let thinks = text.ends_with("<|START_THINKING|>");
        let opening = format.opening(&text);
        assert_eq!(opening == Opening::Reasoning, thinks, "{name}");
        let bytes = tokens
            .iter()
            .flat_map(|token| tokenizer.token_bytes(*token).unwrap());
        let bytes: Vec<u8> = bytes.copied().collect();
        assert_eq!(
            tokenizer.decode(&tokens, false).unwrap().into_bytes(),
            bytes,
            "{name}"
        );
    }
}

/// Name of a golden, content, and name and arguments of the calls.
type Difference = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

/// Where this parser means to differ.
const DIFFERENCES: &[Difference] = &[
    // Marks of citations are text of the answer; there is nobody to take them out and use them.
    (
        "citation_like_text",
        "The <co>sky</co: 0:[1]> is blue.",
        &[],
    ),
    // Malformed actions are content.
    ("tool_not_json", "call f with a = 1", &[]),
    // The arguments end where their brackets do.
    ("tool_broken_json", "", &[("f", "{\"a\": }")]),
    // The model's ids are not used, and the order of keys is free.
    ("tool_number_as_id", "", &[("f", "{\"a\": 1}")]),
    ("tool_without_id", "", &[("f", "{\"a\": 1}")]),
    ("tool_fields_in_other_order", "", &[("f", "{\"a\": 1}")]),
    // No parameters are an empty object, and an object in a string is an object.
    ("tool_empty_parameters", "", &[("ping", "{}")]),
    (
        "tool_empty_parameters_twice",
        "",
        &[("ping", "{}"), ("pong", "{ }")],
    ),
    ("tool_without_parameters", "", &[("f", "{}")]),
    ("tool_string_parameters", "", &[("f", "{\"a\": 1}")]),
    // Arguments keep the white space that the model wrote.
    (
        "tool_pretty_json",
        "",
        &[(
            "f",
            "{\n      \"a\": 1,\n      \"b\": [\n        2\n      ]\n    }",
        )],
    ),
    // A call whose name was cut off is none.
    ("tool_truncated_in_name", "", &[]),
    ("tool_truncated_in_second", "", &[("f", "{\"a\": 1}")]),
];

fn parse<'a>(pieces: impl IntoIterator<Item = &'a str>) -> ParsedMessage {
    let format = chat_format("cohere_cmd4").expect("a known format");
    let mut parser = format.parser(ParserOptions {
        opening: Opening::Reasoning,
        parse_tools: true,
        ..ParserOptions::default()
    });
    let mut events: Vec<ParsedEvent> = pieces
        .into_iter()
        .flat_map(|piece| parser.push(piece))
        .collect();
    events.extend(parser.finish());
    events.into_iter().collect()
}

/// White space at the end of a section is kept here and dropped there.
fn trimmed(message: &ParsedMessage) -> (String, String, Vec<(String, String)>) {
    let calls = message.tool_calls.iter();
    let calls = calls
        .map(|call| (call.name.clone(), call.arguments.clone()))
        .collect();
    (
        message.reasoning.trim_end().to_owned(),
        message.content.trim_end().to_owned(),
        calls,
    )
}

#[test]
fn outputs_are_parsed_as_melody_does() {
    let goldens = goldens("melody", 63);
    for (name, ..) in DIFFERENCES {
        assert!(
            goldens.iter().any(|(golden, _)| golden == name),
            "{name} is no golden"
        );
    }
    for (name, golden) in goldens {
        let whole = parse([golden["text"].as_str().unwrap()]);
        for stream in golden["streams"].as_array().unwrap() {
            let pieces = stream["pieces"].as_array().unwrap();
            let message = parse(pieces.iter().map(|piece| piece.as_str().unwrap()));
            assert_eq!(message, whole, "{name}: pieces against the whole");
            let merged = &stream["merged"];
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let calls = merged["tool_calls"].as_array().unwrap().iter();
            let mut expected = (
                text(&merged["reasoning"]),
                text(&merged["content"]),
                calls
                    .map(|call| (text(&call["name"]), text(&call["arguments"])))
                    .collect(),
            );
            if let Some((_, content, calls)) = DIFFERENCES.iter().find(|(n, ..)| *n == name) {
                let calls = calls
                    .iter()
                    .map(|(name, json)| ((*name).into(), (*json).into()));
                let ours = (expected.0.clone(), (*content).to_owned(), calls.collect());
                assert_ne!(ours, expected, "{name}: no difference any more");
                expected = ours;
            }
            assert_eq!(trimmed(&message), expected, "{name}");
        }
    }
}

#[test]
fn sentence_pieces_are_what_sentencepiece_makes_of_a_text() {
    let goldens = read_json(&repository().join("tests/goldens/sentence_pieces.json"));
    let ids = |value: &Value| -> Vec<u32> {
        let ids = value.as_array().unwrap().iter();
        ids.map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let mut compared = 0;
    for golden in goldens.as_array().unwrap() {
        let tokens = golden["tokens"].as_array().unwrap().iter();
        let scores = golden["scores"].as_array().unwrap().iter();
        let adds_space = golden["adds_space"].as_bool().unwrap();
        let tokenizer = Tokenizer::from_sentence_pieces(&SentencePieceVocabulary {
            tokens: tokens
                .map(|token| token.as_str().unwrap().to_owned())
                .collect(),
            scores: scores.map(|score| score.as_f64().unwrap()).collect(),
            normal: ids(&golden["normal"]),
            control: ids(&golden["control"]),
            user_defined: Vec::new(),
            unknown: golden["unknown"].as_u64().map(|id| id as u32),
            begin: None,
            adds_space,
        });
        let tokenizer = tokenizer.unwrap();
        for case in golden["texts"].as_array().unwrap() {
            let text = case[0].as_str().unwrap();
            let tokens = tokenizer.encode(text, true).unwrap();
            assert_eq!(tokens, ids(&case[1]), "{text:?} with a space: {adds_space}");
            // The character by which spaces are written cannot be told from one.
            let spaced = text.replace('\u{2581}', " ");
            assert_eq!(tokenizer.decode(&tokens, false).unwrap(), spaced);
            compared += 1;
        }
    }
    assert!(compared > 500, "only {compared} texts");
}
