//! No body, however odd, breaks the parsers or finds its way into an error.

#![recursion_limit = "512"]
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

use backstop_protocol::UnsupportedContent::Refuse;
use backstop_protocol::anthropic::ValidMessagesRequest;
use backstop_protocol::ollama::{OllamaTask, ValidShowRequest};
use backstop_protocol::responses::ValidResponsesRequest;
use backstop_protocol::{ApiError, SamplingFields, ValidChatRequest, ValidCompletionRequest};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::{proptest, sample};
use serde_json::{Value, json};

/// Stands in every string that the strategies make up, so that an echo can be recognised.
const MARK: &str = "qzjx";

/// Names of fields and values that the parsers know: chance alone would never find them.
const WORDS: &[&str] = &[
    "messages",
    "role",
    "content",
    "user",
    "assistant",
    "tool",
    "system",
    "type",
    "text",
    "tools",
    "function",
    "name",
    "arguments",
    "tool_calls",
    "id",
    "tool_call_id",
    "prefix",
    "prompt",
    "n",
    "stop",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "max_tokens",
    "min_tokens",
    "stream",
    "echo",
    "stream_options",
    "response_format",
    "tool_choice",
    "chat_template_kwargs",
    "thinking_blocks",
    "reasoning",
    "thinking",
    "function_call",
    "best_of",
    "suffix",
    "top_k",
    "temperature",
    "seed",
    "continue_final_message",
    "documents",
    "modalities",
    "stop_token_ids",
    "parameters",
    "input",
    "message",
    "input_text",
    "output",
    "call_id",
    "function_call_output",
    "custom_tool_call",
    "namespace",
    "additional_tools",
    "summary",
    "include",
    "metadata",
    "allowed_tools",
    "input_schema",
    "tool_use",
    "tool_result",
    "tool_use_id",
    "is_error",
    "stop_sequences",
    "output_config",
    "options",
    "format",
    "json",
    "think",
    "keep_alive",
    "context",
    "raw",
    "template",
    "images",
    "tool_name",
    "num_predict",
    "repeat_last_n",
    "repeat_penalty",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => sample::select(WORDS).prop_map(str::to_owned),
        1 => any::<String>().prop_map(|text| format!("{MARK}{text}")),
    ]
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-3_i64..300).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-3.0..3.0).prop_map(Value::from),
        word().prop_map(Value::from),
    ]
}

fn tree() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((word(), inner), 0..6).prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

/// A request that uses nearly every field; a mutation of it gets past the first checks.
fn rich_body() -> Value {
    json!({
        "model": MARK, "prompt": [[1, 2], [3]], "temperature": 1, "top_p": 0.5, "top_k": 5,
        "min_p": 0.1, "repetition_penalty": 1.1, "frequency_penalty": 1, "presence_penalty": 1,
        "logit_bias": {"5": 1}, "seed": 1, "n": 2, "best_of": 2, "stop": [MARK], "user": MARK,
        "stop_token_ids": [5], "max_tokens": 10, "max_completion_tokens": 9, "min_tokens": 1,
        "stream": true, "stream_options": {"include_usage": true}, "echo": false,
        "tool_choice": "auto", "parallel_tool_calls": true, "priority": 1, "modalities": ["text"],
        "response_format": {"type": "text"}, "reasoning_effort": "low", "documents": [{"t": MARK}],
        "chat_template_kwargs": {"a": MARK}, "add_generation_prompt": false, "suffix": "",
        "tools": [{"type": "function", "function":
            {"name": MARK, "description": MARK, "parameters": {"type": "object"}}}],
        "messages": [
            {"role": "system", "content": MARK},
            {"role": "user", "content": [{"type": "text", "text": MARK}], "name": MARK},
            {"role": "assistant", "content": null, "reasoning": MARK,
             "thinking_blocks": [{"type": "thinking", "thinking": MARK}],
             "tool_calls": [{"id": MARK, "type": "function", "function":
                {"name": MARK, "arguments": "{\"a\": 1}"}}]},
            {"role": "tool", "content": MARK, "tool_call_id": MARK},
            {"role": "assistant", "content": MARK, "prefix": true},
        ],
    })
}

