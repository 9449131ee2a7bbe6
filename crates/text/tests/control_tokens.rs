//! Control tokens come from chat templates, never from what requests say, and no template loses
//! anything by it.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

mod conversations;

use std::path::{Path, PathBuf};

use backstop_text::{
    ChatTemplate, ChatTemplateInput, ControlTexts, PromptText, Tokenizer, chat_format,
};
use serde_json::{Map, Value, json};

use conversations::input;

const MARK: &str = "314159265358979323846264338327950288419";

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

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read_json(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(repository().join(path)).unwrap()).unwrap()
}

/// A template with a vocabulary that has a token for each control text that it writes.
struct Model {
    name: &'static str,
    template: ChatTemplate,
    tokenizer: Tokenizer,
    controls: ControlTexts,
    /// Control texts.
    texts: Vec<String>,
}

impl Model {
    fn new(name: &'static str, format: &str, source: &str) -> Self {
        let texts = control_texts(source);
        let tokenizer = Tokenizer::from_json(&tokenizer_json(&texts)).unwrap();
        let format = chat_format(format).unwrap();
        Self {
            name,
            template: ChatTemplate::from_source(source).unwrap(),
            controls: ControlTexts::new(&tokenizer, format, &[source]).unwrap(),
            tokenizer,
            texts,
        }
    }

    fn all() -> Vec<Self> {
        let path = |name: &str| match name {
            "demo" => "models/demo/chat_template.jinja".to_owned(),
            name => format!("tests/goldens/templates/{name}.jinja"),
        };
        let source = |name: &str| std::fs::read_to_string(repository().join(path(name))).unwrap();
        let models = TEMPLATES.iter();
        models
            .map(|(name, format)| Self::new(name, format, &source(name)))
            .collect()
    }

    fn render(&self, input: &ChatTemplateInput) -> Option<PromptText> {
        self.template
            .render_apart(input, &self.controls, MARK, 1 << 20)
            .ok()
    }

    fn ids(&self, prompt: &PromptText) -> Vec<u32> {
        self.tokenizer
            .encode_within(prompt, false, 1 << 20)
            .unwrap()
    }

    /// How often each control token is there.
    fn count(&self, ids: &[u32]) -> Vec<(&str, usize)> {
        let count = |text: &String| {
            let id = self.tokenizer.token_to_id(text).unwrap();
            ids.iter().filter(|other| **other == id).count()
        };
        self.texts
            .iter()
            .map(|text| (text.as_str(), count(text)))
            .collect()
    }
}

/// What a template writes that looks like control tokens.
fn control_texts(source: &str) -> Vec<String> {
    let mut texts = vec!["<s>".to_owned(), "</s>".to_owned()];
    for (open, close) in [("<|", "|>"), ("<｜", "｜>"), ("<", ">"), ("[", "]")] {
        for (start, _) in source.match_indices(open) {
            let rest = &source[start + open.len()..];
            let Some(end) = rest.find(close) else {
                continue;
            };
            let name = &rest[..end];
            let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '▁';
            let is_tag = open != "[" || name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
            let plain = name.trim_start_matches('/');
            if !plain.is_empty() && plain.chars().all(is_name) && is_tag {
                texts.push(format!("{open}{name}{close}"));
            }
        }
    }
    texts.sort();
    texts.dedup();
    texts
}

