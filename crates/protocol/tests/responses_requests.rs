//! Bodies of `POST /v1/responses`: what becomes of good ones, and what bad ones are told.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

use backstop_protocol::UnsupportedContent::Refuse;
use backstop_protocol::responses::{ToolKind, ValidResponsesRequest};
use backstop_protocol::{ApiError, OutputFormat, ToolChoice};
use serde_json::{Value, json};

fn parse(body: &Value) -> Result<ValidResponsesRequest, ApiError> {
    ValidResponsesRequest::from_bytes(body.to_string().as_bytes(), Refuse)
}

fn good(body: Value) -> ValidResponsesRequest {
    parse(&body).unwrap()
}

/// The messages that these items become.
fn messages(items: Value) -> Vec<Value> {
    good(json!({"input": items})).chat.messages
}

/// The path that the error about this body names.
fn refused(body: &Value) -> String {
    let error = parse(body).unwrap_err();
    assert_eq!((error.status, error.kind), (400, "invalid_request_error"));
    error.param.unwrap_or_default()
}

#[test]
fn a_text_is_a_users_message_after_the_instructions() {
    let request = good(json!({"model": "m", "instructions": "Be brief.", "input": "Hi"}));
    assert_eq!(
        request.chat.messages,
        [
            json!({"role": "system", "content": "Be brief."}),
            json!({"role": "user", "content": "Hi"}),
        ]
    );
    assert_eq!(request.chat.model.as_deref(), Some("m"));
    assert_eq!(request.chat.stream, None);
    assert!(request.chat.parallel_tool_calls);
    assert_eq!(request.reasoning, Default::default());
}

