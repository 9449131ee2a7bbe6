//! Models with several chat templates: which one renders a request.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::{Fixture, Options};

const NAMED: [(&str, &str); 3] = [
    ("default", "[plain]{{ messages[0].content }}"),
    ("rag", "[rag]{{ documents[0].text }}"),
    ("tool_use", "[tools]{{ tools[0].function.name }}"),
];

async fn with(named_templates: &'static [(&'static str, &'static str)]) -> Fixture {
    Fixture::ready(Options {
        named_templates,
        ..Options::default()
    })
    .await
}

/// A chat with these fields beside its message.
fn chat(fields: &Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4});
    let fields = fields.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(fields);
    body
}

async fn prompt(client: &Client, fields: &Value) -> String {
    let tokens = client.post("/tokenize", &chat(fields)).await.json()["tokens"].clone();
    let text = client.post("/detokenize", &json!({"tokens": tokens})).await;
    text.json()["prompt"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn tools_and_documents_are_shown_by_the_template_that_is_for_them() {
    let fixture = with(&NAMED).await;
    let client = fixture.client();
    let tools = json!([{"type": "function", "function": {"name": "ping"}}]);
    let documents = json!([{"text": "Founded in 1191."}]);
    for (fields, expected) in [
        (json!({}), "[plain]Hi"),
        (json!({"tools": tools}), "[tools]ping"),
        (json!({"tools": tools, "tool_choice": "none"}), "[plain]Hi"),
        (json!({"documents": documents}), "[rag]Founded in 1191."),
        (
            json!({"tools": tools, "documents": documents, "chat_template": "rag"}),
            "[rag]Founded in 1191.",
        ),
        (
            json!({"tools": tools, "chat_template": "default"}),
            "[plain]Hi",
        ),
    ] {
        assert_eq!(prompt(&client, &fields).await, expected, "{fields}");
    }
    let info = client.get("/tokenizer_info").await.json();
    assert_eq!(info["chat_template"], NAMED[0].1);
}

#[tokio::test]
async fn an_unknown_name_and_a_text_of_a_template_are_refused_with_the_names() {
    let fixture = with(&NAMED).await;
    let client = fixture.client();
    for path in ["/v1/chat/completions", "/tokenize"] {
        let body = chat(&json!({"chat_template": "secret"}));
        let answer = client.post(path, &body).await;
        assert_eq!(answer.status, 400);
        let error = answer.json()["error"].clone();
        assert_eq!(error["param"], "chat_template");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("default, rag, tool_use"), "{message}");
        assert!(!message.contains("secret"), "{message}");

        let body = chat(&json!({"chat_template": "{{ messages }}"}));
        let error = client.post(path, &body).await.json()["error"].clone();
        assert_eq!(error["code"], "unsupported_parameter");
    }
}

#[tokio::test]
async fn without_a_default_a_name_is_needed() {
    let fixture = with(&[("default", ""), ("a", "[a]"), ("b", "[b]")]).await;
    let client = fixture.client();
    let answer = client.post("/v1/chat/completions", &chat(&json!({}))).await;
    assert_eq!(answer.status, 400);
    let message = answer.json()["error"]["message"].to_string();
    assert!(
        message.contains("must name one") && message.contains("a, b"),
        "{message}"
    );
    assert_eq!(prompt(&client, &json!({"chat_template": "b"})).await, "[b]");
}
