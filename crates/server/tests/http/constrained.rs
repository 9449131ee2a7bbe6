//! Constrained answers: what is asked for, what is refused, and the forms of calls. The scripted
//! model loses its grammar where its script leaves it, so an answer is proof that it is allowed.

use crate::support::client::Answer;
use crate::support::executor::Script;
use crate::support::{Fixture, Options, chat};
use serde_json::{Value, json};

const WEATHER: &str = "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"weather\", \"parameters\": {\"city\": \"Köln\"}}\n]<|END_ACTION|>";
const TWO_CALLS: &str = "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"now\", \"parameters\": {}},\n    {\"tool_call_id\": \"1\", \"tool_name\": \"now\", \"parameters\": {}}\n]<|END_ACTION|>";
const JSON_TEXT: &str = "<|START_TEXT|>{\"city\": \"Köln\"}<|END_TEXT|>";
const FREE_TEXT: &str = "<|START_TEXT|>Anything.<|END_TEXT|>";

fn schema() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
}

fn functions() -> Value {
    json!([{"name": "weather", "parameters": schema()}, {"name": "now"}])
}

fn tools(strict: bool) -> Value {
    let weather = json!({"name": "weather", "parameters": schema(), "strict": strict});
    json!([{"type": "function", "function": weather}, {"type": "function", "function": {"name": "now"}}])
}

/// A server whose model says `script`, its reasoning closed by the prompt.
async fn saying(script: &str) -> Fixture {
    Fixture::ready(Options {
        reasoning: true,
        ..Options::script(Script::says(script))
    })
    .await
}

fn without_reasoning(extra: Value) -> Value {
    let mut body = chat(extra);
    body["reasoning_effort"] = json!("none");
    body
}

/// How the request ends where the model says `script`.
async fn outcome(script: &str, extra: Value) -> Answer {
    let fixture = saying(script).await;
    fixture.client().chat(&without_reasoning(extra)).await
}

async fn assert_allowed(script: &str, extra: Value) {
    let answer = outcome(script, extra.clone()).await;
    assert_eq!(answer.status, 200, "{extra}: {}", answer.text);
}

async fn assert_left(script: &str, extra: Value) {
    let answer = outcome(script, extra.clone()).await;
    assert_eq!(answer.error_code(), "constraint_failed", "{extra}");
}

#[tokio::test]
async fn required_and_named_calls_are_calls_of_offered_tools() {
    let named = json!({"type": "function", "function": {"name": "weather"}});
    let other = json!({"type": "function", "function": {"name": "now"}});
    for choice in [json!("required"), named.clone()] {
        let extra = json!({"tools": tools(false), "tool_choice": choice});
        assert_allowed(WEATHER, extra.clone()).await;
        assert_left(FREE_TEXT, extra).await;
    }
    assert_left(
        WEATHER,
        json!({"tools": tools(false), "tool_choice": other}),
    )
    .await;
    assert_allowed(
        TWO_CALLS,
        json!({"tools": tools(false), "tool_choice": "required"}),
    )
    .await;
    assert_left(
        TWO_CALLS,
        json!({"tools": tools(false), "tool_choice": other}),
    )
    .await;
    let invalid = WEATHER.replace("city", "town");
    assert_left(
        &invalid,
        json!({"tools": tools(false), "tool_choice": "required"}),
    )
    .await;
    let limited =
        json!({"mode": "auto", "tools": [{"type": "function", "function": {"name": "now"}}]});
    let limited = json!({"type": "allowed_tools", "allowed_tools": limited});
    assert_left(
        WEATHER,
        json!({"tools": tools(false), "tool_choice": limited}),
    )
    .await;
    assert_allowed(
        TWO_CALLS,
        json!({"tools": tools(false), "tool_choice": limited}),
    )
    .await;
}

