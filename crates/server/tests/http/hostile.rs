//! Requests made to break the server: none of them may cause a 5xx, a panic or a hang.

use hyper::Method;
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use proptest::test_runner::{Config, TestCaseError};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::executor::Script;
use crate::support::{Fixture, Options, chat, completion};

const PATHS: [&str; 2] = ["/v1/chat/completions", "/v1/completions"];

fn bodies() -> Vec<Vec<u8>> {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let deep_object = "{\"a\":".repeat(5000) + "1" + &"}".repeat(5000);
    let texts = [
        String::new(),
        "null".into(),
        "[]".into(),
        "{}".into(),
        "{".into(),
        "\u{feff}{}".into(),
        deep(100),
        deep(100_000),
        deep_object,
        "{\"messages\": [{\"role\": \"user\", \"content\": \"\\ud800\"}]}".into(),
        "{\"messages\": [{\"role\": \"user\", \"content\": \"\\u0000\"}]}".into(),
        "{\"prompt\": \"a\", \"temperature\": 1e999}".into(),
        "{\"prompt\": \"a\", \"max_tokens\": 99999999999999999999}".into(),
        "{\"prompt\": \"a\", \"n\": 0}".into(),
        "{\"prompt\": \"a\", \"seed\": 9223372036854775808}".into(),
        "{\"prompt\": \"a\", \"max_tokens\": 1, \"max_tokens\": 2}".into(),
        chat(json!({"messages": [{"role": "user", "content": "x".repeat(200_000)}]})).to_string(),
        chat(json!({"chat_template_kwargs": {"a": {"b": [1, null, {"c": "d"}]}}})).to_string(),
        chat(json!({"messages": [{"role": "assistant", "content": null}]})).to_string(),
        chat(json!({"messages": vec![json!({"role": "user", "content": ""}); 500]})).to_string(),
        completion(json!({"stop": vec!["a"; 17]})).to_string(),
        completion(json!({"prompt": vec![" "; 128], "n": 128})).to_string(),
        completion(json!({"prompt": "<|END_OF_TURN_TOKEN|>"})).to_string(),
        completion(json!({"min_tokens": 10, "max_tokens": 10, "ignore_eos": true})).to_string(),
    ];
    let mut bodies: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    bodies.push(vec![0xff; 100]);
    bodies.push(vec![0; 100]);
    bodies
}

#[tokio::test]
async fn written_by_hand() {
    for reasoning in [false, true] {
        let fixture = Fixture::ready(Options {
            reasoning,
            ..Options::default()
        })
        .await;
        let client = fixture.client();
        for body in bodies() {
            for path in PATHS {
                let answer = client.send(Method::POST, path, &body).await;
                let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
                assert!(
                    answer.status == 200 || answer.status == 400,
                    "{} {shown}",
                    answer.status
                );
                if answer.status == 400 {
                    answer.error_code();
                }
            }
        }
        fixture.engine_idle().await;
        assert_eq!(client.chat(&chat(json!({}))).await.status, 200);
    }
}

/// Values that somebody might put where another is expected.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-3i64..300).prop_map(Value::from),
        "[a-z<|>_ \\x00é🦀\"\\\\]{0,12}".prop_map(Value::from),
        Just(json!("none")),
        Just(json!("user")),
        Just(json!({"role": "user", "content": "Hi"})),
        Just(json!({"role": "assistant", "content": "Hi", "prefix": true})),
        Just(json!({"type": "function", "function": {"name": "f", "parameters": {}}})),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z_]{1,8}", inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

const FIELDS: [&str; 36] = [
    "model",
    "messages",
    "prompt",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "seed",
    "n",
    "stop",
    "stop_token_ids",
    "max_tokens",
    "max_completion_tokens",
    "min_tokens",
    "ignore_eos",
    "include_stop_str_in_output",
    "skip_special_tokens",
    "logprobs",
    "top_logprobs",
    "stream",
    "stream_options",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template_kwargs",
    "reasoning_effort",
    "include_reasoning",
    "documents",
    "priority",
    "echo",
];

fn request() -> impl Strategy<Value = (Value, &'static str)> {
    let fields = prop::collection::vec((prop::sample::select(&FIELDS[..]), value()), 0..6);
    (fields, prop::sample::select(&PATHS[..])).prop_map(|(fields, path)| {
        let mut body = if path == PATHS[0] {
            chat(json!({}))
        } else {
            completion(json!({}))
        };
        for (name, value) in fields {
            body[name] = value;
        }
        (body, path)
    })
}

#[test]
fn put_together_by_chance() {
    let runtime = Runtime::new().unwrap();
    let options = Options {
        reasoning: true,
        ..Options::script(Script::says("Hm, Hello é"))
    };
    let fixture = runtime.block_on(Fixture::ready(options));
    let client = fixture.client();
    let config = Config {
        cases: 600,
        failure_persistence: None,
        ..Config::default()
    };
    proptest!(config, |((body, path) in request())| {
        let answer = runtime.block_on(client.post(path, &body));
        let broken = answer.text.contains("\"server_error\"");
        if broken || !matches!(answer.status, 200 | 400 | 429) {
            return Err(TestCaseError::fail(format!("{} {}", answer.status, answer.text)));
        }
    });
    runtime.block_on(fixture.engine_idle());
}
