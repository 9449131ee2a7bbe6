//! The Responses endpoint: whole answers, and the exact sequence of events of a stream.

use crate::support::client::Answer;
use crate::support::executor::Script;
use crate::support::{Fixture, MAX_MODEL_LEN, Options};
use serde_json::{Value, json};

const CALL: &str = "I look<|END_THINKING|><|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \
                    \"tool_name\": \"look\", \"parameters\": {\"at\": \"x\"}},\n    \
                    {\"tool_call_id\": \"1\", \"tool_name\": \"agents.wait\", \"parameters\": {}}\n\
                    ]<|END_ACTION|>";
const PATCH: &str = "<|END_THINKING|><|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \
                     \"tool_name\": \"patch\", \"parameters\": {\"input\": \"a\\n\\\"b\\\"\"}}\n\
                     ]<|END_ACTION|>";
const THOUGHT: &str = "I think<|END_THINKING|><|START_TEXT|>Fine<|END_TEXT|>";

fn request(extra: Value) -> Value {
    let mut body = json!({"model": "north", "input": "Hi"});
    let extra = extra.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(extra);
    body
}

async fn reasoning(script: &str) -> Fixture {
    Fixture::ready(Options {
        reasoning: true,
        ..Options::script(Script::says(script))
    })
    .await
}

async fn respond(fixture: &Fixture, extra: Value) -> Answer {
    fixture
        .client()
        .post("/v1/responses", &request(extra))
        .await
}

/// What keeps a stream alive between events, without its end.
const COMMENT: &str = ": keep-alive";

/// The events of a stream. Each has to be named as its data is, and they are numbered from 0.
fn events(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let texts = answer.text.split_terminator("\n\n");
    let events = texts.filter(|text| *text != COMMENT).enumerate();
    let events = events.map(|(number, event)| {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        assert_eq!(data["sequence_number"], number);
        data
    });
    events.collect()
}

/// The names of events, several deltas in a row as one.
fn names(events: &[Value]) -> Vec<&str> {
    let mut names: Vec<_> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    names.dedup_by(|one, two| one == two && one.ends_with(".delta"));
    names
}

/// What the deltas of item `index` add up to.
fn deltas(events: &[Value], index: usize) -> String {
    let own = events.iter().filter(|event| event["output_index"] == index);
    own.filter_map(|event| event["delta"].as_str()).collect()
}

/// Items, or a response, without ids, which differ between answers.
fn without_ids(value: &Value) -> Value {
    let mut value = value.clone();
    for item in value.as_array_mut().unwrap() {
        let item = item.as_object_mut().unwrap();
        assert!(item.remove("id").unwrap().is_string());
        item.remove("call_id");
    }
    value
}

fn tools() -> Value {
    json!([
        {"type": "function", "name": "look"},
        {"type": "namespace", "name": "agents", "description": "", "tools": [
            {"type": "function", "name": "wait"}]},
        {"type": "custom", "name": "patch"},
        {"type": "web_search"},
    ])
}