#[tokio::test]
async fn a_named_call_ends_with_the_reason_of_calls() {
    let named = json!({"type": "function", "function": {"name": "weather"}});
    let answer = outcome(
        WEATHER,
        json!({"tools": tools(false), "tool_choice": named}),
    )
    .await;
    let choice = &answer.json()["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    let function = &choice["message"]["tool_calls"][0]["function"];
    assert_eq!(function["arguments"], "{\"city\": \"Köln\"}");
}

#[tokio::test]
async fn strict_tools_bind_a_model_that_is_free_to_call_none() {
    let invalid = WEATHER.replace("city", "town");
    assert_left(&invalid, json!({"tools": tools(true)})).await;
    assert_allowed(WEATHER, json!({"tools": tools(true)})).await;
    assert_allowed(FREE_TEXT, json!({"tools": tools(true)})).await;
    assert_allowed(&invalid, json!({"tools": tools(false)})).await;
}

#[tokio::test]
async fn calls_that_are_not_parallel_are_single() {
    let single = |parallel: bool| json!({"tools": tools(false), "parallel_tool_calls": parallel});
    assert_left(TWO_CALLS, single(false)).await;
    assert_allowed(TWO_CALLS, single(true)).await;
    assert_allowed(WEATHER, single(false)).await;
    assert_allowed(FREE_TEXT, single(false)).await;
}

#[tokio::test]
async fn output_formats_bind_the_text() {
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema()}});
    for extra in [
        json!({"response_format": {"type": "json_object"}}),
        json!({"response_format": format}),
        json!({"guided_json": schema()}),
        json!({"guided_regex": "\\{.*\\}"}),
        json!({"guided_choice": ["{\"city\": \"Köln\"}", "x"]}),
        json!({"guided_grammar": "start: \"{\" /[^}]*/ \"}\""}),
        json!({"structured_outputs": {"json": schema()}}),
        json!({"response_format": {"type": "json_object"}, "tools": tools(false)}),
    ] {
        assert_allowed(JSON_TEXT, extra.clone()).await;
        assert_left(FREE_TEXT, extra).await;
    }
    let both = json!({"response_format": {"type": "json_object"}, "tools": tools(false)});
    assert_allowed(WEATHER, both).await;
}

#[tokio::test]
async fn reasoning_comes_before_what_is_constrained() {
    let script = format!("I think.<|END_THINKING|>{JSON_TEXT}");
    let fixture = saying(&script).await;
    let body = chat(json!({"response_format": {"type": "json_object"}}));
    let answer = fixture.client().chat(&body).await.json();
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["reasoning"], "I think.");
    assert_eq!(message["content"], "{\"city\": \"Köln\"}");
}

#[tokio::test]
async fn what_cannot_be_enforced_is_refused_by_name() {
    let function =
        |parameters: Value| json!({"name": "f", "parameters": parameters, "strict": true});
    let tools =
        |parameters| json!([{"function": {"name": "g"}}, {"function": function(parameters)}]);
    let format = |schema: Value| json!({"type": "json_schema", "json_schema": {"schema": schema, "strict": true}});
    let unsupported = json!({"type": "object", "properties": {"secret": {"not": {}}}});
    let cases = [
        (
            json!({"tools": tools(unsupported.clone()), "tool_choice": "required"}),
            "tools.1.function.parameters",
        ),
        (
            json!({"functions": [function(unsupported.clone())], "function_call": {"name": "f"}}),
            "functions.0.parameters",
        ),
        (
            json!({"response_format": format(unsupported)}),
            "response_format.json_schema.schema",
        ),
        (
            json!({"response_format": format(json!({"enum": []}))}),
            "response_format.json_schema.schema",
        ),
        (json!({"guided_regex": "("}), "guided_regex"),
        (json!({"guided_grammar": "secret"}), "guided_grammar"),
        (json!({"guided_json": {"type": "secret"}}), "guided_json"),
        (
            json!({"guided_choice": ["a"], "ignore_eos": true}),
            "ignore_eos",
        ),
        (
            json!({"guided_choice": ["a"], "min_tokens": 1}),
            "min_tokens",
        ),
        (
            json!({"guided_choice": ["a"], "add_generation_prompt": false}),
            "guided_choice",
        ),
    ];
    let fixture = saying(FREE_TEXT).await;
    for (extra, param) in cases {
        let answer = fixture.client().chat(&chat(extra.clone())).await;
        assert_eq!(answer.status, 400, "{extra}");
        let error = answer.json()["error"].clone();
        assert_eq!(error["param"], param, "{extra}: {error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_message_that_is_continued_is_not_constrained() {
    let messages = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "We", "prefix": true}]);
    let fixture = saying("ll.<|END_TEXT|>").await;
    let client = fixture.client();
    let refused = json!({"messages": messages, "response_format": {"type": "json_object"}});
    let answer = client.chat(&chat(refused)).await;
    assert_eq!(answer.json()["error"]["param"], "response_format");
    let forced = json!({"messages": messages, "tools": tools(false), "tool_choice": "required"});
    assert_eq!(
        client.chat(&chat(forced)).await.json()["error"]["param"],
        "tool_choice"
    );
    let free = json!({"messages": messages, "tools": tools(true), "parallel_tool_calls": false});
    let answer = client.chat(&chat(free)).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "ll.");
}

#[tokio::test]
async fn a_format_without_calls_cannot_be_forced_to_one() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let forced = chat(json!({"tools": tools(false), "tool_choice": "required"}));
    let answer = client.chat(&forced).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["param"], "tool_choice");
    let free = chat(json!({"tools": tools(true), "parallel_tool_calls": false}));
    assert_eq!(client.chat(&free).await.status, 200);
}

