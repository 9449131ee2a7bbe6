//! Bodies that must be accepted, and what becomes of them.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

use backstop_protocol::UnsupportedContent::Refuse;
use backstop_protocol::{
    CompletionPrompt, OutputFormat, StreamOptions, ToolChoice, ValidChatRequest,
    ValidCompletionRequest,
};
use serde_json::{Value, json};

fn chat(body: Value) -> ValidChatRequest {
    ValidChatRequest::from_bytes(body.to_string().as_bytes(), Refuse).unwrap()
}

fn completion(body: Value) -> ValidCompletionRequest {
    ValidCompletionRequest::from_bytes(body.to_string().as_bytes()).unwrap()
}

/// A chat request with `messages` alone.
fn messages(messages: Value) -> Vec<Value> {
    chat(json!({"messages": messages})).messages
}

#[test]
fn the_smallest_request_leaves_everything_to_the_model() {
    let request = chat(json!({"messages": [{"role": "user", "content": "hello"}]}));
    assert_eq!(
        request.messages,
        [json!({"role": "user", "content": "hello"})]
    );
    assert_eq!(request.model, None);
    assert_eq!(request.stream, None);
    assert!(request.add_generation_prompt && !request.continue_final_message);
    assert!(request.parallel_tool_calls && request.include_reasoning);
    let sampling = &request.sampling;
    assert_eq!(
        (sampling.temperature, sampling.top_p, sampling.max_tokens),
        (None, None, None)
    );
    assert_eq!(
        (sampling.choices, sampling.min_tokens, sampling.logprobs),
        (1, 0, None)
    );
    assert!(sampling.skip_special_tokens && !sampling.ignore_eos);
}

#[test]
fn null_is_absence_and_unknown_fields_are_ignored() {
    let request = chat(json!({
        "model": null, "temperature": null, "top_p": null, "n": null, "stop": null, "seed": null,
        "max_tokens": null, "max_completion_tokens": null, "tools": null, "tool_choice": null,
        "logit_bias": null, "logprobs": null, "top_logprobs": null, "stream": null,
        "stream_options": null, "response_format": null, "user": null, "audio": null,
        "modalities": null, "reasoning_effort": null, "functions": null, "function_call": "auto",
        "prediction": {"type": "content"}, "store": true, "service_tier": 5, "metadata": {},
        "prompt_cache_key": "a", "safety_identifier": "b", "verbosity": "low",
        "web_search_options": {}, "made_up": [1, 2, {"x": null}], "best_of": 1,
        "guided_json": {}, "bad_words": [],
        "messages": [{"role": "user", "content": "a", "name": null, "made_up": 1}],
    }));
    let plain = chat(json!({"messages": [{"role": "user", "content": "a"}]}));
    assert_eq!(request, plain);
}

#[test]
fn sampling_fields_arrive() {
    let request = chat(json!({
        "messages": [{"role": "user", "content": "a"}],
        "temperature": 0.5, "top_p": 0, "top_k": -1, "min_p": 0.1, "repetition_penalty": 1.1,
        "frequency_penalty": -2, "presence_penalty": 2, "seed": -7, "n": 2.0, "best_of": 2,
        "logit_bias": {"07": 1, "3": -100, "7": 100.0}, "stop": ["a", "b"],
        "stop_token_ids": [5, 6.0], "max_tokens": 20, "max_completion_tokens": 10,
        "min_tokens": 3, "ignore_eos": true, "include_stop_str_in_output": true,
        "skip_special_tokens": false, "logprobs": true, "top_logprobs": 20, "stream": true,
        "stream_options": {"include_usage": true}, "priority": -3, "user": "u",
        "cache_salt": "ours",
    }));
    let sampling = request.sampling;
    assert_eq!(sampling.temperature, Some(0.5));
    assert_eq!(sampling.top_p, Some(f32::MIN_POSITIVE));
    assert_eq!(sampling.top_k, Some(0));
    assert_eq!(sampling.repetition_penalty, Some(1.1));
    assert_eq!(sampling.logit_bias, [(3, -100.0), (7, 100.0)]);
    assert_eq!((sampling.seed, sampling.choices), (Some(-7), 2));
    assert_eq!(sampling.stop, ["a", "b"]);
    assert_eq!(sampling.stop_token_ids, [5, 6]);
    assert_eq!((sampling.max_tokens, sampling.min_tokens), (Some(10), 3));
    assert_eq!(sampling.logprobs, Some(20));
    assert_eq!(sampling.cache_salt.as_deref(), Some("ours"));
    assert_eq!(
        request.stream,
        Some(StreamOptions {
            include_usage: true,
            continuous_usage_stats: false
        })
    );
    assert_eq!((request.priority, request.user.as_deref()), (-3, Some("u")));
}

