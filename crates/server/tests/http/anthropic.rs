//! The Messages API: whole answers, streams, counts and errors in Anthropic's shape.

use backstop_engine::LifecycleState;
use backstop_server::KeySet;
use hyper::Method;
use serde_json::{Value, json};

use crate::support::client::{Answer, Client};
use crate::support::executor::Script;
use crate::support::{Fixture, MAX_MODEL_LEN, Options};

/// A request with one message.
fn ask(extra: Value) -> Value {
    let mut body = json!({"model": "claude-x", "max_tokens": 100,
                          "messages": [{"role": "user", "content": "Hi"}]});
    let extra = extra.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(extra);
    body
}

async fn post(client: &Client, body: &Value) -> Answer {
    client.post("/v1/messages", body).await
}

async fn reasoning(script: &str) -> Fixture {
    Fixture::ready(Options {
        reasoning: true,
        ..Options::script(Script::says(script))
    })
    .await
}

/// The events of a stream, whose names must be those of their data.
fn events(answer: &Answer) -> Vec<Value> {
    let parse = |event: &str| {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name, format!("event: {}", data["type"].as_str().unwrap()));
        data
    };
    let events = answer.text.split("\n\n").filter(|event| !event.is_empty());
    events.map(parse).collect()
}

/// What a client makes of a stream: the message, assembled as Anthropic's own SDK does it.
fn assembled(answer: &Answer) -> Value {
    let mut message = Value::Null;
    let mut arguments = String::new();
    for event in events(answer) {
        match event["type"].as_str().unwrap() {
            "message_start" => message = event["message"].clone(),
            "content_block_start" => {
                let content = message["content"].as_array_mut().unwrap();
                assert_eq!(event["index"], content.len());
                content.push(event["content_block"].clone());
                arguments.clear();
            }
            "content_block_delta" => {
                let block = message["content"]
                    .as_array_mut()
                    .unwrap()
                    .last_mut()
                    .unwrap();
                add(block, &event["delta"], &mut arguments);
            }
            "content_block_stop" if !arguments.is_empty() => {
                let block = message["content"]
                    .as_array_mut()
                    .unwrap()
                    .last_mut()
                    .unwrap();
                block["input"] = serde_json::from_str(&arguments).unwrap();
            }
            "message_delta" => {
                message["stop_reason"] = event["delta"]["stop_reason"].clone();
                message["stop_sequence"] = event["delta"]["stop_sequence"].clone();
                message["usage"] = event["usage"].clone();
            }
            "content_block_stop" | "message_stop" | "ping" => {}
            other => panic!("unexpected event {other}"),
        }
    }
    message
}

fn add(block: &mut Value, delta: &Value, arguments: &mut String) {
    let (name, more) = match delta["type"].as_str().unwrap() {
        "text_delta" => ("text", &delta["text"]),
        "thinking_delta" => ("thinking", &delta["thinking"]),
        "signature_delta" => ("signature", &delta["signature"]),
        _ => {
            *arguments += delta["partial_json"].as_str().unwrap();
            return;
        }
    };
    let text = block[name].as_str().unwrap().to_owned() + more.as_str().unwrap();
    block[name] = Value::from(text);
}

fn without_id(mut message: Value) -> Value {
    message["id"] = Value::Null;
    for block in message["content"].as_array_mut().unwrap() {
        if block["type"] == "tool_use" {
            assert!(block["id"].as_str().unwrap().starts_with("toolu_"));
            block["id"] = Value::Null;
        }
    }
    message
}