#[tokio::test]
async fn legacy_functions_are_answered_in_their_own_form() {
    let fixture = saying(WEATHER).await;
    let client = fixture.client();
    let extra = json!({"functions": functions(), "function_call": {"name": "weather"}});
    let whole = client.chat(&without_reasoning(extra.clone())).await.json();
    let choice = &whole["choices"][0];
    assert_eq!(choice["finish_reason"], "function_call");
    let call = &choice["message"]["function_call"];
    assert_eq!(
        *call,
        json!({"name": "weather", "arguments": "{\"city\": \"Köln\"}"})
    );
    assert!(choice["message"].get("tool_calls").is_none());

    let mut body = without_reasoning(extra);
    body["stream"] = json!(true);
    let chunks = client.chat(&body).await.chunks();
    let deltas = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]);
    assert!(
        deltas
            .clone()
            .all(|delta| delta.get("tool_calls").is_none())
    );
    let field = |name: &str| -> String {
        let parts = deltas
            .clone()
            .filter_map(|delta| delta["function_call"][name].as_str());
        parts.collect()
    };
    assert_eq!(field("name"), "weather");
    assert_eq!(field("arguments"), "{\"city\": \"Köln\"}");
    let last = &chunks[chunks.len() - 1]["choices"][0];
    assert_eq!(last["finish_reason"], "function_call");
    assert_left(TWO_CALLS, json!({"functions": functions()})).await;
}

#[tokio::test]
async fn token_ids_are_reported_where_they_are_asked_for() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let whole = client
        .chat(&chat(json!({"return_token_ids": true})))
        .await
        .json();
    let mut expected: Vec<u32> = b"Hello, world!".iter().copied().map(u32::from).collect();
    expected.push(256);
    assert_eq!(whole["choices"][0]["token_ids"], json!(expected));
    let prompt: Vec<u8> = b"[user]Hi[end][assistant]".to_vec();
    assert_eq!(whole["prompt_token_ids"], json!(prompt));
    let body = chat(json!({"return_token_ids": true, "stream": true}));
    let chunks = client.chat(&body).await.chunks();
    assert_eq!(chunks[0]["prompt_token_ids"], json!(prompt));
    let ids = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["token_ids"].as_array());
    let ids: Vec<Value> = ids.flatten().cloned().collect();
    assert_eq!(json!(ids), json!(expected));
    let plain = client.chat(&chat(json!({}))).await.json();
    assert!(plain.get("prompt_token_ids").is_none());
    assert!(plain["choices"][0].get("token_ids").is_none());
}

#[tokio::test]
async fn stop_strings_wait_for_the_least_number_of_tokens() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    for (min_tokens, expected) in [
        (0, "Hell"),
        (5, "Hell"),
        (6, "Hello, w"),
        (20, "Hello, world!"),
    ] {
        let extra = json!({"stop": "o", "min_tokens": min_tokens});
        let answer = client.chat(&chat(extra)).await.json();
        assert_eq!(
            answer["choices"][0]["message"]["content"], expected,
            "{min_tokens}"
        );
    }
}

#[tokio::test]
async fn the_construct_and_its_place_are_told() {
    let fixture = saying(FREE_TEXT).await;
    let lookbehind =
        json!({"type": "array", "items": {"type": "string", "pattern": "(?<=secret)a"}});
    let schema = json!({"type": "object", "properties": {"hidden": {}, "secret": lookbehind}});
    let answer = fixture
        .client()
        .chat(&chat(json!({"guided_json": schema})))
        .await;
    let error = answer.json()["error"].clone();
    assert_eq!(error["param"], "guided_json");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("properties.1.items has a lookbehind"),
        "{message}"
    );
    assert!(!message.contains("secret"), "{message}");
}

#[tokio::test]
async fn what_is_left_out_of_a_hint_is_told() {
    const NOTE: &str = "x-backstop-not-enforced";
    let unique = json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true});
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}, "tags": unique},
        "required": ["city"], "propertyNames": {"minLength": 1}});
    let tool = |strict: bool| json!([{"type": "function", "function": {"name": "weather", "parameters": schema, "strict": strict}}]);
    let forced =
        |strict: bool| without_reasoning(json!({"tools": tool(strict), "tool_choice": "required"}));
    let fixture = saying(WEATHER).await;
    let client = fixture.client();
    let mut body = forced(false);
    for stream in [false, true] {
        body["stream"] = json!(stream);
        let answer = client.chat(&body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let path = "tools.0.function.parameters";
        assert_eq!(
            answer.header(NOTE),
            format!("{path} propertyNames, {path} uniqueItems")
        );
    }
    assert_eq!(client.chat(&forced(true)).await.status, 400);
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let fixture = saying(JSON_TEXT).await;
    let answer = fixture
        .client()
        .chat(&without_reasoning(json!({"response_format": format})))
        .await;
    let path = "response_format.json_schema.schema";
    assert_eq!(
        answer.header(NOTE),
        format!("{path} propertyNames, {path} uniqueItems")
    );
    let free = fixture.client().chat(&without_reasoning(json!({}))).await;
    assert_eq!(free.header(NOTE), "");
}