#[test]
fn stream_options_without_a_stream_are_ignored() {
    let body = json!({
        "messages": [{"role": "user", "content": "a"}], "stream": false,
        "stream_options": {"include_usage": true},
    });
    assert_eq!(chat(body).stream, None);
}

#[test]
fn several_parts_stay_and_one_becomes_a_text() {
    let parts = json!([
        {"type": "text", "text": "one", "cache_control": {"type": "ephemeral"}},
        "two",
        {"type": "input_text", "text": "three"},
    ]);
    let found = messages(json!([
        {"role": "developer", "content": parts, "name": "d"},
        {"role": "user", "content": []},
        {"role": "user", "content": ["one"]},
        {"role": "assistant", "content": parts},
    ]));
    assert_eq!(
        found[0],
        json!({"role": "system", "name": "d", "content": [
            {"type": "text", "text": "one"},
            {"type": "text", "text": "two"},
            {"type": "text", "text": "three"},
        ]})
    );
    assert_eq!(found[1]["content"], "");
    assert_eq!(found[2]["content"], "one");
    assert_eq!(found[3]["content"], "one\ntwo\nthree");
}

#[test]
fn reasoning_comes_back_under_any_name() {
    for fields in [
        json!({"reasoning": "why"}),
        json!({"reasoning_content": "why", "reasoning": ""}),
        json!({"thinking": "why"}),
        json!({"thinking_blocks": [
            {"type": "thinking", "thinking": "why", "signature": "s"},
            {"type": "redacted_thinking", "data": "d"},
        ]}),
        json!({"content": [
            {"type": "thinking", "thinking": "why"},
            {"type": "redacted_thinking", "data": "d"},
            {"type": "text", "text": "so"},
        ]}),
    ] {
        let mut message = json!({"role": "assistant", "content": "so"});
        for (name, value) in fields.as_object().unwrap() {
            message[name] = value.clone();
        }
        let expected = json!({
            "role": "assistant", "content": "so", "reasoning": "why", "reasoning_content": "why",
        });
        assert_eq!(messages(json!([message])), [expected]);
    }
}

#[test]
fn tool_calls_arrive_with_parsed_arguments() {
    let call = |arguments: Value| json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}});
    for (sent, kept) in [
        (json!("{\"z\": 1, \"a\": 2}"), json!({"z": 1, "a": 2})),
        (json!({"x": 1}), json!({"x": 1})),
        (json!(""), json!({})),
        (Value::Null, json!({})),
        (json!("{broken"), json!("{broken")),
        (json!("[1]"), json!("[1]")),
    ] {
        let found = messages(json!([
            {"role": "assistant", "content": null, "tool_calls": [call(sent)]},
            {"role": "tool", "content": null, "tool_call_id": "a"},
        ]));
        assert_eq!(
            found[0],
            json!({"role": "assistant", "content": "", "tool_calls": [call(kept)]})
        );
        assert_eq!(
            found[1],
            json!({"role": "tool", "content": "", "tool_call_id": "a"})
        );
    }
}

#[test]
fn legacy_function_messages_become_tool_messages() {
    let found = messages(json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
    ]));
    assert_eq!(found[1]["tool_calls"][0]["id"], found[2]["tool_call_id"]);
    assert_eq!(found[2]["role"], "tool");
    assert_eq!(found[2]["name"], "f");
}