/// The same for the endpoint whose conversations are items.
fn rich_responses_body() -> Value {
    let tool = json!({"type": "function", "name": "a.b", "description": MARK, "strict": true,
        "parameters": {"type": "object"}});
    json!({
        "model": MARK, "instructions": MARK, "max_output_tokens": 9, "temperature": 1,
        "reasoning": {"effort": "low", "summary": "auto"}, "stream": true, "metadata": {"k": MARK},
        "include": ["reasoning.encrypted_content"], "text": {"format": {"type": "text"}},
        "tools": [tool, {"type": "namespace", "name": "c", "tools": [tool]},
            {"type": "custom", "name": "d", "format": {"type": "text"}}],
        "tool_choice": {"type": "allowed_tools", "mode": "auto",
            "tools": [{"type": "function", "name": "a.b"}]},
        "input": [
            {"role": "user", "content": MARK},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": MARK}]},
            {"type": "reasoning", "summary": [{"text": MARK}], "encrypted_content": MARK},
            {"type": "function_call", "call_id": MARK, "name": MARK, "arguments": "{}"},
            {"type": "function_call_output", "call_id": MARK, "output": [
                {"type": "input_text", "text": MARK}, {"type": "input_image"}]},
            {"type": "custom_tool_call", "call_id": MARK, "name": MARK, "input": MARK},
            {"type": "custom_tool_call_output", "call_id": MARK, "output": MARK},
            {"type": "additional_tools", "tools": [tool]},
        ],
    })
}

/// The same for a Messages request.
fn rich_messages_body() -> Value {
    json!({
        "model": MARK, "max_tokens": 10, "temperature": 1, "top_p": 0.5, "top_k": 5,
        "stop_sequences": [MARK], "stream": true, "metadata": {"user_id": MARK},
        "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"},
        "output_config": {"effort": "low"}, "tool_choice": {"type": "auto"},
        "system": [{"type": "text", "text": MARK}],
        "tools": [{"name": MARK, "description": MARK, "input_schema": {"type": "object"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": MARK}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": MARK, "signature": MARK},
                {"type": "redacted_thinking", "data": MARK},
                {"type": "tool_use", "id": MARK, "name": MARK, "input": {"a": MARK}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": MARK,
                "is_error": true, "content": [{"type": "text", "text": MARK}]}]},
            {"role": "system", "content": MARK},
            {"role": "assistant", "content": MARK},
        ],
    })
}

/// The same for both of Ollama's endpoints.
fn rich_ollama_body() -> Value {
    json!({
        "model": MARK, "stream": false, "keep_alive": "5m", "think": "low", "format": {"type": "object"},
        "logprobs": true, "top_logprobs": 3, "truncate": true, "raw": false, "prompt": MARK,
        "system": MARK, "suffix": "", "template": "", "context": [1, 2], "images": [],
        "options": {"temperature": 1, "top_p": 0.5, "top_k": 5, "min_p": 0.1, "seed": 1,
            "stop": [MARK], "num_predict": 5, "repeat_penalty": 1.1, "repeat_last_n": 64,
            "presence_penalty": 1, "frequency_penalty": 1, "num_ctx": 4096, "mirostat": 0},
        "tools": [{"type": "function", "function":
            {"name": MARK, "description": MARK, "parameters": {"type": "object"}}}],
        "messages": [
            {"role": "system", "content": MARK},
            {"role": "user", "content": MARK, "images": []},
            {"role": "assistant", "content": "", "thinking": MARK, "tool_calls": [
                {"id": MARK, "function": {"index": 0, "name": MARK, "arguments": {"a": MARK}}}]},
            {"role": "tool", "tool_name": MARK, "content": MARK},
            {"role": "assistant", "content": MARK},
        ],
    })
}

/// The JSON pointers of everything in `value`.
fn pointers(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                pointers(element, format!("{at}/{index}"), found);
            }
        }
        Value::Object(entries) => {
            for (name, entry) in entries {
                pointers(entry, format!("{at}/{name}"), found);
            }
        }
        _ => {}
    }
    found.push(at);
}

fn check_error(error: &ApiError) {
    assert_eq!(error.status, 400);
    assert_eq!(error.kind, "invalid_request_error");
    assert!(!error.to_json_string().contains(MARK), "{error}");
    assert!(serde_json::from_str::<Value>(&error.to_json_string()).is_ok());
}

fn check_sampling(sampling: &SamplingFields, least_tokens: u32) {
    let within = |value: Option<f32>, low: f32, high: f32| {
        assert!(
            value.is_none_or(|value| (low..=high).contains(&value)),
            "{value:?}"
        );
    };
    within(sampling.temperature, 0.0, 2.0);
    within(sampling.top_p, f32::MIN_POSITIVE, 1.0);
    within(sampling.min_p, 0.0, 1.0);
    within(sampling.repetition_penalty, 0.001, 2.0);
    within(sampling.frequency_penalty, -2.0, 2.0);
    within(sampling.presence_penalty, -2.0, 2.0);
    assert!((1..=128).contains(&sampling.choices));
    assert!(
        sampling
            .max_tokens
            .is_none_or(|max| max >= least_tokens && sampling.min_tokens <= max)
    );
    assert!(sampling.stop.iter().all(|stop| !stop.is_empty()));
    assert!(sampling.logit_bias.is_sorted_by(|one, two| one.0 < two.0));
}

