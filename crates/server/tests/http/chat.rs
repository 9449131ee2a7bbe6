//! Chats: whole answers and streams, in every shape that a request can ask for.

use crate::support::client::Answer;
use crate::support::executor::Script;
use crate::support::{Fixture, MAX_MODEL_LEN, Options, chat};
use serde_json::{Value, json};

fn content(answer: &Answer) -> String {
    answer
        .chunks()
        .iter()
        .filter_map(|chunk| {
            chunk["choices"][0]["delta"]["content"]
                .as_str()
                .map(str::to_owned)
        })
        .collect()
}

async fn reasoning(script: &str) -> Fixture {
    Fixture::ready(Options {
        reasoning: true,
        ..Options::script(Script::says(script))
    })
    .await
}

#[tokio::test]
async fn a_whole_answer() {
    let fixture = Fixture::ready(Options::default()).await;
    let answer = fixture
        .client()
        .chat(&chat(json!({"model": "any-name"})))
        .await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json")
    );
    let body = answer.json();
    assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "any-name");
    assert!(
        body["system_fingerprint"]
            .as_str()
            .unwrap()
            .starts_with("backstop-")
    );
    let choice = &body["choices"][0];
    assert_eq!(choice["message"]["content"], "Hello, world!");
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["stop_reason"], Value::Null);
    // "[user]Hi[end][assistant]", and the script with its end.
    assert_eq!(body["usage"]["prompt_tokens"], 24);
    assert_eq!(body["usage"]["completion_tokens"], 14);
    assert_eq!(body["usage"]["total_tokens"], 38);
    fixture.engine_idle().await;
}

#[tokio::test]
async fn a_stream_has_the_shape_that_clients_expect() {
    let fixture = Fixture::ready(Options::default()).await;
    let body = chat(json!({"stream": true, "stream_options": {"include_usage": true}}));
    let answer = fixture.client().chat(&body).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .header("content-type")
            .starts_with("text/event-stream")
    );
    assert_eq!(answer.events().last(), Some(&"[DONE]"));
    let chunks = answer.chunks();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(content(&answer), "Hello, world!");
    let finish = &chunks[chunks.len() - 2];
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    assert_eq!(finish["choices"][0]["delta"], json!({}));
    let usage = &chunks[chunks.len() - 1];
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], 14);
    for chunk in &chunks {
        assert_eq!(chunk["id"], chunks[0]["id"]);
        assert_eq!(chunk["object"], "chat.completion.chunk");
    }
    let finishes = chunks
        .iter()
        .filter(|c| c["choices"][0]["finish_reason"].is_string());
    assert_eq!(finishes.count(), 1);
}

#[tokio::test]
async fn usage_in_every_chunk_only_grows() {
    let fixture = Fixture::ready(Options::default()).await;
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let body = chat(json!({"stream": true, "stream_options": options}));
    let chunks = fixture.client().chat(&body).await.chunks();
    let counts: Vec<u64> = chunks
        .iter()
        .map(|c| c["usage"]["completion_tokens"].as_u64().unwrap())
        .collect();
    assert!(counts.is_sorted(), "{counts:?}");
    assert_eq!((counts[0], *counts.last().unwrap()), (0, 14));
}

#[tokio::test]
async fn stop_strings_and_tokens_end_an_answer() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let choice = async |extra: Value| client.chat(&chat(extra)).await.json()["choices"][0].clone();
    let stopped = choice(json!({"stop": ["nothing", ", w"]})).await;
    assert_eq!(stopped["message"]["content"], "Hello");
    assert_eq!(
        (&stopped["finish_reason"], &stopped["stop_reason"]),
        (&json!("stop"), &json!(", w"))
    );
    let kept = choice(json!({"stop": ", w", "include_stop_str_in_output": true})).await;
    assert_eq!(kept["message"]["content"], "Hello, w");
    let token = choice(json!({"stop_token_ids": [u32::from(b'w')]})).await;
    assert_eq!(token["message"]["content"], "Hello, ");
    assert_eq!(token["stop_reason"], u32::from(b'w'));
    let short = choice(json!({"max_tokens": 5})).await;
    assert_eq!(
        (&short["message"]["content"], &short["finish_reason"]),
        (&json!("Hello"), &json!("length"))
    );
    fixture.engine_idle().await;
}

