//! Requests in Anthropic's shape: what becomes of good ones, and which field bad ones name.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

use backstop_protocol::UnsupportedContent::Refuse;
use backstop_protocol::anthropic::{ThinkingDisplay, ValidMessagesRequest, ValidTokenCountRequest};
use backstop_protocol::{ApiError, OutputFormat, ToolChoice};
use serde_json::{Value, json};

/// `fields` beside a good conversation.
fn body(fields: Value) -> Value {
    let mut body = json!({"model": "m", "max_tokens": 10,
                          "messages": [{"role": "user", "content": "hello"}]});
    let fields = fields.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(fields);
    body
}

fn parse(body: &Value) -> Result<ValidMessagesRequest, ApiError> {
    ValidMessagesRequest::from_bytes(body.to_string().as_bytes(), Refuse)
}

fn messages(messages: Value) -> Vec<Value> {
    parse(&body(json!({"messages": messages})))
        .unwrap()
        .chat
        .messages
}

#[test]
fn the_smallest_request_leaves_everything_to_the_model() {
    let request = parse(&body(json!({}))).unwrap();
    assert_eq!(request.max_tokens, 10);
    let chat = request.chat;
    assert_eq!(chat.messages, [json!({"role": "user", "content": "hello"})]);
    assert_eq!(chat.model.as_deref(), Some("m"));
    assert_eq!((chat.stream, chat.sampling.max_tokens), (None, None));
    assert!(chat.add_generation_prompt && !chat.continue_final_message);
    assert!(chat.tools.is_empty() && chat.parallel_tool_calls);
    assert!(chat.sampling.skip_special_tokens && chat.sampling.temperature.is_none());
}

#[test]
fn labels_nulls_and_unknown_fields_are_ignored() {
    let cached = json!({"type": "ephemeral", "ttl": "1h"});
    let request = parse(&body(json!({
        "cache_control": cached, "service_tier": "auto", "inference_geo": "eu", "speed": "fast",
        "diagnostics": {"previous_message_id": "m"}, "made_up": {"deep": [1]},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "metadata": {"user_id": "u", "other": 1}, "output_config": {"format": null},
        "container": null, "mcp_servers": [], "thinking": null, "tools": null,
        "tool_choice": null, "temperature": null, "stop_sequences": null, "top_k": null,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": cached}],
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": "hello", "cache_control": cached, "citations": null}]}],
    })))
    .unwrap();
    assert_eq!(request.chat.user.as_deref(), Some("u"));
    let expected = [
        json!({"role": "system", "content": "Be brief."}),
        json!({"role": "user", "content": "hello"}),
    ];
    assert_eq!(request.chat.messages, expected);
}

#[test]
fn blocks_become_the_messages_that_templates_read() {
    let history = messages(json!([
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "d"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "a", "name": "look", "input": {"at": 1}},
            {"type": "tool_use", "id": "b", "name": "listen", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "text", "text": "And?"},
            {"type": "tool_result", "tool_use_id": "a", "content": "nothing"},
            {"type": "tool_result", "tool_use_id": "b", "is_error": true,
             "content": [{"type": "text", "text": "too"}, {"type": "text", "text": "loud"}]},
        ]},
        {"role": "system", "content": "Be quiet."},
    ]));
    let call = |id: &str, name: &str, arguments: Value| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let expected = [
        json!({"role": "user", "content": "look"}),
        json!({"role": "assistant", "content": "I look.", "reasoning": "Hm",
               "reasoning_content": "Hm",
               "tool_calls": [call("a", "look", json!({"at": 1})), call("b", "listen", json!({}))]}),
        json!({"role": "tool", "tool_call_id": "a", "content": "nothing"}),
        json!({"role": "tool", "tool_call_id": "b", "content": "Error: too\nloud"}),
        json!({"role": "user", "content": "And?"}),
        json!({"role": "system", "content": "Be quiet."}),
    ];
    assert_eq!(history, expected);
}

#[test]
fn neighbours_of_one_role_are_one_turn() {
    let merged = messages(json!([
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c"},
        {"role": "assistant", "content": [{"type": "text", "text": "d"},
            {"type": "tool_use", "id": "i", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "i"}]},
        {"role": "user", "content": "e"},
    ]));
    let contents: Vec<&str> = merged
        .iter()
        .map(|m| m["content"].as_str().unwrap())
        .collect();
    assert_eq!(contents, ["a\nb", "c\nd", "", "e"]);
    assert_eq!(merged[1]["tool_calls"].as_array().unwrap().len(), 1);
}