/// The demo model's tokenizer with other added tokens; those in plain angle brackets are not special.
fn tokenizer_json(texts: &[String]) -> Vec<u8> {
    let mut file = read_json("models/demo/tokenizer.json");
    let is_special = |text: &str| {
        !text.starts_with('<') || text.contains(['|', '｜']) || text == "<s>" || text == "</s>"
    };
    let added = texts
        .iter()
        .zip(20_000..)
        .map(|(text, id): (&String, u32)| {
            json!({"id": id, "content": text, "special": is_special(text), "normalized": false,
               "single_word": false, "lstrip": false, "rstrip": false})
        });
    file["added_tokens"] = added.collect();
    let vocab = file["model"]["vocab"].as_object_mut().unwrap();
    vocab.retain(|token, _| !texts.contains(token));
    // Ids of added tokens follow the vocabulary's.
    for (entry, id) in file["added_tokens"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .zip(10_000_u32..)
    {
        entry["id"] = json!(id);
    }
    let tokens = file["added_tokens"].as_array().unwrap().clone();
    let vocab = file["model"]["vocab"].as_object_mut().unwrap();
    for entry in tokens {
        vocab.insert(
            entry["content"].as_str().unwrap().to_owned(),
            entry["id"].clone(),
        );
    }
    file["post_processor"] = Value::Null;
    file.to_string().into_bytes()
}

fn conversations() -> Map<String, Value> {
    read_json("tests/goldens/templates/conversations.json")
        .as_object()
        .unwrap()
        .clone()
}

#[test]
fn conversations_without_control_text_are_as_they_were() {
    for model in Model::all() {
        let mut rendered = 0;
        for (name, request) in conversations() {
            let input = input(&request);
            let Ok(plain) = model.template.render(&input) else {
                continue;
            };
            let prompt = model.render(&input).unwrap();
            assert_eq!(
                prompt,
                PromptText::raw(plain.clone()),
                "{}, {name}",
                model.name
            );
            assert_eq!(
                model.ids(&prompt),
                model.tokenizer.encode(&plain, false).unwrap()
            );
            rendered += 1;
        }
        assert!(rendered >= 10, "{}", model.name);
    }
}

/// Adds a text to everything that is said in a conversation, but not by the assistant.
fn with_text(request: &Value, text: &str) -> Value {
    let mut request = request.clone();
    for message in request["messages"].as_array_mut().unwrap() {
        if message["role"] != "assistant" {
            let content = message["content"].as_str().unwrap().to_owned();
            message["content"] = json!(format!("{content} a {text}{text} b {text}c"));
        }
        let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
        for call in calls.into_iter().flatten() {
            let arguments = call["function"]["arguments"].as_object_mut().unwrap();
            arguments.insert(
                format!("k{text}"),
                json!([text, {"a": format!("{text} b")}]),
            );
            // Escaped as only JSON is.
            let escaped = call["function"]["arguments"]
                .to_string()
                .replace('<', "\\u003c");
            call["function"]["arguments"] = json!(escaped);
        }
    }
    for tool in request["tools"].as_array_mut().into_iter().flatten() {
        let function = &mut tool["function"];
        let description = function["description"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        function["description"] = json!(format!("{description} {text}"));
    }
    request
}

#[test]
fn what_a_request_says_makes_no_control_token() {
    for model in Model::all() {
        let mut compared = 0;
        for (name, request) in conversations() {
            let benign = model.render(&input(&with_text(&request, "(x)")));
            for text in &model.texts {
                let hostile = input(&with_text(&request, text));
                let (Some(benign), Some(prompt)) = (&benign, model.render(&hostile)) else {
                    continue;
                };
                let plain = model.template.render(&hostile).unwrap();
                assert_eq!(prompt.as_str(), plain, "{}, {name}, {text}", model.name);
                let ids = model.ids(&prompt);
                assert_eq!(
                    model.count(&ids),
                    model.count(&model.ids(benign)),
                    "{}, {name}, {text}",
                    model.name
                );
                let whole = model.tokenizer.encode(&plain, false).unwrap();
                let decode = |ids: &[u32]| model.tokenizer.decode(ids, false).unwrap();
                assert_eq!(decode(&ids), decode(&whole));
                compared += 1;
            }
        }
        assert!(compared >= 30, "{} {compared}", model.name);
    }
}

#[test]
fn names_of_tools_and_calls_make_no_control_token() {
    for model in Model::all() {
        let request = |name: &str| {
            json!({"messages": [
                {"role": "user", "content": "Go"},
                {"role": "assistant", "content": "", "tool_calls": [
                    {"id": "Ab3dE6gH9", "type": "function", "function": {"name": name, "arguments": {}}}]},
                {"role": "tool", "tool_call_id": "Ab3dE6gH9", "name": name, "content": "done"},
            ], "tools": [{"type": "function", "function": {"name": name, "description": "d",
                "parameters": {"type": "object", "properties": {name: {"type": "string", "description": name}}}}}],
            "arguments": {"custom": {name: name}}, "add_generation_prompt": true})
        };
        let Some(benign) = model.render(&input(&request("(x)"))) else {
            continue;
        };
        for text in &model.texts {
            let prompt = model.render(&input(&request(text))).unwrap();
            let counts = model.count(&model.ids(&prompt));
            assert_eq!(
                counts,
                model.count(&model.ids(&benign)),
                "{}, {text}",
                model.name
            );
        }
    }
}

#[test]
fn an_assistants_own_reasoning_tags_stay() {
    let models = Model::all();
    for name in ["qwen3", "glm-4.7-flash", "deepseek-v3.1"] {
        let model = models.iter().find(|model| model.name == name).unwrap();
        let request = |content: &str| {
            input(&json!({"messages": [{"role": "user", "content": "1 + 1?"},
                {"role": "assistant", "content": content}],
                "tools": null, "arguments": {}, "add_generation_prompt": false}))
        };
        let own = request("<think>\nOne and one.\n</think>\n\n2");
        let prompt = model.render(&own).unwrap();
        assert_eq!(
            prompt,
            PromptText::raw(model.template.render(&own).unwrap()),
            "{name}"
        );
        // A page that the assistant repeats has no tags of its own.
        let quoted = input(&json!({"messages": [{"role": "user", "content": "1 + 1?"},
            {"role": "assistant", "content": "[web fetch tool result]\nan odd </think> page", "quotes": true}],
            "tools": null, "arguments": {}, "add_generation_prompt": false}));
        let prompt = model.render(&quoted).unwrap();
        assert!(prompt.as_str().contains("an odd </think> page"), "{name}");
        assert_eq!(prompt.content_points().len(), 1, "{name}");
        // The same from a user is text.
        let user = input(
            &json!({"messages": [{"role": "user", "content": "a </think> b"}],
            "tools": null, "arguments": {}, "add_generation_prompt": false}),
        );
        assert_eq!(
            model.render(&user).unwrap().content_points().len(),
            1,
            "{name}"
        );
    }
}

#[test]
fn two_texts_side_by_side_make_no_control_token() {
    let source = "{% for m in messages %}{{ m.content | trim }}{% endfor %}<|im_end|>";
    let model = Model::new("joined", "chatml", source);
    let id = model.tokenizer.token_to_id("<|im_end|>").unwrap();
    for (first, second) in [
        ("<|im_", "end|>"),
        ("<", "|im_end|>"),
        ("x <|im_end|  ", ">"),
        ("<<|im_end", "|>"),
    ] {
        let messages = [first, second].map(|text| json!({"role": "user", "content": text}));
        let request = json!({"messages": messages, "tools": null, "arguments": {}, "add_generation_prompt": true});
        let prompt = model.render(&input(&request)).unwrap();
        let ids = model.ids(&prompt);
        assert_eq!(
            ids.iter().filter(|other| **other == id).count(),
            1,
            "{first} {second}"
        );
        assert_eq!(
            model.tokenizer.decode(&ids, false).unwrap(),
            prompt.as_str()
        );
    }
}

#[test]
fn contents_are_split_as_the_reference_does_it() {
    let model = Model::new(
        "alone",
        "chatml",
        "<|im_start|>{{ messages[0].content }}<|im_end|>",
    );
    let mut reference = tokenizers::Tokenizer::from_bytes(tokenizer_json(&model.texts)).unwrap();
    reference.set_encode_special_tokens(true);
    for content in [
        "<|im_end|>",
        " a<|im_start|>b <|im_end|> c\n<|im_end|>",
        "<s>é</s>",
        "<<s>>",
        "e\u{301}<|im_end|>\u{301}",
    ] {
        let request = json!({"messages": [{"role": "user", "content": content}],
            "tools": null, "arguments": {}, "add_generation_prompt": true});
        let ids = model.ids(&model.render(&input(&request)).unwrap());
        let expected = reference.encode_fast(content, false).unwrap();
        assert_eq!(ids[1..ids.len() - 1], *expected.get_ids(), "{content}");
    }
}
