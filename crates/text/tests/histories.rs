//! Histories that other providers wrote, with every real chat template of this repository: none is a
//! reason for a template to fail, and the model sees what stood there.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

use std::path::Path;

use backstop_text::{ChatTemplate, ChatTemplateInput, Plainness, TemplateError};
use serde_json::{Value, json};

/// The templates by name, and whether they show calls.
fn templates() -> Vec<(String, ChatTemplate, bool)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = root.join("tests/goldens/templates");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "jinja")
    });
    assert!(paths.len() >= 8);
    paths.push(root.join("models/demo/chat_template.jinja"));
    let read = |path: &std::path::PathBuf| {
        let source = std::fs::read_to_string(path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let shows_calls = name != "smollm2";
        (
            name,
            ChatTemplate::from_source(&source).unwrap(),
            shows_calls,
        )
    };
    paths.iter().map(read).collect()
}

fn conversation(id: &str, arguments: &Value) -> ChatTemplateInput {
    let call = json!({"id": id, "type": "function",
                      "function": {"name": "edit_file", "arguments": arguments}});
    let messages = json!([
        {"role": "user", "content": "Edit it."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "That did not work.", "tool_call_id": id},
        {"role": "assistant", "content": "I try again."},
        {"role": "user", "content": "Do."},
    ]);
    ChatTemplateInput {
        messages: messages.as_array().unwrap().clone(),
        add_generation_prompt: true,
        bos_token: Some("<s>".to_owned()),
        eos_token: Some("</s>".to_owned()),
        now_unix_seconds: 1_762_000_000,
        ..ChatTemplateInput::default()
    }
}

#[test]
fn arguments_may_be_anything() {
    let cases = [
        (json!("{\"path\": \"src/lib"), "src/lib"),
        (json!("needle, and no JSON"), "needle"),
        (json!("[\"needle\", 1]"), "needle"),
        (json!("\"needle\""), "needle"),
        (json!("4711"), "4711"),
        (json!(4711), "4711"),
        (json!(["needle", {"a": 1}]), "needle"),
        (json!("true"), "edit_file"),
        (json!(false), "edit_file"),
        (json!("null"), "edit_file"),
        (json!(null), "edit_file"),
        (json!(""), "edit_file"),
        (json!(" \n"), "edit_file"),
        (json!({}), "edit_file"),
        (json!({"path": {"needle": null}}), "needle"),
    ];
    for (name, template, shows_calls) in templates() {
        for (arguments, shown) in &cases {
            let rendered = template.render(&conversation("call00001", arguments));
            let text = rendered.unwrap_or_else(|error| panic!("{name}, {arguments}: {error}"));
            assert_eq!(
                text.contains(shown),
                shows_calls,
                "{name}, {arguments}: {text}"
            );
        }
    }
}

#[test]
fn only_templates_that_want_names_and_values_get_a_name_for_what_has_none() {
    let (malformed, list) = (json!("{\"path\": \"src/lib"), json!("[1, 2]"));
    let mut named = Vec::new();
    for (name, template, _) in templates() {
        for arguments in [&malformed, &list] {
            let text = template
                .render(&conversation("call00001", arguments))
                .unwrap();
            if text.contains("invalid_arguments") {
                named.push(name.clone());
            }
        }
    }
    named.sort();
    named.dedup();
    assert_eq!(named, ["glm-4.7-flash", "qwen3-coder"]);
}

#[test]
fn templates_that_write_texts_get_objects_as_texts() {
    // As the first templates of DeepSeek V3 do.
    let source = "{% for m in messages %}{% for c in m.tool_calls or [] %}\
                  {{ c.function.name + '\\n```json\\n' + c.function.arguments + '\\n```' }}\
                  {% endfor %}{% endfor %}";
    let template = ChatTemplate::from_source(source).unwrap();
    for (arguments, shown) in [
        (json!({"a": [1]}), "edit_file\n```json\n{\"a\":[1]}\n```"),
        (json!("{\"a"), "edit_file\n```json\n{\"a\n```"),
        (json!([1]), "edit_file\n```json\n[1]\n```"),
    ] {
        let text = template
            .render(&conversation("call00001", &arguments))
            .unwrap();
        assert_eq!(text, shown);
    }
}