/// The type of an error, whose shape is checked on the way.
fn error_type(answer: &Answer) -> String {
    let body = answer.json();
    assert_eq!(body["type"], "error", "{}", answer.text);
    assert!(body["error"]["message"].is_string(), "{}", answer.text);
    assert_eq!(body["request_id"], answer.header("request-id"));
    assert_eq!(answer.header("request-id"), answer.header("x-request-id"));
    assert_eq!(answer.header("content-type"), "application/json");
    body["error"]["type"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_whole_answer() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let answer = client.post("/v1/messages?beta=true", &ask(json!({}))).await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert!(body["id"].as_str().unwrap().starts_with("msg_"));
    assert_eq!(
        (&body["type"], &body["role"]),
        (&json!("message"), &json!("assistant"))
    );
    assert_eq!(body["model"], "claude-x");
    assert_eq!(
        body["content"],
        json!([{"type": "text", "text": "Hello, world!"}])
    );
    assert_eq!(body["stop_reason"], "end_turn");
    assert_eq!(body["stop_sequence"], Value::Null);
    // "[user]Hi[end][assistant]", of which nothing was cached.
    assert_eq!(body["usage"]["input_tokens"], 24);
    assert_eq!(body["usage"]["cache_creation_input_tokens"], 0);
    assert_eq!(body["usage"]["cache_read_input_tokens"], 0);
    assert_eq!(body["usage"]["output_tokens"], 14);
    // The same again finds its first block in the cache; the parts still add up.
    let usage = post(&client, &ask(json!({}))).await.json()["usage"].clone();
    assert_eq!(
        (&usage["input_tokens"], &usage["cache_read_input_tokens"]),
        (&json!(8), &json!(16))
    );
    fixture.engine_idle().await;
}

#[tokio::test]
async fn a_stream_adds_up_to_the_whole() {
    let script = "I think<|END_THINKING|><|START_TEXT|>Fine<|END_TEXT|><|START_ACTION|>[\n    \
                  {\"tool_call_id\": \"0\", \"tool_name\": \"look\", \"parameters\": {\"at\": \"x\"}},\n    \
                  {\"tool_call_id\": \"1\", \"tool_name\": \"listen\", \"parameters\": {}}\n]<|END_ACTION|>";
    let fixture = reasoning(script).await;
    let client = fixture.client();
    let tool = |name: &str| json!({"name": name, "input_schema": {"type": "object"}});
    let extra = json!({"tools": [tool("look"), tool("listen")], "max_tokens": 500,
                       "thinking": {"type": "enabled", "budget_tokens": 1024}});
    // The first answer fills the cache, which shows in the usage of all that follow.
    post(&client, &ask(extra.clone())).await;
    let whole = post(&client, &ask(extra.clone())).await.json();
    let content = json!([
        {"type": "thinking", "thinking": "I think", "signature": "YmFja3N0b3A="},
        {"type": "text", "text": "Fine"},
        {"type": "tool_use", "id": null, "name": "look", "input": {"at": "x"}},
        {"type": "tool_use", "id": null, "name": "listen", "input": {}},
    ]);
    let whole = without_id(whole);
    assert_eq!(whole["content"], content);
    assert_eq!(whole["stop_reason"], "tool_use");
    assert_eq!(
        whole["usage"]["output_tokens_details"]["thinking_tokens"],
        7
    );
    let mut body = ask(extra);
    body["stream"] = json!(true);
    let streamed = post(&client, &body).await;
    assert!(
        streamed
            .header("content-type")
            .starts_with("text/event-stream")
    );
    assert_eq!(without_id(assembled(&streamed)), whole);
    let events = events(&streamed);
    assert_eq!(events[0]["type"], "message_start");
    assert_eq!(events[0]["message"]["stop_reason"], Value::Null);
    let usage = |event: &Value, name: &str| event["usage"][name].clone();
    let last = &events[events.len() - 2];
    for name in ["input_tokens", "cache_read_input_tokens"] {
        assert_eq!(usage(&events[0]["message"], name), usage(last, name));
    }
    assert_eq!(events.last().unwrap(), &json!({"type": "message_stop"}));
}

#[tokio::test]
async fn thinking_is_off_unless_it_is_asked_for() {
    let fixture = reasoning("<|START_TEXT|>Fine<|END_TEXT|>").await;
    let client = fixture.client();
    for extra in [json!({}), json!({"thinking": {"type": "disabled"}})] {
        let body = post(&client, &ask(extra)).await.json();
        assert_eq!(body["content"], json!([{"type": "text", "text": "Fine"}]));
        let usage = &body["usage"];
        let tokens =
            ["input_tokens", "cache_read_input_tokens"].map(|name| usage[name].as_u64().unwrap());
        // "[user]Hi", and the two marks around no reasoning.
        assert_eq!(tokens.iter().sum::<u64>(), 10);
    }
    let fixture = reasoning("Hm<|END_THINKING|><|START_TEXT|>Fine<|END_TEXT|>").await;
    let thinking = json!({"type": "adaptive", "display": "omitted"});
    let body = post(&fixture.client(), &ask(json!({"thinking": thinking})))
        .await
        .json();
    let expected = json!([{"type": "thinking", "thinking": "", "signature": "YmFja3N0b3A="},
                          {"type": "text", "text": "Fine"}]);
    assert_eq!(body["content"], expected);
}

#[tokio::test]
async fn every_way_to_end_has_its_name() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let end = async |extra: Value| {
        let body = post(&client, &ask(extra)).await.json();
        (body["stop_reason"].clone(), body["stop_sequence"].clone())
    };
    assert_eq!(end(json!({})).await, (json!("end_turn"), Value::Null));
    assert_eq!(
        end(json!({"max_tokens": 3})).await,
        (json!("max_tokens"), Value::Null)
    );
    let stopped = end(json!({"stop_sequences": ["nothing", ", w"]})).await;
    assert_eq!(stopped, (json!("stop_sequence"), json!(", w")));
    // More than the context leaves is no error, as it is not at Anthropic's.
    assert_eq!(end(json!({"max_tokens": 64_000})).await.0, "end_turn");
    let endless = Fixture::ready(Options::script(Script::repeats("a"))).await;
    let body = post(&endless.client(), &ask(json!({"max_tokens": 64_000})))
        .await
        .json();
    assert_eq!(body["stop_reason"], "model_context_window_exceeded");
    assert_eq!(body["usage"]["output_tokens"], MAX_MODEL_LEN - 24);
}