#[tokio::test]
async fn several_choices_are_told_apart() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let whole = client.chat(&chat(json!({"n": 3}))).await.json();
    for (index, choice) in whole["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!(choice["index"], index);
        assert_eq!(choice["message"]["content"], "Hello, world!");
    }
    assert_eq!(whole["usage"]["prompt_tokens"], 24);
    assert_eq!(whole["usage"]["completion_tokens"], 42);
    let streamed = client.chat(&chat(json!({"n": 3, "stream": true}))).await;
    for index in 0..3 {
        let own = streamed
            .chunks()
            .into_iter()
            .filter(|c| c["choices"][0]["index"] == index);
        let text: String = own
            .filter_map(|c| {
                c["choices"][0]["delta"]["content"]
                    .as_str()
                    .map(str::to_owned)
            })
            .collect();
        assert_eq!(text, "Hello, world!");
    }
    assert_eq!(
        streamed.text.matches("\"finish_reason\":\"stop\"").count(),
        3
    );
}

#[tokio::test]
async fn log_probabilities_cover_every_token() {
    let fixture = Fixture::ready(Options::script(Script::says("Hié"))).await;
    let client = fixture.client();
    let wanted = json!({"logprobs": true, "top_logprobs": 2});
    let whole = client.chat(&chat(wanted)).await.json();
    let entries = whole["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(entries.len(), 4);
    assert_eq!(
        (&entries[0]["token"], &entries[0]["logprob"]),
        (&json!("H"), &json!(-0.5))
    );
    assert_eq!(entries[2]["bytes"], json!([0xc3]));
    assert_eq!(entries[0]["top_logprobs"].as_array().unwrap().len(), 2);
    let streamed = client
        .chat(&chat(
            json!({"logprobs": true, "top_logprobs": 2, "stream": true}),
        ))
        .await;
    let parts: Vec<Value> = streamed
        .chunks()
        .iter()
        .filter_map(|chunk| {
            chunk["choices"][0]["logprobs"]["content"]
                .as_array()
                .cloned()
        })
        .flatten()
        .collect();
    assert_eq!(parts, entries);
    let without = client.chat(&chat(json!({}))).await.json();
    assert_eq!(without["choices"][0]["logprobs"], Value::Null);
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_is_named_as_such() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let long = json!([{"role": "user", "content": "x".repeat(MAX_MODEL_LEN as usize)}]);
    let huge = json!([{"role": "user", "content": "x".repeat(1 << 20)}]);
    let requests = [
        json!({"messages": long}),
        json!({"messages": huge}),
        json!({"max_tokens": MAX_MODEL_LEN}),
    ];
    for extra in requests {
        let answer = client.chat(&chat(extra)).await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (400, "context_length_exceeded")
        );
        let message = answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        let start = format!("This model's maximum context length is {MAX_MODEL_LEN} tokens");
        assert!(message.starts_with(&start), "{message}");
        assert!(
            answer
                .text
                .contains("\"code\": \"context_length_exceeded\"")
        );
    }
    let exact = client
        .chat(&chat(json!({"max_tokens": MAX_MODEL_LEN - 24})))
        .await;
    assert_eq!(exact.status, 200);
}