#[test]
fn messages_come_in_every_form_that_clients_send() {
    let items = json!([
        {"role": "developer", "content": "Rules"},
        {"type": "message", "role": "user", "status": "completed", "id": "msg_1", "content": [
            {"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"type": "message", "role": "assistant", "phase": "final_answer", "content": [
            {"type": "output_text", "text": "c", "annotations": [], "logprobs": []},
            {"type": "refusal", "refusal": "no"}]},
        {"role": "assistant", "content": "d"},
        {"role": "system", "content": "More rules"},
    ]);
    let expected = [
        json!({"role": "system", "content": "Rules"}),
        json!({"role": "user", "content": "a\nb"}),
        json!({"role": "assistant", "content": "c\nno"}),
        json!({"role": "assistant", "content": "d"}),
        json!({"role": "system", "content": "More rules"}),
    ];
    assert_eq!(messages(items), expected);
}

#[test]
fn a_turn_of_reasoning_text_and_calls_is_one_message() {
    let items = json!([
        {"role": "user", "content": "Weather?"},
        {"type": "reasoning", "id": "rs_1", "summary": [],
         "content": [{"type": "reasoning_text", "text": "I look"}]},
        {"type": "message", "role": "assistant", "content": "One moment."},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look",
         "arguments": "{\"at\": \"x\"}", "status": "completed"},
        {"type": "function_call", "call_id": "call_2", "name": "look", "arguments": "not json"},
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
        {"type": "function_call_output", "call_id": "call_2", "output": [
            {"type": "input_text", "text": "one"}, {"type": "output_text", "text": "two"},
            {"type": "input_image", "image_url": "data:"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Now I know"}]},
        {"type": "reasoning", "summary": [], "encrypted_content": "somebody else's"},
        {"type": "function_call", "call_id": "call_3", "name": "tell", "arguments": ""},
    ]);
    let call = |id: &str, name: &str, arguments: Value| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let not_text = "[image: cannot be shown to this model]";
    let expected = [
        json!({"role": "user", "content": "Weather?"}),
        json!({
            "role": "assistant", "content": "One moment.",
            "reasoning": "I look", "reasoning_content": "I look",
            "tool_calls": [
                call("call_1", "look", json!({"at": "x"})),
                call("call_2", "look", json!("not json")),
            ],
        }),
        json!({"role": "tool", "content": "sunny", "tool_call_id": "call_1"}),
        json!({"role": "tool", "content": format!("one\ntwo\n{not_text}"),
               "tool_call_id": "call_2"}),
        json!({
            "role": "assistant", "content": "", "reasoning": "Now I know",
            "reasoning_content": "Now I know", "tool_calls": [call("call_3", "tell", json!({}))],
        }),
    ];
    assert_eq!(messages(items), expected);
}

#[test]
fn other_clients_tools_stay_in_the_history() {
    let items = json!([
        {"role": "user", "content": "Go"},
        {"type": "custom_tool_call", "call_id": "1", "name": "exec", "namespace": "functions",
         "input": "text(1)"},
        {"type": "custom_tool_call_output", "call_id": "1", "output": "1"},
        {"type": "local_shell_call", "id": "x", "call_id": "2", "status": "completed",
         "action": {"type": "exec", "command": ["ls"], "env": {}}},
        {"type": "local_shell_call_output", "id": "2", "output": "a.txt"},
        {"type": "shell_call", "call_id": "3", "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", "call_id": "3",
         "output": [{"stdout": "b", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]},
        {"type": "apply_patch_call", "call_id": "4", "status": "completed",
         "operation": {"type": "delete_file", "path": "a.txt"}},
        {"type": "apply_patch_call_output", "call_id": "4", "status": "completed"},
        {"type": "web_search_call", "id": "ws", "status": "completed", "action": {}},
        {"role": "user", "content": "Go on"},
    ]);
    let messages = messages(items);
    let called: Vec<_> = messages
        .iter()
        .filter_map(|message| message["tool_calls"][0]["function"]["name"].as_str())
        .collect();
    assert_eq!(
        called,
        ["functions.exec", "local_shell", "shell", "apply_patch"]
    );
    let results: Vec<_> = messages
        .iter()
        .filter(|message| message["role"] == "tool")
        .map(|message| {
            (
                message["tool_call_id"].as_str(),
                message["content"].as_str(),
            )
        })
        .collect();
    let outcome = r#"{"stdout":"b","stderr":"","outcome":{"type":"exit","exit_code":0}}"#;
    assert_eq!(
        results,
        [
            (Some("1"), Some("1")),
            (Some("2"), Some("a.txt")),
            (Some("3"), Some(outcome)),
            (Some("4"), Some("completed")),
        ]
    );
}

#[test]
fn tools_of_every_kind_become_functions_and_are_told_apart_again() {
    let function = |name: &str| {
        json!({"type": "function", "name": name, "strict": true,
        "description": "d", "parameters": {"type": "object"}})
    };
    let request = good(json!({
        "tools": [
            function("look"),
            {"type": "custom", "name": "patch", "description": "Edits.", "format":
                {"type": "grammar", "syntax": "lark", "definition": "start: /x/"}},
            {"type": "namespace", "name": "agents", "description": "", "tools": [function("spawn")]},
            {"type": "tool_search", "execution": "client", "description": "Finds tools.",
             "parameters": {"type": "object"}},
            {"type": "web_search", "external_web_access": false},
        ],
        "input": [
            {"type": "additional_tools", "role": "developer", "tools": [function("late")]},
            {"role": "user", "content": "Go"},
            {"type": "tool_search_call", "call_id": "1", "execution": "client",
             "arguments": {"query": "q"}},
            {"type": "tool_search_output", "call_id": "1", "execution": "client", "tools":
                [{"type": "namespace", "name": "agents", "tools": [function("wait")]}]},
        ],
    }));
    let names: Vec<_> = request
        .chat
        .tools
        .iter()
        .map(|tool| tool["function"]["name"].as_str().unwrap())
        .collect();
    let expected = [
        "look",
        "patch",
        "agents.spawn",
        "tool_search",
        "late",
        "agents.wait",
    ];
    assert_eq!(names, expected);
    let patch = &request.chat.tools[1]["function"];
    assert!(
        patch["description"]
            .as_str()
            .unwrap()
            .contains("start: /x/")
    );
    assert_eq!(patch["parameters"]["required"], json!(["input"]));
    let kinds = names.iter().map(|name| request.tools.origin(name).kind);
    assert_eq!(
        kinds.collect::<Vec<_>>(),
        [
            ToolKind::Function,
            ToolKind::Custom,
            ToolKind::Function,
            ToolKind::Search,
            ToolKind::Function,
            ToolKind::Function,
        ]
    );
    let spawn = request.tools.origin("agents.spawn");
    assert_eq!(
        (spawn.name.as_str(), spawn.namespace.as_deref()),
        ("spawn", Some("agents"))
    );
    assert_eq!(request.tools.origin("made.up").name, "made.up");
    assert_eq!(
        request.chat.messages.last().unwrap()["content"],
        r#"{"found":["agents.wait"]}"#
    );
    let echo = serde_json::to_value(&request.echo).unwrap();
    let echoed = echo["tools"].as_array().unwrap();
    assert!(echoed.iter().all(|tool| tool["type"] != "web_search"));
}

#[test]
fn allowed_tools_stay_beside_the_others() {
    let tool = |name: &str| json!({"type": "function", "name": name});
    let request = good(json!({
        "input": "Go", "tools": [tool("a"), tool("b"), {"type": "web_search"}],
        "tool_choice": {"type": "allowed_tools", "mode": "auto",
                        "tools": [tool("b"), {"type": "web_search"}]},
    }));
    assert_eq!(request.chat.tools.len(), 2);
    assert_eq!(request.chat.allowed_tools.unwrap(), ["b"]);
}

#[test]
fn settings_arrive_and_are_echoed() {
    let request = good(json!({
        "input": "Hi", "max_output_tokens": 20, "temperature": 0.5, "top_p": 0.9, "stream": true,
        "stream_options": {"include_obfuscation": false}, "truncation": "auto", "store": true,
        "reasoning": {"effort": "low", "summary": "auto"}, "parallel_tool_calls": false,
        "include": ["reasoning.encrypted_content", "web_search_call.results"],
        "metadata": {"a": "b"}, "user": "u", "prompt_cache_key": "k", "safety_identifier": "s",
        "text": {"format": {"type": "text"}, "verbosity": "low"}, "tool_choice": "none",
        "service_tier": "auto", "client_metadata": {"x": 1}, "made_up": 5, "max_tool_calls": 3,
        "background": false, "previous_response_id": null, "seed": 7, "stop": ["x"],
    }));
    let chat = &request.chat;
    assert_eq!(chat.sampling.max_tokens, Some(20));
    assert_eq!(chat.sampling.temperature, Some(0.5));
    assert_eq!((chat.sampling.seed, chat.sampling.stop.len()), (Some(7), 1));
    assert_eq!(chat.reasoning_effort, Some("low"));
    assert!(chat.stream.is_some() && !chat.parallel_tool_calls);
    assert!(request.reasoning.as_summary && request.reasoning.with_encrypted_content);
    let echo = serde_json::to_value(&request.echo).unwrap();
    let expected = json!({
        "instructions": null, "max_output_tokens": 20, "temperature": 0.5, "top_p": 0.9,
        "top_logprobs": 0, "tools": [], "tool_choice": "none", "parallel_tool_calls": false,
        "text": {"format": {"type": "text"}},
        "reasoning": {"effort": "low", "summary": "auto"},
        "metadata": {"a": "b"}, "user": "u", "prompt_cache_key": "k", "safety_identifier": "s",
        "truncation": "disabled", "service_tier": "default", "store": false, "background": false,
        "previous_response_id": null,
    });
    for (name, value) in expected.as_object().unwrap() {
        // 0.9 is not the same in 32 bits.
        if name != "top_p" {
            assert_eq!(&echo[name], value, "{name}");
        }
    }
}

/// Fields beside a good input, and the `param` that the error names.
const BAD_FIELDS: &[(&str, &str)] = &[
    (r#""model": 5"#, "model"),
    (r#""instructions": ["a"]"#, "instructions"),
    (r#""max_output_tokens": 0"#, "max_output_tokens"),
    (r#""max_output_tokens": "5""#, "max_output_tokens"),
    (r#""max_output_tokens": 4, "min_tokens": 5"#, "min_tokens"),
    (r#""temperature": 3"#, "temperature"),
    (r#""top_p": "1""#, "top_p"),
    (r#""n": 2"#, "n"),
    (r#""stream": "yes""#, "stream"),
    (r#""store": "yes""#, "store"),
    (r#""truncation": "middle""#, "truncation"),
    (r#""background": true"#, "background"),
    (r#""conversation": "conv_1""#, "conversation"),
    (r#""conversation": {"id": "conv_1"}"#, "conversation"),
    (r#""prompt": {"id": "p"}"#, "prompt"),
    (
        r#""previous_response_id": "resp_1""#,
        "previous_response_id",
    ),
    (
        r#""context_management": [{"type": "compaction"}]"#,
        "context_management",
    ),
    (r#""moderation": {"model": "m"}"#, "moderation"),
    (r#""include": "all""#, "include"),
    (
        r#""include": ["reasoning.encrypted_content", "x"]"#,
        "include.1",
    ),
    (r#""metadata": {"a": 1}"#, "metadata"),
    (r#""metadata": []"#, "metadata"),
    (r#""reasoning": "low""#, "reasoning"),
    (r#""reasoning": {"effort": "huge"}"#, "reasoning.effort"),
    (r#""reasoning": {"summary": true}"#, "reasoning.summary"),
    (
        r#""reasoning": {"generate_summary": "long"}"#,
        "reasoning.generate_summary",
    ),
    (r#""text": "json""#, "text"),
    (r#""text": {"format": {}}"#, "text.format.type"),
    (r#""text": {"format": {"type": "xml"}}"#, "text.format.type"),
    (
        r#""text": {"format": {"type": "json_schema"}}"#,
        "text.format.schema",
    ),
    (r#""tools": {}"#, "tools"),
    (r#""tools": [{}]"#, "tools.0.type"),
    (r#""tools": [{"type": "made_up"}]"#, "tools.0.type"),
    (r#""tools": [{"type": "function"}]"#, "tools.0.name"),
    (
        r#""tools": [{"type": "function", "name": "a b"}]"#,
        "tools.0.name",
    ),
    (
        r#""tools": [{"type": "function", "name": "a", "strict": 1}]"#,
        "tools.0.strict",
    ),
    (
        r#""tools": [{"type": "function", "name": "a", "parameters": 1}]"#,
        "tools.0.parameters",
    ),
    (
        r#""tools": [{"type": "custom", "name": "a", "format": 1}]"#,
        "tools.0.format",
    ),
    (
        r#""tools": [{"type": "namespace", "tools": []}]"#,
        "tools.0.name",
    ),
    (
        r#""tools": [{"type": "namespace", "name": "n", "tools": [{"type": "function"}]}]"#,
        "tools.0.tools.0.name",
    ),
    (r#""tool_choice": "perhaps""#, "tool_choice"),
    (r#""tool_choice": 5"#, "tool_choice"),
    (r#""tool_choice": "required""#, "tool_choice"),
    (r#""tool_choice": {}"#, "tool_choice.type"),
    (
        r#""tool_choice": {"type": "web_search"}"#,
        "tool_choice.type",
    ),
    (r#""tool_choice": {"type": "function"}"#, "tool_choice.name"),
    (
        r#""tool_choice": {"type": "function", "name": "f"}"#,
        "tool_choice.name",
    ),
    (
        r#""tool_choice": {"type": "allowed_tools"}"#,
        "tool_choice.tools",
    ),
    (
        r#""tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "f"}]}"#,
        "tool_choice.tools.0.name",
    ),
];

/// Items, and the `param` that the error names.
const BAD_ITEMS: &[(&str, &str)] = &[
    ("5", "input"),
    ("[]", "input"),
    ("[5]", "input.0"),
    ("[{}]", "input.0.type"),
    (r#"[{"type": "compaction_trigger"}]"#, "input.0.type"),
    (r#"[{"type": "message", "content": "a"}]"#, "input.0.role"),
    (r#"[{"role": "tool", "content": "a"}]"#, "input.0.role"),
    (r#"[{"role": "user"}]"#, "input.0.content"),
    (r#"[{"role": "user", "content": 5}]"#, "input.0.content"),
    (r#"[{"role": "user", "content": [5]}]"#, "input.0.content.0"),
    (
        r#"[{"role": "user", "content": [{"text": "a"}]}]"#,
        "input.0.content.0.type",
    ),
    (
        r#"[{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]"#,
        "input.0.content.0.type",
    ),
    (
        r#"[{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]"#,
        "input.0.content.0.type",
    ),
    (
        r#"[{"role": "user", "content": [{"type": "input_text"}]}]"#,
        "input.0.content.0.text",
    ),
    (
        r#"[{"type": "function_call", "call_id": "1", "arguments": ""}]"#,
        "input.0.name",
    ),
    (
        r#"[{"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text"}]}]"#,
        "input.0.output.0.text",
    ),
    (
        r#"[{"type": "additional_tools", "tools": [{}]}]"#,
        "input.0.tools.0.type",
    ),
];

#[test]
fn bad_fields_are_named() {
    for (fields, param) in BAD_FIELDS {
        let text = format!(r#"{{"input": "Hi", {fields}}}"#);
        let body = serde_json::from_str(&text).unwrap();
        assert_eq!(refused(&body), *param, "{fields}");
    }
    assert_eq!(refused(&json!({})), "input");
}

#[test]
fn bad_items_are_named() {
    for (items, param) in BAD_ITEMS {
        let items: Value = serde_json::from_str(items).unwrap();
        assert_eq!(refused(&json!({"input": items})), *param, "{items}");
    }
}

#[test]
fn what_an_answer_must_look_like_arrives() {
    let tools = json!([
        {"type": "function", "name": "f", "strict": true}, {"type": "custom", "name": "c"},
        {"type": "web_search"},
    ]);
    let choice = |choice: Value| {
        let body = json!({"input": "Hi", "tools": tools, "tool_choice": choice});
        good(body).chat
    };
    assert_eq!(choice(json!("required")).tool_choice, ToolChoice::Required);
    assert_eq!(choice(json!("none")).strict_tools, ["f"]);
    for kind in [("function", "f"), ("custom", "c")] {
        let named = choice(json!({"type": kind.0, "name": kind.1}));
        assert_eq!(named.tool_choice, ToolChoice::Function(kind.1.into()));
    }
    let hosted = json!({"type": "allowed_tools", "tools": [{"type": "web_search"}]});
    assert_eq!(choice(hosted).tool_choice, ToolChoice::None);

    let format = |format: Value| {
        let chat = good(json!({"input": "Hi", "text": {"format": format}})).chat;
        (chat.output_format, chat.constraint_paths.output_format)
    };
    let schema = json!({"type": "object"});
    let asked = json!({"type": "json_schema", "name": "s", "schema": schema, "strict": true});
    let expected = (OutputFormat::JsonSchema(schema), "text.format.schema");
    assert_eq!(format(asked), expected);
    let expected = (OutputFormat::JsonObject, "text.format");
    assert_eq!(format(json!({"type": "json_object"})), expected);
    let both = json!({"input": "Hi", "text": {"format": {"type": "json_object"}},
                      "guided_regex": "a"});
    assert_eq!(refused(&both), "guided_regex");
}

#[test]
fn the_last_update_of_a_setting_counts() {
    let schema = json!({"type": "object"});
    let update = |settings: Value| {
        let mut item = json!({"type": "configuration_update"});
        item.as_object_mut()
            .unwrap()
            .extend(settings.as_object().unwrap().clone());
        item
    };
    let request = good(json!({
        "reasoning": {"effort": "low", "summary": "auto"},
        "input": [
            update(json!({"reasoning": {"effort": "medium"}})),
            {"role": "user", "content": "a"},
            update(json!({"text": {"format": {"type": "json_schema", "name": "s", "schema": schema}}})),
            update(json!({"reasoning": {"effort": "high"}, "text": null})),
            {"role": "user", "content": "b"},
        ],
    }));
    assert_eq!(request.chat.reasoning_effort, Some("high"));
    assert!(request.reasoning.as_summary);
    assert_eq!(request.chat.output_format, OutputFormat::JsonSchema(schema));
    assert_eq!(request.chat.messages.len(), 2);
    let wrong = json!({"input": [{"role": "user", "content": "a"},
        update(json!({"reasoning": {"effort": "huge"}}))]});
    assert_eq!(refused(&wrong), "reasoning.effort");
    let none = json!({"reasoning": "low", "input": [{"role": "user", "content": "a"},
        update(json!({"reasoning": {"effort": "high"}}))]});
    assert_eq!(refused(&none), "reasoning");
}
