//! The wire form of answers, literally.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

use backstop_protocol::{
    ApiError, AssistantMessage, CallForm, ChatChoice, ChatChunks, ChatFinishReason, ChatLogprobs,
    CompletionChoice, CompletionChunks, CompletionLogprobs, Delta, FinishReason, ModelCard,
    ModelList, ModelOrigin, ResponseStamp, SSE_DONE, StopReason, TokenLogprob, ToolCall,
    TopLogprob, Usage, sse_data, sse_error,
};
use serde::Serialize;
use serde_json::{Value, json};

fn stamp() -> ResponseStamp {
    ResponseStamp {
        id: "id-1".to_owned(),
        created_s: 7,
        model: "m".to_owned(),
        system_fingerprint: None,
    }
}

fn wire(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

fn chunk(choices: Value) -> Value {
    json!({
        "id": "id-1", "object": "chat.completion.chunk", "created": 7, "model": "m",
        "choices": choices,
    })
}

fn choice(delta: Value, finish_reason: Value) -> Value {
    json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}])
}

#[test]
fn chat_chunks() {
    let build = ChatChunks::new(stamp());
    let role = json!({"role": "assistant", "content": ""});
    assert_eq!(wire(&build.role(0)), chunk(choice(role, Value::Null)));
    for (delta, expected) in [
        (Delta::content("a"), json!({"content": "a"})),
        (
            Delta::reasoning("r"),
            json!({"reasoning": "r", "reasoning_content": "r"}),
        ),
        (
            Delta::tool_call_start(1, "c", "f"),
            json!({"tool_calls": [{
                "index": 1, "id": "c", "type": "function",
                "function": {"name": "f", "arguments": ""},
            }]}),
        ),
        (
            Delta::tool_call_arguments(1, "{"),
            json!({"tool_calls": [{"index": 1, "function": {"arguments": "{"}}]}),
        ),
    ] {
        assert_eq!(
            wire(&build.delta(0, delta, None)),
            chunk(choice(expected, Value::Null))
        );
    }
    let last = wire(&build.finish(0, ChatFinishReason::ToolCalls, None));
    assert_eq!(last, chunk(choice(json!({}), json!("tool_calls"))));
    let stopped = build.finish(
        0,
        ChatFinishReason::Stop,
        Some(StopReason::Text("END".to_owned())),
    );
    assert_eq!(wire(&stopped)["choices"][0]["stop_reason"], "END");
}

#[test]
fn the_legacy_form_has_one_call() {
    let call = |name: &str| ToolCall::new("id".to_owned(), name.to_owned(), "{}".to_owned());
    let message = AssistantMessage::new(String::new(), None, vec![call("f"), call("g")]);
    let expected = json!({
        "role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"},
    });
    assert_eq!(wire(&message.with_calls_as(CallForm::Function)), expected);
    let start = Delta::tool_call_start(0, "id", "f").with_calls_as(CallForm::Function);
    let expected = json!({"function_call": {"name": "f", "arguments": ""}});
    assert_eq!(wire(&start), expected);
    let second = Delta::tool_call_arguments(1, "{").with_calls_as(CallForm::Function);
    assert_eq!(wire(&second), json!({}));
    let reason = CallForm::Function.finish_reason(FinishReason::ToolCalls);
    assert_eq!(wire(&reason), "function_call");
}

#[test]
fn token_ids_stand_beside_what_they_belong_to() {
    let build = ChatChunks::new(stamp());
    let first = wire(&build.role(0).with_prompt_token_ids(&[1, 2]));
    assert_eq!(first["prompt_token_ids"], json!([1, 2]));
    let next = wire(
        &build
            .delta(0, Delta::content("a"), None)
            .with_token_ids(vec![3]),
    );
    assert_eq!(next["choices"][0]["token_ids"], json!([3]));
    let whole = build.complete(Vec::new(), Usage::default());
    let whole = wire(&whole.with_prompt_token_ids(vec![1, 2]));
    assert_eq!(whole["prompt_token_ids"], json!([1, 2]));
}