#[test]
fn whom_to_bill_is_no_instruction() {
    let system = json!([{"type": "text", "text": "x-anthropic-billing-header: cc_version=1; cch=0;"},
                        {"type": "text", "text": "You are an agent."}]);
    let chat = parse(&body(json!({"system": system}))).unwrap().chat;
    assert_eq!(chat.messages[0]["content"], "You are an agent.");
}

#[test]
fn a_final_assistant_message_is_a_prefill() {
    let turns = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
    let chat = parse(&body(json!({"messages": turns}))).unwrap().chat;
    assert!(chat.continue_final_message && !chat.add_generation_prompt);
}

#[test]
fn thinking_is_off_unless_it_is_on() {
    let thinking = |fields: Value| {
        let request = parse(&body(fields)).unwrap();
        let chat = request.chat;
        assert_eq!(
            chat.chat_template_kwargs["reasoning"],
            chat.include_reasoning
        );
        assert_eq!(
            chat.chat_template_kwargs["enable_thinking"],
            chat.include_reasoning
        );
        (
            chat.include_reasoning,
            chat.reasoning_effort,
            request.thinking_display,
        )
    };
    let (full, omitted) = (ThinkingDisplay::Full, ThinkingDisplay::Omitted);
    assert_eq!(thinking(json!({})), (false, Some("none"), full));
    let off = json!({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}});
    assert_eq!(thinking(off), (false, Some("none"), full));
    let on = json!({"thinking": {"type": "enabled", "budget_tokens": 2000}});
    assert_eq!(thinking(on), (true, None, full));
    let adaptive = json!({"thinking": {"type": "adaptive", "display": "omitted"},
                          "output_config": {"effort": "low"}});
    assert_eq!(thinking(adaptive), (true, Some("low"), omitted));
}

#[test]
fn tools_and_their_choice() {
    let tool = json!({"name": "f", "description": "d", "input_schema": {"type": "object"},
                      "cache_control": {"type": "ephemeral"}, "eager_input_streaming": true});
    let strict = json!({"type": "custom", "name": "g", "input_schema": {}, "strict": true});
    let choice = json!({"type": "auto", "disable_parallel_tool_use": true});
    let fields = json!({"tools": [tool, strict], "tool_choice": choice});
    let chat = parse(&body(fields)).unwrap().chat;
    let function = json!({"name": "f", "description": "d", "parameters": {"type": "object"}});
    assert_eq!(
        chat.tools[0],
        json!({"type": "function", "function": function})
    );
    assert_eq!(chat.strict_tools, ["g"]);
    assert_eq!(chat.tool_choice, ToolChoice::Auto);
    assert!(!chat.parallel_tool_calls);
    let choose = |choice: Value| {
        let fields = json!({"tools": [tool], "tool_choice": choice});
        parse(&body(fields)).unwrap().chat.tool_choice
    };
    assert_eq!(choose(json!({"type": "none"})), ToolChoice::None);
    assert_eq!(choose(json!({"type": "any"})), ToolChoice::Required);
    let named = choose(json!({"type": "tool", "name": "f"}));
    assert_eq!(named, ToolChoice::Function("f".into()));
}

#[test]
fn a_schema_for_the_text_is_read_in_either_place() {
    let format = json!({"type": "json_schema", "schema": {"type": "object"}});
    for fields in [
        json!({"output_config": {"format": format}}),
        json!({"output_format": format}),
    ] {
        let chat = parse(&body(fields)).unwrap().chat;
        let schema = json!({"type": "object"});
        assert_eq!(chat.output_format, OutputFormat::JsonSchema(schema));
        assert!(
            chat.constraint_paths
                .output_format
                .ends_with("format.schema")
        );
    }
}

#[test]
fn sampling_and_stream() {
    let fields = json!({"temperature": 0, "top_p": 0, "top_k": 5, "stop_sequences": ["a", "b"],
                        "stream": true});
    let chat = parse(&body(fields)).unwrap().chat;
    assert!(chat.stream.is_some());
    let sampling = chat.sampling;
    assert_eq!((sampling.temperature, sampling.top_k), (Some(0.0), Some(5)));
    assert_eq!(sampling.top_p, Some(f32::MIN_POSITIVE));
    assert_eq!(sampling.stop, ["a", "b"]);
}

#[test]
fn counting_needs_no_max_tokens() {
    let body = json!({"messages": [{"role": "user", "content": "a"}]});
    assert!(ValidTokenCountRequest::from_bytes(body.to_string().as_bytes(), Refuse).is_ok());
    let error = parse(&body).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("max_tokens"));
}

