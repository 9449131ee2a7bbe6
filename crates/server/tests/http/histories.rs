//! Conversations that other providers wrote a part of, through every route that reads one.

use backstop_protocol::UnsupportedContent;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::{Fixture, Options};

const NOTE: &str = "[image: cannot be shown to this model]";

/// Each route, with a body whose only message is this content.
fn requests(content: &Value) -> [(&'static str, Value); 5] {
    let messages = json!([{"role": "user", "content": content}]);
    let chat = json!({"messages": messages, "max_tokens": 4});
    [
        ("/v1/chat/completions", chat.clone()),
        ("/tokenize", chat.clone()),
        ("/v1/messages", chat.clone()),
        ("/v1/messages/count_tokens", chat),
        (
            "/v1/responses",
            json!({"input": messages, "max_output_tokens": 16}),
        ),
    ]
}

/// What a conversation becomes.
async fn prompt(client: &Client, body: &Value) -> String {
    let tokens = client.post("/tokenize", body).await.json()["tokens"].clone();
    let back = json!({"tokens": tokens});
    let text = client.post("/detokenize", &back).await.json()["prompt"].clone();
    text.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn content_that_is_not_text_is_refused_or_noted_as_the_operator_says() {
    let content = json!([{"type": "text", "text": "Look"}, {"type": "image"}]);
    let refusing = Fixture::ready(Options::default()).await;
    for (path, body) in requests(&content) {
        let answer = refusing.client().post(path, &body).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(
            answer.text.contains(".0.content.1.type'"),
            "{path}: {}",
            answer.text
        );
    }
    let note = |config: &mut backstop_server::ServerConfig| {
        config.unsupported_content = UnsupportedContent::Note;
    };
    let noting = Fixture::ready(Options::default().config(note)).await;
    let client = noting.client();
    for (path, body) in requests(&content) {
        let answer = client.post(path, &body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
    let body = json!({"messages": [{"role": "user", "content": content}]});
    assert_eq!(
        prompt(&client, &body).await,
        format!("[user]Look\n{NOTE}[end][assistant]")
    );
}

#[tokio::test]
async fn a_template_that_insists_on_turns_gets_turns() {
    let strict = "{%- for m in messages -%}\
                  {%- if m.role == 'system' and not loop.first -%}{{ raise_exception('late') }}{%- endif -%}\
                  {%- if not loop.first and m.role == messages[loop.index0 - 1].role -%}\
                  {{ raise_exception('roles must alternate') }}{%- endif -%}\
                  [{{ m.role }}]{{ m.content }}{%- endfor -%}\
                  {%- if add_generation_prompt -%}[assistant]{%- endif -%}";
    let options = Options {
        template: Some(strict),
        ..Options::default()
    };
    let fixture = Fixture::ready(options).await;
    let client = fixture.client();
    let body = json!({"messages": [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"},
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Well?"}]});
    let expected = "[system]Be kind.[user]Hi\nBe brief.\nWell?[assistant]";
    assert_eq!(prompt(&client, &body).await, expected);
    let continued = json!({"add_generation_prompt": false, "continue_final_message": true, "messages": [
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "One"},
        {"role": "assistant", "content": "Two"}]});
    assert_eq!(
        prompt(&client, &continued).await,
        "[user]Hi[assistant]One\nTwo"
    );
}

#[tokio::test]
async fn a_template_that_knows_no_system_lets_the_user_say_it() {
    let strict = "{%- for m in messages -%}\
                  {%- if m.role == 'system' -%}{{ raise_exception('no system') }}{%- endif -%}\
                  [{{ m.role }}]{{ m.content }}{%- endfor -%}";
    let options = Options {
        template: Some(strict),
        ..Options::default()
    };
    let fixture = Fixture::ready(options).await;
    let body = json!({"messages": [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]});
    assert_eq!(prompt(&fixture.client(), &body).await, "[user]Be kind.\nHi");
    // A template that refuses every form is an error of the request, as before.
    let never = Options {
        template: Some("{{ raise_exception('never') }}"),
        ..Options::default()
    };
    let fixture = Fixture::ready(never).await;
    let answer = fixture.client().chat(&body).await;
    assert_eq!(
        (answer.status, answer.json()["error"]["param"].as_str()),
        (400, Some("messages"))
    );
}