#[tokio::test]
async fn reasoning_goes_where_clients_look_for_it() {
    let script = "I think<|END_THINKING|><|START_TEXT|>Fine<|END_TEXT|>";
    let fixture = reasoning(script).await;
    let client = fixture.client();
    let message = async |extra: Value| {
        client.chat(&chat(extra)).await.json()["choices"][0]["message"].clone()
    };
    let shown = message(json!({})).await;
    assert_eq!(shown["content"], "Fine");
    assert_eq!(
        (&shown["reasoning"], &shown["reasoning_content"]),
        (&json!("I think"), &json!("I think"))
    );
    let hidden = message(json!({"include_reasoning": false})).await;
    assert_eq!(
        (&hidden["content"], hidden.get("reasoning")),
        (&json!("Fine"), None)
    );
    let streamed = client.chat(&chat(json!({"stream": true}))).await;
    let thoughts: String = streamed
        .chunks()
        .iter()
        .filter_map(|c| {
            c["choices"][0]["delta"]["reasoning_content"]
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    assert_eq!(
        (thoughts.as_str(), content(&streamed).as_str()),
        ("I think", "Fine")
    );
    let hidden = client
        .chat(&chat(json!({"stream": true, "include_reasoning": false})))
        .await;
    assert!(!hidden.text.contains("think"));
    let usage = client.chat(&chat(json!({}))).await.json()["usage"].clone();
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 7);
}

#[tokio::test]
async fn tokens_that_end_within_reasoning_are_no_error() {
    let fixture = reasoning("I think and think and think").await;
    let answer = fixture
        .client()
        .chat(&chat(json!({"max_tokens": 16})))
        .await;
    let choice = answer.json()["choices"][0].clone();
    assert_eq!(
        (answer.status, &choice["finish_reason"]),
        (200, &json!("length"))
    );
    assert_eq!(choice["message"]["content"], "");
}

#[tokio::test]
async fn effort_none_reaches_the_template() {
    let fixture = reasoning("<|START_TEXT|>Fine<|END_TEXT|>").await;
    let client = fixture.client();
    for extra in [
        json!({"reasoning_effort": "none"}),
        json!({"chat_template_kwargs": {"reasoning": false}}),
        json!({"reasoning_effort": "none", "chat_template_kwargs": {}}),
    ] {
        let body = client.chat(&chat(extra)).await.json();
        assert_eq!(body["choices"][0]["message"]["content"], "Fine");
        assert_eq!(body["choices"][0]["message"].get("reasoning"), None);
        assert_eq!(body["usage"]["prompt_tokens"], 10);
    }
    let overridden =
        json!({"reasoning_effort": "none", "chat_template_kwargs": {"reasoning": true}});
    let body = client.chat(&chat(overridden)).await.json();
    assert_eq!(body["usage"]["prompt_tokens"], 9);
}

const CALLS: &str = "Hm<|END_THINKING|><|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \
                     \"tool_name\": \"look\", \"parameters\": {\"at\": \"x\"}},\n    \
                     {\"tool_call_id\": \"1\", \"tool_name\": \"listen\", \"parameters\": {}}\n\
                     ]<|END_ACTION|>";

fn tools() -> Value {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
    json!([tool("look"), tool("listen")])
}

#[tokio::test]
async fn tool_calls_are_parsed() {
    let fixture = reasoning(CALLS).await;
    let client = fixture.client();
    let choice = client.chat(&chat(json!({"tools": tools()}))).await.json()["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], Value::Null);
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0]["function"]["name"], "look");
    let arguments: Value =
        serde_json::from_str(calls[0]["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"at": "x"}));
    assert_eq!(calls[1]["function"]["arguments"], "{}");
    assert_ne!(calls[0]["id"], calls[1]["id"]);
}

#[tokio::test]
async fn streamed_tool_calls_add_up_to_the_whole() {
    let fixture = reasoning(CALLS).await;
    let answer = fixture
        .client()
        .chat(&chat(json!({"tools": tools(), "stream": true})))
        .await;
    let mut names = Vec::new();
    let mut arguments = [String::new(), String::new()];
    for chunk in answer.chunks() {
        for call in chunk["choices"][0]["delta"]["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let index = call["index"].as_u64().unwrap() as usize;
            if let Some(name) = call["function"]["name"].as_str() {
                assert!(call["id"].is_string() && call["type"] == "function");
                names.push(name.to_owned());
            }
            arguments[index] += call["function"]["arguments"].as_str().unwrap();
        }
    }
    assert_eq!(names, ["look", "listen"]);
    assert_eq!(
        arguments.map(|text| serde_json::from_str::<Value>(&text).unwrap()),
        [json!({"at": "x"}), json!({})]
    );
    assert!(answer.text.contains("\"finish_reason\":\"tool_calls\""));
}

#[tokio::test]
async fn a_call_that_a_stop_string_cuts_is_not_handed_over() {
    let fixture = reasoning(CALLS).await;
    let client = fixture.client();
    let body =
        |stream: bool| chat(json!({"tools": tools(), "stop": ["at\": \""], "stream": stream}));
    let choice = client.chat(&body(false)).await.json()["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["stop_reason"], "at\": \"");
    let chunks = client.chat(&body(true)).await.chunks();
    let ends: Vec<&Value> = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["finish_reason"])
        .filter(|reason| reason.is_string())
        .collect();
    assert_eq!(ends, ["stop"]);
    // One that ends the answer behind a whole call takes nothing from it.
    let body =
        chat(json!({"tools": tools(), "stop": ["<|END_ACTION|>"], "skip_special_tokens": false}));
    let choice = client.chat(&body).await.json()["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "tool_calls");
}

#[tokio::test]
async fn tools_that_may_not_be_called_are_not_parsed() {
    let fixture = reasoning(CALLS).await;
    let body = chat(json!({"tools": tools(), "tool_choice": "none"}));
    let choice = fixture.client().chat(&body).await.json()["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["message"].get("tool_calls"), None);
}

#[tokio::test]
async fn a_final_message_is_continued_where_it_ends() {
    let fixture = Fixture::ready(Options::script(Script::says(" there"))).await;
    let client = fixture.client();
    let user = json!({"role": "user", "content": "Hi"});
    let continued = json!([user, {"role": "assistant", "content": "Hello ", "prefix": true}]);
    let answer = client
        .chat(&chat(json!({"messages": continued})))
        .await
        .json();
    // "[user]Hi[end][assistant]Hello ", without the end of the turn.
    assert_eq!(answer["usage"]["prompt_tokens"], 30);
    assert_eq!(answer["choices"][0]["message"]["content"], " there");
    let plain = json!([user, {"role": "assistant", "content": "Hello "}]);
    let asked = json!({"messages": plain, "continue_final_message": true,
                       "add_generation_prompt": false});
    let answer = client.chat(&chat(asked)).await.json();
    assert_eq!(answer["usage"]["prompt_tokens"], 30);
    let wrong = json!({"messages": [user], "continue_final_message": true});
    assert_eq!(client.chat(&chat(wrong)).await.status, 400);
}

#[tokio::test]
async fn a_failure_after_the_start_is_an_error_event_without_a_finish() {
    let script = Script::says("Hello, world!").faulty_from(5);
    let fixture = Fixture::ready(Options::script(script)).await;
    let client = fixture.client();
    let streamed = client.chat(&chat(json!({"stream": true}))).await;
    assert_eq!(
        (streamed.status, content(&streamed).as_str()),
        (200, "Hello")
    );
    let last: Value = serde_json::from_str(streamed.events().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "engine_failure");
    assert!(!streamed.text.contains("[DONE]") && !streamed.text.contains("\"finish_reason\":\""));
    let whole = client.chat(&chat(json!({}))).await;
    assert_eq!(
        (whole.status, whole.error_code().as_str()),
        (500, "engine_failure")
    );
}

#[tokio::test]
async fn an_answer_whose_grammar_is_lost_is_the_requests_fault() {
    let script = Script::says("Hello, world!").losing_grammar_from(5);
    let fixture = Fixture::ready(Options::script(script)).await;
    let client = fixture.client();
    let whole = client.chat(&chat(json!({}))).await;
    assert_eq!(
        (whole.status, whole.error_code().as_str()),
        (400, "constraint_failed")
    );
    let streamed = client.chat(&chat(json!({"stream": true}))).await;
    let last: Value = serde_json::from_str(streamed.events().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "constraint_failed");
}

#[tokio::test]
async fn seeds_and_unknown_fields_are_accepted() {
    let fixture = Fixture::ready(Options::default()).await;
    let extra = json!({"seed": -3, "temperature": 1e-20, "top_k": -1, "logit_bias": {"5": 1},
                       "prompt_cache_key": "k", "made_up": {"deep": [1]}, "user": "u"});
    assert_eq!(fixture.client().chat(&chat(extra)).await.status, 200);
    let outside = [
        json!({"logit_bias": {"99999": 1}}),
        json!({"stop_token_ids": [99999]}),
    ];
    for extra in outside {
        let answer = fixture.client().chat(&chat(extra)).await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (400, "invalid_value")
        );
    }
}