fn check_chat(request: &ValidChatRequest) {
    check_sampling(&request.sampling, 1);
    assert!(!request.messages.is_empty());
    for message in &request.messages {
        let role = message["role"].as_str().unwrap();
        assert!(["system", "user", "assistant", "tool"].contains(&role));
        assert!(message["content"].is_string());
        assert_eq!(message["tool_call_id"].is_string(), role == "tool");
        assert_eq!(message["reasoning"], message["reasoning_content"]);
    }
    assert!(!(request.add_generation_prompt && request.continue_final_message));
    if request.continue_final_message {
        assert_eq!(request.messages.last().unwrap()["role"], "assistant");
    }
}

fn check_all(body: &[u8]) {
    match ValidResponsesRequest::from_bytes(body, Refuse) {
        Ok(request) => check_chat(&request.chat),
        Err(error) => check_error(&error),
    }
    match ValidChatRequest::from_bytes(body, Refuse) {
        Ok(request) => check_chat(&request),
        Err(error) => check_error(&error),
    }
    match ValidCompletionRequest::from_bytes(body) {
        Ok(request) => {
            check_sampling(&request.sampling, u32::from(!request.echo));
            assert!(!request.prompts.is_empty());
        }
        Err(error) => check_error(&error),
    }
    check_ollama(OllamaTask::of_chat(body, Refuse));
    check_ollama(OllamaTask::of_generation(body, Refuse));
    if let Err(error) = ValidShowRequest::from_bytes(body) {
        check_error(&error);
    }
    match ValidMessagesRequest::from_bytes(body, Refuse) {
        Ok(request) => {
            assert!(request.max_tokens >= 1 && request.chat.sampling.max_tokens.is_none());
            check_chat(&request.chat);
        }
        Err(error) => check_error(&error),
    }
}

fn check_ollama(task: Result<OllamaTask, ApiError>) {
    match task {
        Ok(OllamaTask::Chat(asked)) => {
            assert!(asked.max_tokens != Some(0) && asked.chat.sampling.max_tokens.is_none());
            check_chat(&asked.chat);
        }
        Ok(OllamaTask::Text(asked)) => {
            assert!(asked.max_tokens != Some(0));
            check_sampling(&asked.completion.sampling, 1);
        }
        Ok(OllamaTask::Load(_)) => {}
        Err(error) => {
            check_error(&error);
            assert!(!error.to_ollama_json_string().contains(MARK), "{error}");
        }
    }
}

#[test]
fn the_rich_bodies_are_valid() {
    let body = rich_body();
    check_chat(&ValidChatRequest::from_value(&body, Refuse).unwrap());
    assert!(ValidCompletionRequest::from_value(&body).is_ok());
    check_chat(
        &ValidResponsesRequest::from_value(rich_responses_body(), Refuse)
            .unwrap()
            .chat,
    );
    let body = rich_messages_body().to_string();
    assert!(ValidMessagesRequest::from_bytes(body.as_bytes(), Refuse).is_ok());
    let body = rich_ollama_body().to_string();
    let tasks = [OllamaTask::of_chat, OllamaTask::of_generation]
        .map(|parse| parse(body.as_bytes(), Refuse));
    assert!(
        tasks
            .iter()
            .all(|task| matches!(task, Ok(OllamaTask::Chat(_))))
    );
}

fn mutate(body: &mut Value, changes: &[(sample::Index, Value)]) {
    for (index, value) in changes {
        let mut places = Vec::new();
        pointers(body, String::new(), &mut places);
        if let Some(place) = body.pointer_mut(index.get(&places[..]).as_str()) {
            *place = value.clone();
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes(body in vec(any::<u8>(), 0..200)) {
        check_all(&body);
    }

    #[test]
    fn arbitrary_json(body in tree()) {
        check_all(body.to_string().as_bytes());
    }

    #[test]
    fn arbitrary_messages(messages in vec(tree(), 0..4)) {
        let body = json!({"messages": messages, "prompt": messages, "input": messages,
            "max_tokens": 1});
        check_all(body.to_string().as_bytes());
    }

    #[test]
    fn mutated_requests(changes in vec((any::<sample::Index>(), tree()), 1..4)) {
        let bodies = [rich_body(), rich_responses_body(), rich_messages_body(), rich_ollama_body()];
        for mut body in bodies {
            mutate(&mut body, &changes);
            check_all(body.to_string().as_bytes());
        }
    }
}