#[test]
fn output_formats_have_several_names() {
    let format = |fields: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "a"}]});
        let entries = fields.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(entries);
        let request = chat(body);
        (
            request.output_format,
            request.constraint_paths.output_format,
        )
    };
    let schema = json!({"type": "object"});
    let json_schema = || OutputFormat::JsonSchema(schema.clone());
    let choice = || OutputFormat::Choice(vec!["a".to_owned()]);
    let regex = || OutputFormat::Regex("a+".to_owned());
    let cases = [
        (
            json!({"response_format": {"type": "text"}}),
            OutputFormat::Text,
            "response_format",
        ),
        (
            json!({"response_format": {"type": "json_object"}}),
            OutputFormat::JsonObject,
            "response_format",
        ),
        (
            json!({"response_format": {"type": "json_schema",
                   "json_schema": {"name": "n", "strict": false, "schema": schema}}}),
            json_schema(),
            "response_format.json_schema.schema",
        ),
        (
            json!({"guided_json": "{\"type\": \"object\"}"}),
            json_schema(),
            "guided_json",
        ),
        (
            json!({"guided_json": schema, "guided_regex": ""}),
            json_schema(),
            "guided_json",
        ),
        (json!({"guided_regex": "a+"}), regex(), "guided_regex"),
        (json!({"guided_choice": ["a"]}), choice(), "guided_choice"),
        (
            json!({"guided_grammar": "start: A"}),
            OutputFormat::Grammar("start: A".to_owned()),
            "guided_grammar",
        ),
        (
            json!({"structured_outputs": {"json_object": true}}),
            OutputFormat::JsonObject,
            "structured_outputs.json_object",
        ),
        (
            json!({"structured_outputs": {"choice": ["a"], "json": null}}),
            choice(),
            "structured_outputs.choice",
        ),
        (
            json!({"structured_outputs": {"regex": "a+"}}),
            regex(),
            "structured_outputs.regex",
        ),
        (
            json!({"structured_outputs": {}}),
            OutputFormat::Text,
            "response_format",
        ),
    ];
    for (fields, expected, path) in cases {
        assert_eq!(format(fields.clone()), (expected, path), "{fields}");
    }
}