#[tokio::test]
async fn a_final_assistant_message_is_continued() {
    let fixture = Fixture::ready(Options::script(Script::says(" there"))).await;
    let messages =
        json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello "}]);
    let body = post(&fixture.client(), &ask(json!({"messages": messages})))
        .await
        .json();
    assert_eq!(body["usage"]["input_tokens"], 30);
    assert_eq!(body["content"][0]["text"], " there");
}

#[tokio::test]
async fn tokens_are_counted_without_an_answer() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let count = async |body: Value| {
        let answer = client
            .post("/v1/messages/count_tokens?beta=true", &body)
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    };
    let messages = json!([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]);
    assert_eq!(
        count(json!({"messages": messages})).await,
        json!({"input_tokens": 24})
    );
    // "[system]Be brief[end]" more.
    let body = json!({"messages": messages, "system": [{"type": "text", "text": "Be brief"}]});
    assert_eq!(count(body).await, json!({"input_tokens": 45}));
    let long = json!([{"role": "user", "content": "x".repeat(MAX_MODEL_LEN as usize)}]);
    assert_eq!(
        count(json!({"messages": long})).await["input_tokens"],
        MAX_MODEL_LEN + 22
    );
    let bad = client
        .post("/v1/messages/count_tokens", &json!({"messages": 1}))
        .await;
    assert_eq!(
        (bad.status, error_type(&bad).as_str()),
        (400, "invalid_request_error")
    );
}

