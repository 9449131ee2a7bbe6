//! Bodies that must be refused, each with the field that the error has to name.

use backstop_protocol::UnsupportedContent::Refuse;
use backstop_protocol::{ApiError, ValidChatRequest, ValidCompletionRequest};
use serde_json::{Value, json};

const HELLO: &str = r#""messages": [{"role": "user", "content": "hello"}]"#;

/// Fields beside a good conversation, and the `param` that the error names.
const CHAT_FIELDS: &[(&str, &str)] = &[
    (r#""model": 5"#, "model"),
    (r#""temperature": 2.1"#, "temperature"),
    (r#""temperature": "1""#, "temperature"),
    (r#""top_p": -0.1"#, "top_p"),
    (r#""top_p": 1.5"#, "top_p"),
    (r#""top_k": -2"#, "top_k"),
    (r#""top_k": 1.5"#, "top_k"),
    (r#""min_p": 2"#, "min_p"),
    (r#""repetition_penalty": 0"#, "repetition_penalty"),
    (r#""frequency_penalty": -2.5"#, "frequency_penalty"),
    (r#""presence_penalty": [1]"#, "presence_penalty"),
    (r#""logit_bias": [1]"#, "logit_bias"),
    (r#""logit_bias": {"a": 1}"#, "logit_bias"),
    (r#""logit_bias": {"-1": 1}"#, "logit_bias"),
    (r#""logit_bias": {"1": 101}"#, "logit_bias"),
    (r#""seed": 1.5"#, "seed"),
    (r#""seed": 18446744073709551615"#, "seed"),
    (r#""n": 0"#, "n"),
    (r#""n": 129"#, "n"),
    (r#""stop": 5"#, "stop"),
    (r#""stop": """#, "stop"),
    (r#""stop": ["a", ""]"#, "stop.1"),
    (r#""stop": ["a", 1]"#, "stop.1"),
    (
        r#""stop": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]"#,
        "stop",
    ),
    (r#""stop_token_ids": 1"#, "stop_token_ids"),
    (r#""stop_token_ids": [1, -1]"#, "stop_token_ids.1"),
    (r#""max_tokens": 0"#, "max_tokens"),
    (r#""max_tokens": "16""#, "max_tokens"),
    (r#""max_completion_tokens": -1"#, "max_completion_tokens"),
    (r#""min_tokens": -1"#, "min_tokens"),
    (r#""max_tokens": 4, "min_tokens": 5"#, "min_tokens"),
    (r#""ignore_eos": 1"#, "ignore_eos"),
    (r#""skip_special_tokens": "no""#, "skip_special_tokens"),
    (r#""logprobs": 5"#, "logprobs"),
    (r#""top_logprobs": 5"#, "top_logprobs"),
    (r#""logprobs": true, "top_logprobs": 21"#, "top_logprobs"),
    (r#""stream": "yes""#, "stream"),
    (r#""stream_options": true"#, "stream_options"),
    (
        r#""stream": true, "stream_options": {"include_usage": 1}"#,
        "stream_options.include_usage",
    ),
    (r#""priority": "high""#, "priority"),
    (r#""cache_salt": 7"#, "cache_salt"),
    (r#""cache_salt": """#, "cache_salt"),
    (r#""best_of": 2"#, "best_of"),
    (r#""use_beam_search": true"#, "use_beam_search"),
    (r#""tools": {}"#, "tools"),
    (r#""tools": [5]"#, "tools.0"),
    (r#""tools": [{"type": "custom"}]"#, "tools.0.type"),
    (r#""tools": [{"type": "function"}]"#, "tools.0.function"),
    (r#""tools": [{"function": {}}]"#, "tools.0.function.name"),
    (
        r#""tools": [{"function": {"name": "a b"}}]"#,
        "tools.0.function.name",
    ),
    (
        r#""tools": [{"function": {"name": ""}}]"#,
        "tools.0.function.name",
    ),
    (
        r#""tools": [{"function": {"name": "f", "description": 1}}]"#,
        "tools.0.function.description",
    ),
    (
        r#""tools": [{"function": {"name": "f", "parameters": 1}}]"#,
        "tools.0.function.parameters",
    ),
    (r#""tool_choice": "required""#, "tool_choice"),
    (r#""tool_choice": "perhaps""#, "tool_choice"),
    (
        r#""tool_choice": {"type": "function", "function": {"name": "f"}}"#,
        "tool_choice.function.name",
    ),
    (
        r#""tool_choice": {"type": "function", "function": {}}"#,
        "tool_choice.function.name",
    ),
    (r#""tool_choice": {"type": "custom"}"#, "tool_choice.type"),
    (
        r#""tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "none"}}"#,
        "tool_choice.allowed_tools.mode",
    ),
    (
        r#""tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": []}}"#,
        "tool_choice.allowed_tools.tools",
    ),
    (
        r#""tool_choice": {"type": "allowed_tools", "tools": [{"name": "f"}]}"#,
        "tool_choice.tools.0.name",
    ),
    (
        r#""tools": [{"function": {"name": "f", "strict": "yes"}}]"#,
        "tools.0.function.strict",
    ),
    (r#""tool_choice": 1"#, "tool_choice"),
    (r#""functions": [{"name": ""}]"#, "functions.0.name"),
    (
        r#""functions": [{"name": "f"}], "tools": [{"function": {"name": "f"}}]"#,
        "functions",
    ),
    (r#""function_call": {"name": "f"}"#, "function_call.name"),
    (r#""function_call": "f""#, "function_call"),
    (r#""parallel_tool_calls": 1"#, "parallel_tool_calls"),
    (r#""response_format": "json""#, "response_format"),
    (r#""response_format": {}"#, "response_format.type"),
    (
        r#""response_format": {"type": "json_schema", "json_schema": {}}"#,
        "response_format.json_schema.schema",
    ),
    (
        r#""response_format": {"type": "json_schema", "json_schema": {"schema": []}}"#,
        "response_format.json_schema.schema",
    ),
    (
        r#""response_format": {"type": "structural_tag"}"#,
        "response_format.type",
    ),
    (
        r#""response_format": {"type": "yaml"}"#,
        "response_format.type",
    ),
    (r#""guided_json": "{""#, "guided_json"),
    (r#""guided_json": "1""#, "guided_json"),
    (r#""guided_regex": 1"#, "guided_regex"),
    (r#""guided_choice": ["a", 1]"#, "guided_choice.1"),
    (
        r#""guided_choice": ["a"], "guided_regex": "a""#,
        "guided_choice",
    ),
    (
        r#""response_format": {"type": "json_object"}, "guided_grammar": "start: /a/""#,
        "guided_grammar",
    ),
    (
        r#""structured_outputs": {"regex": "a", "json": {"type": "object"}}"#,
        "structured_outputs.regex",
    ),
    (
        r#""structured_outputs": {"structural_tag": "a"}"#,
        "structured_outputs.structural_tag",
    ),
    (
        r#""response_format": {"type": "json_schema"}"#,
        "response_format.json_schema",
    ),
    (
        r#""response_format": {"type": "json_object", "schema": 1}"#,
        "response_format.schema",
    ),
    (
        r#""response_format": {"type": "regex"}"#,
        "response_format.pattern",
    ),
    (
        r#""response_format": {"type": "grammar", "grammar": "root ::= [0-9]"}"#,
        "response_format.type",
    ),
    (r#""json_schema": "{""#, "json_schema"),
    (
        r#""json_schema": {"type": "object"}, "regex": "a""#,
        "regex",
    ),
    (r#""grammar": "root ::= [0-9]""#, "grammar"),
    (r#""ebnf": "root ::= [0-9]""#, "ebnf"),
    (r#""logit_bias": [[1]]"#, "logit_bias"),
    (r#""logit_bias": [["a", 1]]"#, "logit_bias"),
    (r#""logit_bias": [[1, true]]"#, "logit_bias"),
    (r#""n_predict": 0"#, "n_predict"),
    (r#""n_predict": -2"#, "n_predict"),
    (r#""random_seed": "a""#, "random_seed"),
    (r#""repeat_penalty": 3"#, "repeat_penalty"),
    (r#""mirostat": 2"#, "mirostat"),
    (r#""mirostat_mode": 1"#, "mirostat_mode"),
    (r#""typical_p": 0.5"#, "typical_p"),
    (r#""top_a": 0.5"#, "top_a"),
    (r#""tfs_z": 0.9"#, "tfs_z"),
    (r#""dry_multiplier": 0.8"#, "dry_multiplier"),
    (r#""xtc_probability": 0.5"#, "xtc_probability"),
    (r#""top_n_sigma": 1.0"#, "top_n_sigma"),
    (r#""dynatemp_range": 0.5"#, "dynatemp_range"),
    (r#""no_repeat_ngram_size": 3"#, "no_repeat_ngram_size"),
    (r#""n_probs": 5"#, "n_probs"),
    (r#""custom_logit_processor": "x""#, "custom_logit_processor"),
    (r#""return_hidden_states": true"#, "return_hidden_states"),
    (
        r#""return_tokens_as_token_ids": true"#,
        "return_tokens_as_token_ids",
    ),
    (r#""watermark": true"#, "watermark"),
    (r#""safe_prompt": true"#, "safe_prompt"),
    (r#""safety_model": "guard""#, "safety_model"),
    (r#""moderation": {"model": "m"}"#, "moderation"),
    (r#""deferred": true"#, "deferred"),
    (r#""lora": [{"id": 0, "scale": 1}]"#, "lora"),
    (r#""lora_path": "a""#, "lora_path"),
    (r#""adapter_id": "a""#, "adapter_id"),
    (r#""separate_reasoning": false"#, "separate_reasoning"),
    (r#""parse_tool_calls": false"#, "parse_tool_calls"),
    (r#""reasoning_format": "none""#, "reasoning_format"),
    (r#""return_token_ids": 1"#, "return_token_ids"),
    (r#""bad_words": ["a"]"#, "bad_words"),
    (r#""prompt_logprobs": 1"#, "prompt_logprobs"),
    (r#""truncate_prompt_tokens": 10"#, "truncate_prompt_tokens"),
    (r#""modalities": ["text", "audio"]"#, "modalities"),
    (r#""audio": {"voice": "alloy"}"#, "audio"),
    (r#""echo": true"#, "echo"),
    (r#""chat_template": "{{ x }}""#, "chat_template"),
    (r#""chat_template": ["tool_use"]"#, "chat_template"),
    (r#""chat_template_kwargs": 1"#, "chat_template_kwargs"),
    (
        r#""chat_template_kwargs": {"messages": []}"#,
        "chat_template_kwargs.messages",
    ),
    (r#""reasoning_effort": "hard""#, "reasoning_effort"),
    (r#""reasoning_effort": 5"#, "reasoning_effort"),
    (r#""documents": ["text"]"#, "documents.0"),
    (
        r#""continue_final_message": true"#,
        "continue_final_message",
    ),
    (
        r#""continue_final_message": true, "add_generation_prompt": true"#,
        "continue_final_message",
    ),
    (r#""user": {}"#, "user"),
];

/// Values of `messages`, and the `param` that the error names.
const MESSAGES: &[(&str, &str)] = &[
    ("null", "messages"),
    ("[]", "messages"),
    ("{}", "messages"),
    ("[5]", "messages.0"),
    ("[{}]", "messages.0.role"),
    (r#"[{"role": "robot", "content": ""}]"#, "messages.0.role"),
    (r#"[{"role": 5, "content": ""}]"#, "messages.0.role"),
    (r#"[{"role": "user"}]"#, "messages.0.content"),
    (
        r#"[{"role": "user", "content": null}]"#,
        "messages.0.content",
    ),
    (r#"[{"role": "user", "content": 5}]"#, "messages.0.content"),
    (
        r#"[{"role": "user", "content": [5]}]"#,
        "messages.0.content.0",
    ),
    (
        r#"[{"role": "user", "content": [{"text": "a"}]}]"#,
        "messages.0.content.0.type",
    ),
    (
        r#"[{"role": "user", "content": ["a", {"type": "image_url", "image_url": {"url": "x"}}]}]"#,
        "messages.0.content.1.type",
    ),
    (
        r#"[{"role": "user", "content": [{"type": "input_audio"}]}]"#,
        "messages.0.content.0.type",
    ),
    (
        r#"[{"role": "user", "content": [{"type": "text"}]}]"#,
        "messages.0.content.0.text",
    ),
    (
        r#"[{"role": "user", "content": [{"type": "thinking", "thinking": "a"}]}]"#,
        "messages.0.content.0.type",
    ),
    (
        r#"[{"role": "user", "content": "", "name": 5}]"#,
        "messages.0.name",
    ),
    (
        r#"[{"role": "assistant", "tool_calls": {}}]"#,
        "messages.0.tool_calls",
    ),
    (
        r#"[{"role": "assistant", "tool_calls": [{}]}]"#,
        "messages.0.tool_calls.0.function",
    ),
    (
        r#"[{"role": "assistant", "tool_calls": [{"id": "a"}]}]"#,
        "messages.0.tool_calls.0.function",
    ),
    (
        r#"[{"role": "assistant", "tool_calls": [{"id": "a", "function": {}}]}]"#,
        "messages.0.tool_calls.0.function.name",
    ),
    (
        r#"[{"role": "assistant", "tool_calls": [{"id": "a", "type": "custom"}]}]"#,
        "messages.0.tool_calls.0.custom",
    ),
    (
        r#"[{"role": "user", "content": "a", "prefix": true}]"#,
        "messages.0.prefix",
    ),
    (
        r#"[{"role": "user", "content": "a", "prefix": 1}]"#,
        "messages.0.prefix",
    ),
    (
        r#"[{"role": "assistant", "prefix": true, "tool_calls":
            [{"id": "a", "function": {"name": "f"}}]}]"#,
        "messages.0.prefix",
    ),
];

/// Bodies of completion requests, and the `param` that the error names.
const COMPLETIONS: &[(&str, &str)] = &[
    ("{}", "prompt"),
    (r#"{"prompt": null}"#, "prompt"),
    (r#"{"prompt": 5}"#, "prompt"),
    (r#"{"prompt": {}}"#, "prompt"),
    (r#"{"prompt": []}"#, "prompt"),
    (r#"{"prompt": [null]}"#, "prompt"),
    (r#"{"prompt": [[]]}"#, "prompt.0"),
    (r#"{"prompt": [1, "a"]}"#, "prompt.1"),
    (r#"{"prompt": [1, -1]}"#, "prompt.1"),
    (r#"{"prompt": ["a", 1]}"#, "prompt.1"),
    (r#"{"prompt": ["a", null]}"#, "prompt.1"),
    (r#"{"prompt": [[1], [1, 2.5]]}"#, "prompt.1.1"),
    (r#"{"prompt": ["a", "b", "c"], "n": 100}"#, "n"),
    (r#"{"prompt": "a", "suffix": 5}"#, "suffix"),
    (
        r#"{"prompt": "a", "suffix": "b", "echo": true, "logprobs": 1}"#,
        "suffix",
    ),
    (r#"{"prompt": "a", "min_tokens": 17}"#, "min_tokens"),
    (r#"{"prompt": "a", "best_of": 3, "n": 2}"#, "best_of"),
    (r#"{"prompt": "a", "logprobs": true}"#, "logprobs"),
    (r#"{"prompt": "a", "logprobs": 21}"#, "logprobs"),
    (
        r#"{"prompt": "a", "echo": true, "logprobs": 21}"#,
        "logprobs",
    ),
    (r#"{"prompt": "a", "max_tokens": 0}"#, "max_tokens"),
    (
        r#"{"prompt": "a", "response_format": {"type": "json_object"}}"#,
        "response_format",
    ),
];

fn assert_names(error: &ApiError, param: &str, body: &str) {
    assert_eq!(error.status, 400, "{body}");
    assert_eq!(error.kind, "invalid_request_error", "{body}");
    assert_eq!(error.param.as_deref(), Some(param), "{body}: {error}");
    assert!(error.message.contains(param), "{body}: {error}");
    assert_ne!(error.code, Some("context_length_exceeded"));
}

#[test]
fn chat_fields_are_named() {
    for (fields, param) in CHAT_FIELDS {
        let body = format!("{{{HELLO}, {fields}}}");
        serde_json::from_str::<Value>(&body).expect(&body);
        let error = ValidChatRequest::from_bytes(body.as_bytes(), Refuse).expect_err(&body);
        assert_names(&error, param, &body);
    }
}

#[test]
fn messages_are_named() {
    for (messages, param) in MESSAGES {
        let body = format!("{{\"messages\": {messages}}}");
        serde_json::from_str::<Value>(&body).expect(&body);
        let error = ValidChatRequest::from_bytes(body.as_bytes(), Refuse).expect_err(&body);
        assert_names(&error, param, &body);
    }
}

#[test]
fn completion_fields_are_named() {
    for (body, param) in COMPLETIONS {
        serde_json::from_str::<Value>(body).expect(body);
        let error = ValidCompletionRequest::from_bytes(body.as_bytes()).expect_err(body);
        assert_names(&error, param, body);
    }
}

#[test]
fn what_is_not_an_object_is_refused() {
    let deep = "[".repeat(100_000);
    let bodies = [
        "",
        "{",
        "[]",
        "null",
        "5",
        "{} {}",
        "{\"a\": 1e999}",
        "\u{feff}{}",
        &deep,
    ];
    for body in bodies {
        let error = ValidChatRequest::from_bytes(body.as_bytes(), Refuse).unwrap_err();
        assert_eq!((error.status, error.code), (400, Some("invalid_json")));
        let error = ValidCompletionRequest::from_bytes(body.as_bytes()).unwrap_err();
        assert_eq!((error.status, error.code), (400, Some("invalid_json")));
    }
    let error = ValidChatRequest::from_bytes(b"{\"messages\": \"\xff\"}", Refuse).unwrap_err();
    assert_eq!(error.code, Some("invalid_json"));
}

#[test]
fn lists_are_bounded() {
    let message = json!({"role": "user", "content": "a"});
    let chat = |body: Value| {
        ValidChatRequest::from_value(&body, Refuse)
            .unwrap_err()
            .param
            .unwrap()
    };
    assert_eq!(
        chat(json!({"messages": vec![message.clone(); 10_001]})),
        "messages"
    );
    let bias: serde_json::Map<_, _> = (0..1_025).map(|id| (id.to_string(), json!(1))).collect();
    assert_eq!(
        chat(json!({"messages": [message], "logit_bias": bias})),
        "logit_bias"
    );
    let stop = "a".repeat(1_025);
    assert_eq!(chat(json!({"messages": [message], "stop": stop})), "stop");
    let parts = vec![json!({"type": "text", "text": "a"}); 5_000];
    let body = json!({"messages": [{"role": "user", "content": parts}]});
    assert_eq!(chat(body), "messages.0.content");
    let body = json!({"prompt": vec!["a"; 129]});
    let error = ValidCompletionRequest::from_value(&body).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("prompt"));
}

#[test]
fn an_index_that_reads_as_a_status_is_left_out() {
    let mut messages = vec![json!({"role": "user", "content": "a"}); 429];
    messages.push(json!({"role": "user"}));
    let error = ValidChatRequest::from_value(&json!({"messages": messages}), Refuse).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("messages"));
    assert!(!error.to_json_string().contains("429"));
}