#[tokio::test]
async fn a_whole_answer() {
    let fixture = Fixture::ready(Options::default()).await;
    let answer = respond(&fixture, json!({"metadata": {"a": "b"}, "model": "any"})).await;
    let body = answer.json();
    assert_eq!((answer.status, &body["object"]), (200, &json!("response")));
    assert!(body["id"].as_str().unwrap().starts_with("resp_"));
    assert_eq!(
        (&body["status"], &body["model"]),
        (&json!("completed"), &json!("any"))
    );
    assert_eq!(
        (&body["error"], &body["incomplete_details"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        (&body["metadata"], &body["store"]),
        (&json!({"a": "b"}), &json!(false))
    );
    let part = json!({"type": "output_text", "text": "Hello, world!", "annotations": [],
                      "logprobs": []});
    let message = json!({"type": "message", "role": "assistant", "status": "completed",
                         "content": [part]});
    assert_eq!(without_ids(&body["output"]), json!([message]));
    let usage = json!({
        "input_tokens": 24, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 14, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 38,
    });
    assert_eq!(body["usage"], usage);
    fixture.engine_idle().await;
}

#[tokio::test]
async fn a_streamed_text_has_the_events_that_clients_insist_on() {
    let fixture = Fixture::ready(Options::default()).await;
    let events = events(&respond(&fixture, json!({"stream": true})).await);
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(names(&events), expected);
    assert_eq!(events[0]["response"]["status"], "in_progress");
    assert_eq!(events[2]["item"]["content"], json!([]));
    assert_eq!(deltas(&events, 0), "Hello, world!");
    let [.., text, part, item, last] = &events[..] else {
        panic!("too few events");
    };
    assert_eq!(
        (&text["text"], &text["logprobs"]),
        (&json!("Hello, world!"), &json!([]))
    );
    assert_eq!(part["part"]["text"], "Hello, world!");
    assert_eq!(last["response"]["output"][0], item["item"]);
    assert_eq!(last["response"]["usage"]["output_tokens"], 14);
    for event in &events {
        let id = event.get("item_id").or(event["item"].get("id"));
        assert!(id.is_none_or(|id| *id == item["item"]["id"]), "{event}");
    }
}

#[tokio::test]
async fn reasoning_is_an_item_of_its_own() {
    let fixture = reasoning(THOUGHT).await;
    let whole = respond(&fixture, json!({})).await.json();
    let expected = json!({"type": "reasoning", "status": "completed", "summary": [],
                          "content": [{"type": "reasoning_text", "text": "I think"}]});
    assert_eq!(without_ids(&whole["output"])[0], expected);
    assert_eq!(
        whole["usage"]["output_tokens_details"]["reasoning_tokens"],
        7
    );
    let streamed = events(&respond(&fixture, json!({"stream": true})).await);
    let expected = [
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
    ];
    assert_eq!(names(&streamed)[2..9], expected);
    assert_eq!(
        (deltas(&streamed, 0), deltas(&streamed, 1)),
        ("I think".into(), "Fine".into())
    );
    let last = streamed.last().unwrap();
    assert_eq!(
        without_ids(&last["response"]["output"]),
        without_ids(&whole["output"])
    );
}

#[tokio::test]
async fn reasoning_is_the_summary_for_clients_that_ask_for_one() {
    let fixture = reasoning(THOUGHT).await;
    let asked = json!({"reasoning": {"summary": "auto"}, "stream": true});
    let streamed = events(&respond(&fixture, asked).await);
    let expected = [
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
    ];
    assert_eq!(names(&streamed)[2..8], expected);
    let item = &streamed.last().unwrap()["response"]["output"][0];
    let summary = json!([{"type": "summary_text", "text": "I think"}]);
    assert_eq!((&item["summary"], &item["content"]), (&summary, &json!([])));
}

#[tokio::test]
async fn reasoning_survives_a_round_trip_without_being_stored() {
    let fixture = reasoning(THOUGHT).await;
    let prompt_tokens = async |input: Value| {
        let answer = respond(&fixture, json!({"input": input})).await.json();
        answer["usage"]["input_tokens"].as_u64().unwrap()
    };
    let include = json!({"include": ["reasoning.encrypted_content"]});
    let output = respond(&fixture, include).await.json()["output"].clone();
    let opaque = json!({"type": "reasoning", "summary": [],
                        "encrypted_content": output[0]["encrypted_content"]});
    let user = json!({"role": "user", "content": "Hi"});
    let whole = prompt_tokens(json!([user, output[0], output[1], user])).await;
    // The template of these tests shows no reasoning, but both items reach it as one message.
    assert_eq!(
        prompt_tokens(json!([user, opaque, output[1], user])).await,
        whole
    );
    let foreign = json!({"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"});
    assert_eq!(
        prompt_tokens(json!([user, foreign, output[1], user])).await,
        whole
    );
}

#[tokio::test]
async fn calls_are_items_that_add_up_in_a_stream() {
    let fixture = reasoning(CALL).await;
    let whole = respond(&fixture, json!({"tools": tools()})).await.json();
    let output = without_ids(&whole["output"]);
    assert_eq!(
        (&output[1]["type"], &output[1]["name"]),
        (&json!("function_call"), &json!("look"))
    );
    let arguments = output[1]["arguments"].as_str().unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(arguments).unwrap(),
        json!({"at": "x"})
    );
    let expected = json!({"type": "function_call", "name": "wait", "namespace": "agents",
                          "arguments": "{}", "status": "completed"});
    assert_eq!(output[2], expected);
    assert!(
        whole["output"][1]["call_id"]
            .as_str()
            .unwrap()
            .starts_with("call_")
    );
    assert_ne!(whole["output"][1]["call_id"], whole["output"][2]["call_id"]);
    assert_eq!(whole["status"], "completed");
    // What the model was not offered is not claimed to have been.
    assert_eq!(whole["tools"].as_array().unwrap().len(), 3);

    let streamed = events(&respond(&fixture, json!({"tools": tools(), "stream": true})).await);
    let call = [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ];
    let names = names(&streamed);
    assert_eq!(
        names[8..],
        [&call[..], &call[..], &["response.completed"]].concat()
    );
    assert_eq!(deltas(&streamed, 1), arguments);
    assert_eq!(deltas(&streamed, 2), "{}");
    let last = streamed.last().unwrap();
    assert_eq!(without_ids(&last["response"]["output"]), output);

    let single = json!({"tools": tools(), "parallel_tool_calls": false});
    // The grammar of this answer has no second call, which the script goes on to make.
    let single = respond(&fixture, single).await;
    assert_eq!(single.error_code(), "constraint_failed");
}

#[tokio::test]
async fn custom_tools_get_their_text_back() {
    let fixture = reasoning(PATCH).await;
    let streamed = events(&respond(&fixture, json!({"tools": tools(), "stream": true})).await);
    let expected = [
        "response.output_item.added",
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(names(&streamed)[2..], expected);
    assert_eq!(deltas(&streamed, 0), "a\n\"b\"");
    let item = &streamed.last().unwrap()["response"]["output"][0];
    assert_eq!(
        (&item["type"], &item["name"], &item["input"]),
        (
            &json!("custom_tool_call"),
            &json!("patch"),
            &json!("a\n\"b\"")
        )
    );
}

#[tokio::test]
async fn an_answer_that_was_cut_off_is_incomplete() {
    let fixture = Fixture::ready(Options::default()).await;
    let whole = respond(&fixture, json!({"max_output_tokens": 5}))
        .await
        .json();
    assert_eq!(whole["status"], "incomplete");
    assert_eq!(
        whole["incomplete_details"],
        json!({"reason": "max_output_tokens"})
    );
    assert_eq!(whole["output"][0]["status"], "incomplete");
    assert_eq!(whole["output"][0]["content"][0]["text"], "Hello");
    let streamed = json!({"max_output_tokens": 5, "stream": true});
    let streamed = events(&respond(&fixture, streamed).await);
    let last = streamed.last().unwrap();
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(
        without_ids(&last["response"]["output"]),
        without_ids(&whole["output"])
    );

    let fixture = reasoning("I think and think and think").await;
    let probe = respond(&fixture, json!({"max_output_tokens": 16})).await;
    assert_eq!(
        (probe.status, &probe.json()["output"][0]["type"]),
        (200, &json!("reasoning"))
    );

    let fixture = reasoning(CALL).await;
    let cut = respond(&fixture, json!({"tools": tools(), "max_output_tokens": 90}))
        .await
        .json();
    let call = &cut["output"][1];
    assert_eq!(
        (&call["type"], &call["status"], &cut["status"]),
        (
            &json!("function_call"),
            &json!("incomplete"),
            &json!("incomplete")
        )
    );
}

#[tokio::test]
async fn a_failure_after_the_start_is_a_failed_response() {
    let script = Script::says("Hello, world!").faulty_from(5);
    let fixture = Fixture::ready(Options::script(script)).await;
    let streamed = events(&respond(&fixture, json!({"stream": true})).await);
    assert_eq!(deltas(&streamed, 0), "Hello");
    let last = streamed.last().unwrap();
    assert_eq!(last["type"], "response.failed");
    assert_eq!(last["response"]["status"], "failed");
    assert_eq!(last["response"]["error"]["code"], "server_error");
    assert!(last["response"]["error"]["message"].is_string());
    let whole = respond(&fixture, json!({})).await;
    assert_eq!(
        (whole.status, whole.error_code().as_str()),
        (500, "engine_failure")
    );
}

#[tokio::test]
async fn pauses_are_filled_with_numbered_events() {
    let script = Script::repeats("a").slowly(1);
    let stalled = script.stalled.clone();
    let options = Options::script(script).config(|config| {
        config.keep_alive_interval = std::time::Duration::from_millis(5);
    });
    let fixture = Fixture::ready(options).await;
    let body = request(json!({"stream": true, "max_output_tokens": 500})).to_string();
    let client = fixture.client();
    let mut open = client
        .open(hyper::Method::POST, "/v1/responses", body)
        .await;
    stalled.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut text = String::new();
    while text.matches("event: response.in_progress").count() < 4 {
        text += &open.piece().await.unwrap();
    }
    stalled.store(false, std::sync::atomic::Ordering::Relaxed);
    let mut answer = open.rest().await;
    answer.text.insert_str(0, &text);
    // Events repeat the response, so that there are not as many of them.
    let comments = text.matches(COMMENT).count();
    assert!(comments >= 9 * 2, "{text}");
    let events = events(&answer);
    assert_eq!(deltas(&events, 0).len(), 500);
    assert_eq!(events.last().unwrap()["type"], "response.incomplete");
}

#[tokio::test]
async fn an_input_that_does_not_fit_is_named_as_such() {
    let fixture = Fixture::ready(Options::default()).await;
    let long = "x".repeat(MAX_MODEL_LEN as usize);
    for stream in [false, true] {
        let answer = respond(&fixture, json!({"input": long, "stream": stream})).await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (400, "context_length_exceeded")
        );
        assert_eq!(answer.json()["error"]["param"], "input");
    }
}

#[tokio::test]
async fn stored_answers_do_not_exist() {
    let fixture = Fixture::ready(Options::default()).await;
    let answer = fixture.client().get("/v1/responses/resp_1").await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (404, "route_not_found")
    );
    let referred = respond(&fixture, json!({"previous_response_id": "resp_1"})).await;
    assert_eq!(referred.status, 400);
}