#[tokio::test]
async fn errors_have_anthropics_shape() {
    let fixture = Fixture::ready(Options::named("north").config(|config| {
        config.max_body_bytes = 100_000;
        config.api_keys = Some(KeySet::new(["a-good-key"]));
    }))
    .await;
    let without = fixture.client();
    let answer = post(&without, &ask(json!({}))).await;
    assert_eq!(
        (answer.status, error_type(&answer).as_str()),
        (401, "authentication_error")
    );
    let client = without.clone().with("x-api-key", "a-good-key");
    let image = json!([{"role": "user", "content": [{"type": "image", "source": {}}]}]);
    let cases = [
        (
            ask(json!({"max_tokens": 0, "model": "north"})),
            400,
            "invalid_request_error",
        ),
        (
            ask(json!({"messages": image, "model": "north"})),
            400,
            "invalid_request_error",
        ),
        (ask(json!({"model": "claude-opus"})), 404, "not_found_error"),
        (
            ask(json!({"system": "x".repeat(200_000)})),
            413,
            "request_too_large",
        ),
    ];
    for (body, status, kind) in cases {
        let answer = post(&client, &body).await;
        assert_eq!(
            (answer.status, error_type(&answer).as_str()),
            (status, kind)
        );
    }
    let named = post(&client, &ask(json!({"messages": image, "model": "north"}))).await;
    assert!(
        named.text.contains("'messages.0.content.0.type'"),
        "{}",
        named.text
    );
    let unknown = client.get("/v1/messages/batches").await;
    assert_eq!(
        (unknown.status, error_type(&unknown).as_str()),
        (404, "not_found_error")
    );
    let wrong = client.send(Method::DELETE, "/v1/messages", "").await;
    assert_eq!(
        (wrong.status, error_type(&wrong).as_str()),
        (405, "invalid_request_error")
    );
    // A client that says whose API it speaks reads its errors everywhere.
    let speaking = client.clone().with("anthropic-version", "2023-06-01");
    let unknown = speaking.get("/v1/models/claude-opus").await;
    assert_eq!(
        (unknown.status, error_type(&unknown).as_str()),
        (404, "not_found_error")
    );
    assert_eq!(
        client.get("/v1/models/claude-opus").await.error_code(),
        "model_not_found"
    );
    fixture.lifecycle.advance(LifecycleState::Draining);
    let draining = post(&client, &ask(json!({"model": "north"}))).await;
    assert_eq!(
        (draining.status, error_type(&draining).as_str()),
        (503, "overloaded_error")
    );
    assert_eq!(draining.header("retry-after"), "15");
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_says_so_in_the_words_of_both_worlds() {
    let fixture = Fixture::ready(Options::default()).await;
    for length in [MAX_MODEL_LEN as usize, 1 << 20] {
        let long = json!([{"role": "user", "content": "x".repeat(length)}]);
        let answer = post(&fixture.client(), &ask(json!({"messages": long}))).await;
        assert_eq!(
            (answer.status, error_type(&answer).as_str()),
            (400, "invalid_request_error")
        );
        let message = answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        let start =
            format!("This model's maximum context length is {MAX_MODEL_LEN} tokens. However, ");
        assert!(message.starts_with(&start), "{message}");
        let (_, rest) = message.split_once("prompt is too long: ").unwrap();
        let (tokens, rest) = rest.split_once(" tokens > ").unwrap();
        assert!(tokens.parse::<u32>().unwrap() > MAX_MODEL_LEN);
        assert!(
            rest.starts_with(&format!("{MAX_MODEL_LEN} maximum")),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_failure_after_the_start_is_an_error_event() {
    let script = Script::says("Hello, world!").faulty_from(5);
    let fixture = Fixture::ready(Options::script(script)).await;
    let client = fixture.client();
    let streamed = post(&client, &ask(json!({"stream": true}))).await;
    let events = events(&streamed);
    let last = events.last().unwrap();
    assert_eq!((streamed.status, &last["type"]), (200, &json!("error")));
    assert_eq!(last["error"]["type"], "api_error");
    assert!(!streamed.text.contains("message_stop") && !streamed.text.contains("\"end_turn\""));
    let whole = post(&client, &ask(json!({}))).await;
    assert_eq!(
        (whole.status, error_type(&whole).as_str()),
        (500, "api_error")
    );
}

#[tokio::test]
async fn pings_fill_the_pauses_and_hidden_reasoning_is_one() {
    let script =
        Script::says("Hm, hm, hm<|END_THINKING|><|START_TEXT|>Fine<|END_TEXT|>").slowly(30);
    let options = Options {
        reasoning: true,
        ..Options::script(script)
    };
    let interval = std::time::Duration::from_millis(45);
    let fixture = Fixture::ready(options.config(|c| c.keep_alive_interval = interval)).await;
    let thinking = json!({"type": "adaptive", "display": "omitted"});
    let body = ask(json!({"stream": true, "thinking": thinking}));
    let streamed = post(&fixture.client(), &body).await;
    let pings = events(&streamed)
        .iter()
        .filter(|event| event["type"] == "ping")
        .count();
    assert!(pings >= 2, "{}", streamed.text);
    assert_eq!(assembled(&streamed)["content"][1]["text"], "Fine");
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place() {
    let fixture = Fixture::ready(Options::script(Script::repeats("a").slowly(1))).await;
    let body = ask(json!({"stream": true, "max_tokens": 2000})).to_string();
    let mut open = fixture
        .client()
        .open(Method::POST, "/v1/messages", &body)
        .await;
    assert!(
        open.piece()
            .await
            .unwrap()
            .starts_with("event: message_start\n")
    );
    drop(open);
    fixture.engine_idle().await;
}

/// What Claude Code 2.1 sends, its texts shortened.
const CLAUDE_CODE: [&str; 2] = [
    include_str!("requests/claude_code_first_turn.json"),
    include_str!("requests/claude_code_second_turn.json"),
];

#[tokio::test]
async fn claude_code_is_answered() {
    let script = "Hm<|END_THINKING|><|START_ACTION|>[{\"tool_call_id\": \"0\", \"tool_name\": \
                  \"Bash\", \"parameters\": {\"command\": \"ls\"}}]<|END_ACTION|>";
    let fixture = reasoning(script).await;
    let client = fixture.client();
    let head = client.send(Method::HEAD, "/", "").await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    let client = client
        .with("anthropic-version", "2023-06-01")
        .with(
            "anthropic-beta",
            "claude-code-20250219,context-management-2025-06-27",
        )
        .with("x-api-key", "unused");
    for body in CLAUDE_CODE {
        let answer = client
            .send(Method::POST, "/v1/messages?beta=true", body)
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let message = assembled(&answer);
        let kinds = [0, 1].map(|index| message["content"][index]["type"].clone());
        assert_eq!(kinds, ["thinking", "tool_use"]);
        assert_eq!(message["content"][1]["input"], json!({"command": "ls"}));
        assert_eq!(message["stop_reason"], "tool_use");
        let mut counted: Value = serde_json::from_str(body).unwrap();
        counted.as_object_mut().unwrap().remove("max_tokens");
        let count = client
            .post("/v1/messages/count_tokens?beta=true", &counted)
            .await
            .json();
        let usage = &message["usage"];
        let parts = ["input_tokens", "cache_read_input_tokens"];
        let prompt: u64 = parts.iter().map(|name| usage[name].as_u64().unwrap()).sum();
        assert_eq!(count["input_tokens"], prompt);
    }
}

#[tokio::test]
async fn a_call_that_a_stop_sequence_cuts_is_no_tool_use() {
    let script = "<|END_THINKING|><|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \
                  \"tool_name\": \"look\", \"parameters\": {\"at\": \"x\"}}\n]<|END_ACTION|>";
    let fixture = reasoning(script).await;
    let client = fixture.client();
    let body = ask(
        json!({"tools": [{"name": "look", "input_schema": {"type": "object"}}],
                          "max_tokens": 500, "stop_sequences": ["at\": \""]}),
    );
    let message = post(&client, &body).await.json();
    assert_eq!(message["stop_reason"], "stop_sequence");
    assert_eq!(message["stop_sequence"], "at\": \"");
}