#[test]
fn the_choice_between_tools_has_several_forms() {
    let choice = |choice: Value| {
        let tools =
            json!([{"function": {"name": "f", "strict": true}}, {"function": {"name": "g"}}]);
        let messages = json!([{"role": "user", "content": "a"}]);
        chat(json!({"messages": messages, "tools": tools, "tool_choice": choice}))
    };
    let named = ToolChoice::Function("g".to_owned());
    let cases = [
        (json!("required"), ToolChoice::Required),
        (json!("any"), ToolChoice::Required),
        (
            json!({"type": "function", "function": {"name": "g"}}),
            named.clone(),
        ),
        (json!({"type": "function", "name": "g"}), named),
    ];
    for (form, expected) in cases {
        let request = choice(form);
        assert_eq!(request.tool_choice, expected);
        assert_eq!(request.strict_tools, ["f"]);
        assert_eq!(request.allowed_tools, None);
    }
    let limited =
        json!({"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]});
    let request = choice(json!({"type": "allowed_tools", "allowed_tools": limited}));
    assert_eq!(request.tool_choice, ToolChoice::Required);
    assert_eq!(request.allowed_tools.unwrap(), ["g"]);
    assert_eq!(request.tools.len(), 2);
}

#[test]
fn legacy_functions_become_tools() {
    let request = chat(json!({
        "messages": [{"role": "user", "content": "a"}],
        "functions": [{"name": "f", "parameters": {"type": "object"}}],
        "function_call": {"name": "f"},
    }));
    assert!(request.legacy_functions && !request.parallel_tool_calls);
    assert_eq!(request.tools[0]["function"]["name"], "f");
    assert_eq!(request.tool_choice, ToolChoice::Function("f".to_owned()));
    assert_eq!(
        request.constraint_paths.tool_schema(0),
        "functions.0.parameters"
    );
}

#[test]
fn tools_are_completed() {
    let body = |choice: Value| {
        json!({
            "messages": [{"role": "user", "content": "a"}],
            "tools": [
                {"type": "function", "function": {"name": "mcp__a.b-c", "strict": true}},
                {"function": {"name": "g", "description": "d", "parameters": {"z": 1, "a": 2}}},
            ],
            "tool_choice": choice,
        })
    };
    let request = chat(body(json!("auto")));
    let function = |index: usize| &request.tools[index]["function"];
    assert_eq!(
        function(0),
        &json!({
            "name": "mcp__a.b-c", "description": "",
            "parameters": {"type": "object", "properties": {}},
        })
    );
    assert_eq!(function(1)["parameters"].to_string(), "{\"z\":1,\"a\":2}");
    assert_eq!(request.offered_tools().len(), 2);
    let request = chat(body(json!("none")));
    assert_eq!(request.tool_choice, ToolChoice::None);
    assert!(request.offered_tools().is_empty());
}

#[test]
fn a_prefix_continues_the_final_message() {
    let conversation = |first: Value| {
        json!({"messages": [
            {"role": "user", "content": "a"},
            first,
            {"role": "assistant", "content": "b", "prefix": true},
        ]})
    };
    for first in [
        json!({"role": "user", "content": "c"}),
        json!({"role": "assistant", "content": "c", "prefix": true}),
    ] {
        let request = chat(conversation(first));
        assert!(request.continue_final_message && !request.add_generation_prompt);
        assert!(request.messages[2].get("prefix").is_none());
    }
    let mut body = conversation(json!({"role": "user", "content": "c"}));
    body["messages"][2]["prefix"] = json!(false);
    assert!(chat(body.clone()).add_generation_prompt);
    body["continue_final_message"] = json!(true);
    assert!(chat(body.clone()).continue_final_message);
    body["continue_final_message"] = json!(false);
    body["add_generation_prompt"] = json!(false);
    let request = chat(body);
    assert!(!request.continue_final_message && !request.add_generation_prompt);
}

#[test]
fn template_variables_arrive() {
    let request = chat(json!({
        "messages": [{"role": "user", "content": "a"}],
        "chat_template": "tool_use",
        "chat_template_kwargs": {"reasoning": false, "depth": 3},
        "reasoning_effort": "none", "include_reasoning": false, "documents": [{"text": "d"}],
        "parallel_tool_calls": false, "modalities": ["text"], "response_format": {"type": "text"},
    }));
    assert_eq!(request.chat_template.as_deref(), Some("tool_use"));
    assert_eq!(
        Value::Object(request.chat_template_kwargs),
        json!({"reasoning": false, "depth": 3})
    );
    assert_eq!(request.reasoning_effort, Some("none"));
    assert_eq!(request.documents, [json!({"text": "d"})]);
    assert!(!request.include_reasoning && !request.parallel_tool_calls);
}

#[test]
fn prompts_come_in_four_forms() {
    let text = |text: &str| CompletionPrompt::Text(text.to_owned());
    let prompts = |prompt: Value| completion(json!({"prompt": prompt})).prompts;
    assert_eq!(prompts(json!("")), [text("")]);
    assert_eq!(prompts(json!(["a", "b"])), [text("a"), text("b")]);
    assert_eq!(
        prompts(json!([1, 2])),
        [CompletionPrompt::Tokens(vec![1, 2])]
    );
    assert_eq!(
        prompts(json!([[1], [2, 3]])),
        [
            CompletionPrompt::Tokens(vec![1]),
            CompletionPrompt::Tokens(vec![2, 3])
        ]
    );
}

#[test]
fn completion_fields_arrive() {
    let request = completion(json!({
        "model": "m", "prompt": "a", "suffix": "", "logprobs": 0, "echo": false, "max_tokens": 1,
        "add_special_tokens": false, "stream": true,
        "stream_options": {"continuous_usage_stats": true},
    }));
    assert_eq!(request.sampling.logprobs, Some(0));
    assert_eq!(request.model.as_deref(), Some("m"));
    assert!(!request.add_special_tokens && !request.echo);
    assert!(request.stream.unwrap().continuous_usage_stats);
    let echoed = completion(json!({"prompt": "a", "echo": true, "logprobs": 2, "max_tokens": 0}));
    assert!(echoed.echo);
    assert_eq!(echoed.sampling.prompt_logprobs, Some(2));
    assert_eq!(echoed.sampling.max_tokens, Some(0));
    assert_eq!(request.sampling.prompt_logprobs, None);
}

#[test]
fn completions_have_16_tokens_unless_they_say() {
    let request = completion(json!({"prompt": "a", "min_tokens": 16}));
    assert_eq!(request.sampling.max_tokens, None);
    assert_eq!(request.sampling.default_max_tokens, Some(16));
    let request = completion(json!({"prompt": "a", "n_predict": -1}));
    assert_eq!(request.sampling.max_tokens, None);
    assert_eq!(request.sampling.default_max_tokens, None);
    let request = completion(json!({"prompt": "a", "max_tokens": 17, "min_tokens": 17}));
    assert_eq!(request.sampling.max_tokens, Some(17));
}

#[test]
fn a_suffix_goes_with_anything_but_the_prompts_log_probabilities() {
    let request = completion(json!({"prompt": ["a", "b"], "suffix": "c", "echo": true, "n": 2}));
    assert_eq!(request.suffix.as_deref(), Some("c"));
    let request = completion(json!({"prompt": [1, 2], "suffix": "c", "logprobs": 1}));
    assert_eq!(request.suffix.as_deref(), Some("c"));
    for none in [
        json!({"prompt": "a", "suffix": ""}),
        json!({"prompt": "a", "suffix": null}),
    ] {
        assert_eq!(completion(none).suffix, None);
    }
}

#[test]
fn fields_of_other_servers_arrive_by_their_names() {
    let said = |fields: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "a"}]});
        let fields = fields.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(fields);
        chat(body)
    };
    let sampling = said(json!({
        "repeat_penalty": 1.2, "random_seed": 7, "n_predict": 5, "max_tokens": 9,
        "logit_bias": [[3, -1.5], [5, false], [3, 2]],
    }))
    .sampling;
    assert_eq!(sampling.repetition_penalty, Some(1.2));
    assert_eq!((sampling.seed, sampling.max_tokens), (Some(7), Some(5)));
    assert_eq!(sampling.logit_bias, [(3, 2.0), (5, -100.0)]);
    assert_eq!(said(json!({"n_predict": -1})).sampling.max_tokens, None);
    assert!(!said(json!({"reasoning_format": "hidden"})).include_reasoning);
    assert!(said(json!({"reasoning_format": "parsed"})).include_reasoning);
    // What asks for nothing is ignored, and so is what only tunes or labels.
    let neutral = said(json!({
        "mirostat": 0, "typical_p": 1.0, "top_a": 0, "tfs_z": 1, "dry_multiplier": 0.0, "dry_base": 1.75,
        "xtc_probability": 0, "xtc_threshold": 0.1, "top_n_sigma": -1, "n_probs": 0, "watermark": false,
        "safe_prompt": false, "separate_reasoning": true, "parse_tool_calls": true, "lora": [],
        "transforms": ["middle-out"], "models": ["a", "b"], "provider": {"order": ["x"]}, "route": "fallback",
        "cache_prompt": true, "id_slot": 0, "prompt_cache_options": {}, "kv_transfer_params": {},
    }));
    assert_eq!(neutral, said(json!({})));
}