#[test]
fn ids_of_kilobytes_do_not_reach_the_model() {
    let id = format!("call_{}", "state/".repeat(10_000));
    let writes_ids = "{% for m in messages %}{% for c in m.tool_calls or [] %}[{{ c.id }}]\
                      {% endfor %}{% if m.tool_call_id %}[{{ m.tool_call_id }}]{% endif %}{% endfor %}";
    let template = ChatTemplate::from_source(writes_ids).unwrap();
    let text = template.render(&conversation(&id, &json!({}))).unwrap();
    let (call, result) = text.split_once("][").unwrap();
    assert_eq!(
        (call.len(), call.trim_matches('[')),
        (10, result.trim_matches(']'))
    );
    let short = template
        .render(&conversation("toolu_01", &json!({})))
        .unwrap();
    assert_eq!(short, "[toolu_01][toolu_01]");
    for (name, template, _) in templates() {
        let text = template.render(&conversation(&id, &json!({})));
        assert!(!text.unwrap().contains("state/"), "{name}");
    }
}

fn said(messages: Value) -> ChatTemplateInput {
    ChatTemplateInput {
        messages: messages.as_array().unwrap().clone(),
        ..conversation("call00001", &json!({}))
    }
}

fn call(id: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": id, "arguments": {}}})
}

/// Conversations that some templates refuse.
fn unordered() -> Vec<ChatTemplateInput> {
    let message = |role: &str, text: &str| json!({"role": role, "content": text});
    let result =
        |id: &str| json!({"role": "tool", "content": format!("of {id}"), "tool_call_id": id});
    let (first, second) = ("call00001", "call00002");
    let calls = json!({"role": "assistant", "content": "I call.",
                       "tool_calls": [call(first), call(second)]});
    [
        json!([message("user", "a"), message("user", "b")]),
        json!([
            message("user", "a"),
            message("assistant", "b"),
            message("assistant", "c"),
            message("user", "d")
        ]),
        json!([
            message("system", "a"),
            message("system", "b"),
            message("user", "c")
        ]),
        json!([
            message("user", "a"),
            message("system", "b"),
            message("user", "c"),
            message("system", "d")
        ]),
        json!([message("assistant", "a"), message("user", "b")]),
        json!([
            message("user", "a"),
            calls,
            result(first),
            result(second),
            message("user", "stop"),
            message("assistant", "b"),
            message("user", "c")
        ]),
        json!([
            message("user", "a"),
            message("assistant", "b"),
            calls,
            result(second),
            result(first)
        ]),
    ]
    .map(said)
    .into()
}

#[test]
fn what_a_template_refuses_it_accepts_in_a_plainer_form() {
    let mut refused = 0;
    for (name, template, _) in templates() {
        for input in unordered() {
            if let Err(TemplateError::Raised(_)) = template.render(&input) {
                refused += 1;
                let plainer = input.plainer(Plainness::InTurns);
                let text = template
                    .render(&plainer)
                    .unwrap_or_else(|error| panic!("{name}: {error}: {plainer:?}"));
                // Mistral's leave out what is said beside calls.
                let calls = |message: &&Value| message.get("tool_calls").is_some();
                for message in input.messages.iter().filter(|message| !calls(message)) {
                    let content = message["content"].as_str().unwrap();
                    assert!(text.contains(content), "{name}: {content} in {text}");
                }
            }
        }
    }
    assert!(refused >= 5, "{refused}");
}

#[test]
fn a_plainer_form_has_turns_and_single_calls() {
    let strict = "{%- set loop_messages = messages -%}\
        {%- if messages[0].role == 'system' -%}[s:{{ messages[0].content }}]{%- set loop_messages = messages[1:] -%}{%- endif -%}\
        {%- for m in loop_messages -%}\
          {%- if m.role == 'system' -%}{{ raise_exception('a late system message') }}{%- endif -%}\
          {%- if m.tool_calls and m.tool_calls | length != 1 -%}{{ raise_exception('single tool-calls') }}{%- endif -%}\
          [{{ m.role[0] }}:{{ m.content }}{% for c in m.tool_calls or [] %}>{{ c.id }}{% endfor %}]\
        {%- endfor -%}";
    let template = ChatTemplate::from_source(strict).unwrap();
    let texts: Vec<String> = unordered()
        .iter()
        .map(|input| template.render(&input.plainer(Plainness::InTurns)).unwrap())
        .collect();
    assert_eq!(
        texts,
        [
            "[u:a\nb]",
            "[u:a][a:b\nc][u:d]",
            "[s:a\nb][u:c]",
            "[u:a\nb\nc\nd]",
            "[u:][a:a][u:b]",
            "[u:a][a:I call.>call00001][t:of call00001][a:>call00002][t:of call00002][a:][u:stop][a:b][u:c]",
            "[u:a][a:b\nI call.>call00001][t:of call00001][a:>call00002][t:of call00002]",
        ]
    );
    let without = unordered()[2].plainer(Plainness::WithoutSystem);
    assert_eq!(template.render(&without).unwrap(), "[u:a\nb\nc]");
}