/// Fields beside a good conversation, and the `param` that the error names.
const FIELDS: &[(&str, &str)] = &[
    (r#""model": 5"#, "model"),
    (r#""max_tokens": 0"#, "max_tokens"),
    (r#""max_tokens": "10""#, "max_tokens"),
    (r#""temperature": 2.1"#, "temperature"),
    (r#""top_p": -1"#, "top_p"),
    (r#""top_k": -1"#, "top_k"),
    (r#""stream": 1"#, "stream"),
    (r#""stop_sequences": "a""#, "stop_sequences"),
    (r#""stop_sequences": ["a", ""]"#, "stop_sequences.1"),
    (r#""metadata": 1"#, "metadata"),
    (r#""metadata": {"user_id": 1}"#, "metadata.user_id"),
    (r#""system": 1"#, "system"),
    (r#""system": [{"type": "image"}]"#, "system.0.type"),
    (r#""system": [{"type": "text"}]"#, "system.0.text"),
    (r#""thinking": true"#, "thinking"),
    (r#""thinking": {}"#, "thinking.type"),
    (r#""thinking": {"type": "on"}"#, "thinking.type"),
    (r#""thinking": {"type": "between_tools"}"#, "thinking.type"),
    (
        r#""thinking": {"type": "enabled"}"#,
        "thinking.budget_tokens",
    ),
    (
        r#""thinking": {"type": "enabled", "budget_tokens": -1}"#,
        "thinking.budget_tokens",
    ),
    (
        r#""thinking": {"type": "adaptive", "display": "all"}"#,
        "thinking.display",
    ),
    (
        r#""output_config": {"effort": "none"}"#,
        "output_config.effort",
    ),
    (r#""container": "c""#, "container"),
    (r#""mcp_servers": [{"url": "u"}]"#, "mcp_servers"),
    (r#""mirostat": 1"#, "mirostat"),
    (r#""grammar": "root ::= [0-9]""#, "grammar"),
    (
        r#""response_format": {"type": "yaml"}"#,
        "response_format.type",
    ),
    (r#""tools": {}"#, "tools"),
    (r#""tools": [{}]"#, "tools.0.name"),
    (r#""tools": [{"name": "a b"}]"#, "tools.0.name"),
    (r#""tools": [{"name": "f"}]"#, "tools.0.input_schema"),
    (
        r#""tools": [{"name": "f", "input_schema": 1}]"#,
        "tools.0.input_schema",
    ),
    (
        r#""tools": [{"name": "f", "input_schema": {}, "strict": 1}]"#,
        "tools.0.strict",
    ),
    (
        r#""tools": [{"type": "web_search_20250305", "name": "web_search"}]"#,
        "tools.0.type",
    ),
    (
        r#""tools": [{"type": "bash_20250124", "name": "bash"}]"#,
        "tools.0.type",
    ),
    (r#""tool_choice": "auto""#, "tool_choice"),
    (r#""tool_choice": {}"#, "tool_choice.type"),
    (r#""tool_choice": {"type": "any"}"#, "tool_choice.type"),
    (r#""tool_choice": {"type": "required"}"#, "tool_choice.type"),
    (
        r#""tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "tool"}"#,
        "tool_choice.name",
    ),
    (
        r#""tools": [{"name": "f", "input_schema": {}}],
            "tool_choice": {"type": "tool", "name": "g"}"#,
        "tool_choice.name",
    ),
    (
        r#""output_config": {"format": {}}"#,
        "output_config.format.type",
    ),
    (
        r#""output_config": {"format": {"type": "text"}}"#,
        "output_config.format.type",
    ),
    (
        r#""output_format": {"type": "json_schema"}"#,
        "output_format.schema",
    ),
    (
        r#""tool_choice": {"type": "auto", "disable_parallel_tool_use": 1}"#,
        "tool_choice.disable_parallel_tool_use",
    ),
];

/// Conversations, and the `param` that the error names.
const MESSAGES: &[(&str, &str)] = &[
    ("null", "messages"),
    ("{}", "messages"),
    ("[]", "messages"),
    ("[1]", "messages.0"),
    (r#"[{"content": "a"}]"#, "messages.0.role"),
    (r#"[{"role": "tool", "content": "a"}]"#, "messages.0.role"),
    (r#"[{"role": "user"}]"#, "messages.0.content"),
    (r#"[{"role": "user", "content": 1}]"#, "messages.0.content"),
    (
        r#"[{"role": "user", "content": ["a"]}]"#,
        "messages.0.content.0",
    ),
    (
        r#"[{"role": "user", "content": [{"text": "a"}]}]"#,
        "messages.0.content.0.type",
    ),
    (
        r#"[{"role": "user", "content": [{"type": "image", "source": {}}]}]"#,
        "messages.0.content.0.type",
    ),
    (
        r#"[{"role": "user", "content": "a"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f"}]}]"#,
        "messages.1.content",
    ),
    (r#"[{"role": "system", "content": ""}]"#, "messages"),
    (
        r#"[{"role": "user", "content": "a"},
            {"role": "system", "content": "b", "clear_at": "later"}]"#,
        "messages.1.clear_at",
    ),
    (
        r#"[{"role": "assistant", "content": [{"type": "tool_use", "id": "a"}]}]"#,
        "messages.0.content.0.name",
    ),
];

fn assert_names(body: &str, param: &str) {
    serde_json::from_str::<Value>(body).expect(body);
    let error = ValidMessagesRequest::from_bytes(body.as_bytes(), Refuse).expect_err(body);
    assert_eq!(error.status, 400, "{body}");
    assert_eq!(error.param.as_deref(), Some(param), "{body}: {error}");
    let shape: Value = serde_json::from_str(&error.to_anthropic_json_string(Some("r"))).unwrap();
    assert_eq!(shape["type"], "error");
    assert_eq!(shape["error"]["type"], "invalid_request_error");
    assert!(
        shape["error"]["message"].as_str().unwrap().contains(param),
        "{body}"
    );
    assert_eq!(shape["request_id"], "r");
}

#[test]
fn bad_fields_are_named() {
    for (fields, param) in FIELDS {
        let given = if fields.contains("max_tokens\":") {
            String::new()
        } else {
            "\"max_tokens\": 10, ".to_owned()
        };
        let hello = r#""messages": [{"role": "user", "content": "hello"}]"#;
        assert_names(&format!("{{{given}{hello}, {fields}}}"), param);
    }
}

#[test]
fn bad_messages_are_named() {
    for (messages, param) in MESSAGES {
        assert_names(
            &format!("{{\"max_tokens\": 10, \"messages\": {messages}}}"),
            param,
        );
    }
}

#[test]
fn errors_have_the_types_that_anthropics_clients_know() {
    let cases = [
        (ApiError::unauthorized(), "authentication_error"),
        (ApiError::model_not_found("m"), "not_found_error"),
        (ApiError::route_not_found(), "not_found_error"),
        (ApiError::method_not_allowed(), "invalid_request_error"),
        (ApiError::body_timeout(), "timeout_error"),
        (ApiError::body_too_large(1), "request_too_large"),
        (ApiError::queue_full(1), "rate_limit_error"),
        (ApiError::loading(1), "overloaded_error"),
        (ApiError::draining(1), "overloaded_error"),
        (ApiError::deadline_exceeded(1), "overloaded_error"),
        (ApiError::internal(), "api_error"),
    ];
    for (error, kind) in cases {
        let text = error.to_anthropic_json_string(None);
        let body: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(body["error"]["type"], kind, "{text}");
        assert_eq!(body.get("request_id"), None);
        // Gateways search the text for these as they do in OpenAI's shape.
        assert_eq!(
            text.contains("invalid_request_error"),
            kind == "invalid_request_error"
        );
    }
}

#[test]
fn tools_come_and_go_within_a_conversation() {
    let tool = |name: &str| json!({"name": name, "input_schema": {"type": "object"}});
    let change = |kind: &str, tool: Value| json!({"role": "system", "content": [{"type": kind, "tool": tool}]});
    let refer = |name: &str| json!({"type": "tool_reference", "name": name});
    let define = |tool: Value| json!({"type": "tool_definition", "definition": tool});
    let offered = |changes: &[Value]| -> Vec<String> {
        let mut turns = vec![json!({"role": "user", "content": "a"})];
        turns.extend_from_slice(changes);
        let fields = json!({"tools": [tool("f"), tool("g")], "messages": turns});
        let chat = parse(&body(fields)).unwrap().chat;
        let names = chat
            .tools
            .iter()
            .map(|tool| tool["function"]["name"].as_str().unwrap().to_owned());
        names.collect()
    };
    let added = change("tool_addition", define(tool("h")));
    let removed = change("tool_removal", refer("f"));
    let back = change("tool_addition", refer("f"));
    let hosted = change(
        "tool_addition",
        define(json!({"type": "web_search_20250305", "name": "web_search"})),
    );
    assert_eq!(offered(&[added.clone(), hosted]), ["f", "g", "h"]);
    assert_eq!(offered(&[added.clone(), added.clone()]), ["f", "g", "h"]);
    assert_eq!(offered(std::slice::from_ref(&removed)), ["g"]);
    assert_eq!(offered(&[removed, back.clone()]), ["g", "f"]);
    assert_eq!(offered(&[back]), ["f", "g"]);
    let broken = change("tool_addition", define(json!({"name": "h"})));
    let fields = json!({"messages": [{"role": "user", "content": "a"}, broken]});
    let error = parse(&body(fields)).unwrap_err();
    assert_eq!(
        error.param.as_deref(),
        Some("messages.1.content.0.tool.definition.input_schema")
    );
}