#[test]
fn schemas_are_found_wherever_other_servers_have_them() {
    let schema = json!({"type": "object", "required": ["a"]});
    let text = schema.to_string();
    let asked = |fields: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "a"}]});
        let fields = fields.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(fields);
        let request = chat(body);
        (
            request.output_format,
            request.constraint_paths.output_format,
        )
    };
    for (fields, path) in [
        (
            json!({"response_format": {"type": "json_object", "schema": schema}}),
            "response_format.schema",
        ),
        (
            json!({"response_format": {"type": "json_object", "schema": text}}),
            "response_format.schema",
        ),
        (
            json!({"response_format": {"type": "json_schema", "schema": schema}}),
            "response_format.schema",
        ),
        (
            json!({"response_format": {"type": "json", "value": schema}}),
            "response_format.value",
        ),
        (json!({"json_schema": schema}), "json_schema"),
        (json!({"json_schema": text}), "json_schema"),
    ] {
        let expected = (OutputFormat::JsonSchema(schema.clone()), path);
        assert_eq!(asked(fields.clone()), expected, "{fields}");
    }
    let any = json!({"response_format": {"type": "json_object", "schema": {}}});
    assert_eq!(asked(any).0, OutputFormat::JsonObject);
    for fields in [
        json!({"regex": "a+"}),
        json!({"response_format": {"type": "regex", "pattern": "a+"}}),
        json!({"response_format": {"type": "regex", "value": "a+"}}),
    ] {
        assert_eq!(asked(fields).0, OutputFormat::Regex("a+".to_owned()));
    }
}
