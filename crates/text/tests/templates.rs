//! Real chat templates against what transformers makes of them; see `tests/goldens/README.md`.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

mod conversations;

use std::path::{Path, PathBuf};

use backstop_text::{ChatTemplate, TemplateError, chat_format, detect};
use serde_json::{Map, Value};

use conversations::input;

/// Each template and the chat format that it shows.
const TEMPLATES: &[(&str, &str)] = &[
    ("deepseek-v3.1", "deepseek_v31"),
    ("glm-4.7-flash", "glm47"),
    ("gpt-oss", "harmony"),
    ("mistral-nemo", "mistral"),
    ("qwen2.5", "hermes"),
    ("qwen3", "hermes"),
    ("qwen3-coder", "qwen3_coder"),
    ("smollm2", "chatml"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/templates")
}

fn read_json(path: &Path) -> Map<String, Value> {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// What differs from the golden, if anything does.
fn difference(template: &ChatTemplate, request: &Value, golden: &Value) -> Option<String> {
    let rendered = template.render(&input(request));
    let agrees = match (
        &rendered,
        golden["text"].as_str(),
        golden["raises"].as_str(),
    ) {
        (Ok(text), Some(expected), _) => text == expected,
        (Err(TemplateError::Raised(message)), _, Some(expected)) => message == expected,
        (Err(TemplateError::Failed(_)), None, None) => golden["fails"] == true,
        _ => false,
    };
    (!agrees).then(|| format!("{rendered:#?}\ninstead of\n{golden:#}"))
}

#[test]
fn real_templates_render_as_in_transformers() {
    let conversations = read_json(&folder().join("conversations.json"));
    assert!(conversations.len() >= 19);
    let mut differences = Vec::new();
    for (name, format) in TEMPLATES {
        let source = std::fs::read_to_string(folder().join(format!("{name}.jinja"))).unwrap();
        assert_eq!(detect(&source), Some(*format), "{name}");
        assert!(chat_format(format).is_some());
        let template = ChatTemplate::from_source(&source).unwrap();
        let goldens = read_json(&folder().join(format!("{name}.json")));
        assert_eq!(goldens.len(), conversations.len(), "{name}");
        for (conversation, golden) in &goldens {
            let request = &conversations[conversation];
            if let Some(difference) = difference(&template, request, golden) {
                differences.push(format!("{name}, {conversation}: {difference}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}