#[test]
fn usage_has_a_chunk_of_its_own() {
    let expected = json!({
        "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    });
    let usage = Usage::new(6, 4, 2, 0).plus(Usage::new(4, 0, 3, 2));
    let last = wire(&ChatChunks::new(stamp()).usage(usage));
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"], expected);
    let build = ChatChunks::new(stamp());
    let text = build.delta(0, Delta::content("a"), None).with_usage(usage);
    assert_eq!(wire(&text)["usage"], expected);
    // A client that waits for the last chunk knows from the others that there is going to be one.
    let build = ChatChunks::new(stamp()).announcing_usage(true);
    for chunk in [build.role(0), build.delta(0, Delta::content("a"), None)] {
        assert_eq!(wire(&chunk).get("usage"), Some(&Value::Null));
    }
    assert_eq!(wire(&build.usage(usage))["usage"], expected);
    assert!(
        wire(&ChatChunks::new(stamp()).role(0))
            .get("usage")
            .is_none()
    );
    assert_eq!(
        wire(&CompletionChunks::new(stamp()).usage(usage))["usage"],
        expected
    );
}

#[test]
fn a_whole_chat_answer() {
    let top = TopLogprob {
        token: "b".to_owned(),
        logprob: -0.5,
        bytes: Some(vec![98]),
    };
    let token = TokenLogprob {
        token: "a".to_owned(),
        logprob: f32::NEG_INFINITY,
        bytes: Some(vec![97]),
        top_logprobs: vec![top],
    };
    let choice = ChatChoice {
        index: 0,
        message: AssistantMessage::new(String::new(), Some("r".to_owned()), Vec::new()),
        logprobs: Some(ChatLogprobs {
            content: vec![token],
        }),
        finish_reason: ChatFinishReason::Length,
        stop_reason: None,
        token_ids: None,
    };
    let stamp = ResponseStamp {
        system_fingerprint: Some("fp".to_owned()),
        ..stamp()
    };
    let answer = wire(&ChatChunks::new(stamp).complete(vec![choice], Usage::new(1, 0, 1, 1)));
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["system_fingerprint"], "fp");
    assert_eq!(
        answer["choices"],
        json!([{
            "index": 0,
            "message": {
                "role": "assistant", "content": "", "reasoning": "r", "reasoning_content": "r",
            },
            "logprobs": {"content": [{
                "token": "a", "logprob": -9999.0, "bytes": [97],
                "top_logprobs": [{"token": "b", "logprob": -0.5, "bytes": [98]}],
            }]},
            "finish_reason": "length",
            "stop_reason": null,
        }])
    );
}

#[test]
fn content_beside_tool_calls_is_null_when_empty() {
    let call = || ToolCall::new("c".to_owned(), "f".to_owned(), "{}".to_owned());
    let message = wire(&AssistantMessage::new(String::new(), None, vec![call()]));
    assert_eq!(
        message,
        json!({
            "role": "assistant", "content": null,
            "tool_calls": [{
                "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"},
            }],
        })
    );
    let message = wire(&AssistantMessage::new("a".to_owned(), None, vec![call()]));
    assert_eq!(message["content"], "a");
}

#[test]
fn completions_have_parallel_logprobs() {
    let mut logprobs = CompletionLogprobs::default();
    let alternatives = [("b".to_owned(), -0.1), ("b".to_owned(), -0.2)];
    logprobs.push("a".to_owned(), -1.0, alternatives, 0);
    logprobs.push("c".to_owned(), f32::NAN, [], 1);
    let choice = CompletionChoice {
        index: 3,
        text: "ac".to_owned(),
        logprobs: Some(logprobs),
        finish_reason: Some(FinishReason::Stop),
        stop_reason: Some(StopReason::Token(9)),
    };
    let build = CompletionChunks::new(stamp());
    let answer = build.complete(vec![choice.clone()], Usage::default());
    let text = serde_json::to_string(&answer).unwrap();
    assert!(text.contains(
        "\"logprobs\":{\"tokens\":[\"a\",\"c\"],\"token_logprobs\":[-1.0,-9999.0],\
         \"top_logprobs\":[{\"b\":-0.1,\"a\":-1.0},{\"c\":-9999.0}],\"text_offset\":[0,1]},\
         \"finish_reason\":\"stop\",\"stop_reason\":9"
    ));
    let chunk = wire(&build.chunk(choice));
    assert_eq!(chunk["object"], "text_completion");
    assert!(chunk.get("usage").is_none());
}

#[test]
fn models_publish_their_limits() {
    let origin = ModelOrigin {
        repository: Some("org/north".to_owned()),
        weights: Some("01".to_owned()),
        ..ModelOrigin::default()
    };
    let card = ModelCard::new("alias".to_owned(), "root".to_owned(), 7, 4096, 1024).from(origin);
    assert_eq!(
        wire(&ModelList::new(vec![card])),
        json!({"object": "list", "has_more": false, "first_id": "alias", "last_id": "alias",
            "data": [{
            "id": "alias", "object": "model", "created": 7, "owned_by": "backstop",
            "root": "root", "parent": null, "max_model_len": 4096, "context_length": 4096,
            "max_input_tokens": 4095, "max_output_tokens": 1024,
            "type": "model", "display_name": "alias", "created_at": "1970-01-01T00:00:07Z",
            "lifecycle": "active", "max_tokens": 1024, "task": "generate",
            "provenance": {"repository": "org/north", "weights": "01"},
        }]})
    );
}

#[test]
fn events_are_single_lines() {
    assert_eq!(
        sse_data(&json!({"a": "b\nc"})),
        "data: {\"a\":\"b\\nc\"}\n\n"
    );
    assert_eq!(SSE_DONE, "data: [DONE]\n\n");
    assert_eq!(
        sse_error(&ApiError::engine_failure()),
        "data: {\"error\": {\"message\": \"The engine failed while it ran this request.\", \
         \"type\": \"server_error\", \"param\": null, \"code\": \"engine_failure\"}}\n\n"
    );
}
