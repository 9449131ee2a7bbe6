//! Requests of Ollama's API: what they become, and what is refused.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

use backstop_protocol::UnsupportedContent::{self, Note, Refuse};
use backstop_protocol::ollama::{OllamaChat, OllamaLoad, OllamaTask, ValidShowRequest};
use backstop_protocol::{ApiError, CompletionPrompt, OutputFormat};
use serde_json::{Value, json};

fn chat_task(body: &Value) -> Result<OllamaTask, ApiError> {
    OllamaTask::of_chat(body.to_string().as_bytes(), Refuse)
}

fn generation_task(body: &Value) -> Result<OllamaTask, ApiError> {
    OllamaTask::of_generation(body.to_string().as_bytes(), Refuse)
}

fn conversation(task: OllamaTask) -> OllamaChat {
    match task {
        OllamaTask::Chat(chat) => *chat,
        other => panic!("no chat: {other:?}"),
    }
}

/// A chat with one message and these fields.
fn chat(fields: Value) -> OllamaChat {
    let mut body = json!({"messages": [{"role": "user", "content": "Hi"}]});
    let fields = fields.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(fields);
    conversation(chat_task(&body).unwrap())
}

fn messages(messages: Value) -> Vec<Value> {
    let body = json!({"messages": messages});
    conversation(chat_task(&body).unwrap()).chat.messages
}

#[test]
fn options_are_sampling() {
    let options = json!({
        "temperature": 0, "top_p": 0.5, "top_k": 40, "min_p": 0.1, "seed": 7, "stop": ["a", "b"],
        "repeat_penalty": 1.5, "presence_penalty": 1, "frequency_penalty": -1, "num_predict": 9,
        "num_ctx": 2048, "num_gpu": -1, "mirostat": 0, "typical_p": 1.0, "repeat_last_n": 64,
        "made_up": {"a": 1},
    });
    let asked = chat(json!({"options": options}));
    let sampling = &asked.chat.sampling;
    assert_eq!(sampling.temperature, Some(0.0));
    assert_eq!((sampling.top_p, sampling.top_k), (Some(0.5), Some(40)));
    assert_eq!((sampling.min_p, sampling.seed), (Some(0.1), Some(7)));
    assert_eq!(sampling.stop, ["a", "b"]);
    assert_eq!(sampling.repetition_penalty, Some(1.5));
    let penalties = (sampling.presence_penalty, sampling.frequency_penalty);
    assert_eq!(penalties, (Some(1.0), Some(-1.0)));
    assert_eq!((asked.max_tokens, sampling.max_tokens), (Some(9), None));
}

#[test]
fn what_options_leave_open_is_the_model_s_to_say() {
    let asked = chat(json!({"options": {"seed": -1, "num_predict": -1}}));
    assert_eq!(asked.chat.sampling, chat(json!({})).chat.sampling);
    for endless in [-2, -1, 0] {
        let asked = chat(json!({"options": {"num_predict": endless}}));
        assert_eq!(asked.max_tokens, None);
    }
}

#[test]
fn penalties_that_look_back_at_nothing_are_off() {
    let options = json!({"repeat_last_n": 0, "repeat_penalty": 1.5, "presence_penalty": 1});
    let sampling = chat(json!({"options": options})).chat.sampling;
    assert_eq!(sampling.repetition_penalty, Some(1.0));
    assert_eq!(sampling.presence_penalty, None);
}

#[test]
fn answers_are_streamed_unless_the_request_says_otherwise() {
    assert!(chat(json!({})).chat.stream.is_some());
    assert!(chat(json!({"stream": false})).chat.stream.is_none());
}

#[test]
fn thinking_is_on_off_or_as_usual() {
    let usual = chat(json!({}));
    assert!(usual.chat.chat_template_kwargs.is_empty() && !usual.must_think);
    assert!(usual.chat.include_reasoning);
    let off = chat(json!({"think": false}));
    assert_eq!(off.chat.reasoning_effort, Some("none"));
    assert!(!off.chat.include_reasoning && !off.must_think);
    for (think, effort) in [
        (json!(true), None),
        (json!("low"), Some("low")),
        (json!("max"), Some("max")),
    ] {
        let on = chat(json!({"think": think}));
        assert!(on.must_think && on.chat.include_reasoning);
        assert_eq!(on.chat.reasoning_effort, effort);
        assert_eq!(on.chat.chat_template_kwargs["enable_thinking"], true);
    }
}

#[test]
fn a_format_is_json_or_a_schema() {
    let format = |format: Value| chat(json!({"format": format})).chat.output_format;
    assert_eq!(format(json!("")), OutputFormat::Text);
    assert_eq!(format(json!(null)), OutputFormat::Text);
    assert_eq!(format(json!("json")), OutputFormat::JsonObject);
    let schema = json!({"type": "object"});
    assert_eq!(format(schema.clone()), OutputFormat::JsonSchema(schema));
}

#[test]
fn logprobs_have_alternatives_only_if_they_are_wanted() {
    let logprobs = |fields: Value| chat(fields).chat.sampling.logprobs;
    assert_eq!(logprobs(json!({"top_logprobs": 3})), None);
    assert_eq!(logprobs(json!({"logprobs": true})), Some(0));
    assert_eq!(
        logprobs(json!({"logprobs": true, "top_logprobs": 3})),
        Some(3)
    );
}

#[test]
fn results_find_their_calls() {
    let call = |name: &str| json!({"function": {"name": name, "arguments": {"at": 1}}});
    let said = messages(json!([
        {"role": "USER", "content": "Hi"},
        {"role": "assistant", "thinking": "Hm", "tool_calls": [
            call("look"), call("listen"), {"id": "own", "function": {"name": "look"}}]},
        {"role": "tool", "tool_name": "listen", "content": "hush"},
        {"role": "tool", "tool_call_id": "own", "content": "dark"},
        {"role": "tool", "content": "light"},
        {"role": "tool", "tool_name": "smell", "content": "nothing"},
    ]));
    let call = |id: &str, name: &str, arguments: Value| {
        let function = json!({"name": name, "arguments": arguments});
        json!({"id": id, "type": "function", "function": function})
    };
    let calls = [
        call("call_1", "look", json!({"at": 1})),
        call("call_2", "listen", json!({"at": 1})),
        call("own", "look", json!({})),
    ];
    let result = |content: &str, id: &str, name: &str| json!({"role": "tool", "content": content, "tool_call_id": id, "name": name});
    let expected = [
        json!({"role": "user", "content": "Hi"}),
        json!({"role": "assistant", "content": "", "reasoning": "Hm", "reasoning_content": "Hm",
               "tool_calls": calls}),
        result("hush", "call_2", "listen"),
        result("dark", "own", "look"),
        result("light", "call_1", "look"),
        result("nothing", "call_1", "smell"),
    ];
    assert_eq!(said, expected);
}

#[test]
fn images_are_refused_where_the_user_shows_them_and_noted_where_they_are_history() {
    let seen = json!({"role": "user", "content": "Look", "images": ["aGk=", "aGk="]});
    let note = "[image: cannot be shown to this model]";
    let noted = json!({"role": "user", "content": format!("Look\n{note}\n{note}")});
    let history = json!([seen, {"role": "assistant", "content": "I see."}, {"role": "user", "content": "Hi"}]);
    assert_eq!(messages(history)[0], noted);
    let body = json!({"messages": [seen]}).to_string();
    let error = OllamaTask::of_chat(body.as_bytes(), Refuse).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("messages.0.images"));
    let shown = conversation(OllamaTask::of_chat(body.as_bytes(), Note).unwrap());
    assert_eq!(shown.chat.messages, [noted]);
    let body = json!({"prompt": "Look", "images": ["aGk="]}).to_string();
    let shown = conversation(OllamaTask::of_generation(body.as_bytes(), Note).unwrap());
    assert_eq!(shown.chat.messages[0]["content"], format!("Look\n{note}"));
}

#[test]
fn a_final_assistant_message_is_the_beginning_of_the_answer() {
    let user = json!({"role": "user", "content": "Hi"});
    let begun = json!({"messages": [user, {"role": "assistant", "content": "Hel"}]});
    let begun = conversation(chat_task(&begun).unwrap()).chat;
    assert!(begun.continue_final_message && !begun.add_generation_prompt);
    let calls = json!([{"function": {"name": "look"}}]);
    let called = json!({"messages": [user, {"role": "assistant", "tool_calls": calls}]});
    let called = conversation(chat_task(&called).unwrap()).chat;
    assert!(!called.continue_final_message && called.add_generation_prompt);
}

#[test]
fn without_a_prompt_nothing_is_answered() {
    let load = |unload| {
        OllamaTask::Load(OllamaLoad {
            model: Some("m".into()),
            unload,
        })
    };
    for (keep_alive, unload) in [
        (json!(null), false),
        (json!("5m"), false),
        (json!(-1), false),
        (json!(0.5), false),
        (json!("10s"), false),
        (json!(0), true),
        (json!("0"), true),
        (json!("0m0s"), true),
    ] {
        let fields = json!({"model": "m", "keep_alive": keep_alive});
        assert_eq!(chat_task(&fields).unwrap(), load(unload), "{keep_alive}");
        assert_eq!(
            generation_task(&fields).unwrap(),
            load(unload),
            "{keep_alive}"
        );
    }
}

#[test]
fn a_generation_is_a_chat_or_a_raw_text() {
    let body = json!({"prompt": "Hi", "system": "Be brief.", "context": [1, 2], "suffix": ""});
    let asked = conversation(generation_task(&body).unwrap());
    let expected = [
        json!({"role": "system", "content": "Be brief."}),
        json!({"role": "user", "content": "Hi"}),
    ];
    assert_eq!(asked.chat.messages, expected);
    assert_eq!(asked.context, [1, 2]);
    let body = json!({"prompt": "Hi", "raw": true, "options": {"num_predict": 3}, "think": false});
    let OllamaTask::Text(text) = generation_task(&body).unwrap() else {
        panic!("it is a text");
    };
    assert_eq!(
        text.completion.prompts,
        [CompletionPrompt::Text("Hi".into())]
    );
    assert_eq!((text.max_tokens, text.completion.suffix), (Some(3), None));
}

#[test]
fn a_suffix_asks_for_what_stands_before_it_even_at_the_beginning() {
    for prompt in ["", "a"] {
        let body = json!({"prompt": prompt, "suffix": "b"});
        let OllamaTask::Text(text) = generation_task(&body).unwrap() else {
            panic!("it is a text");
        };
        assert_eq!(
            text.completion.prompts,
            [CompletionPrompt::Text(prompt.into())]
        );
        assert_eq!(text.completion.suffix.as_deref(), Some("b"));
    }
}

#[test]
fn a_model_is_shown_by_either_name() {
    for (body, expected) in [
        ("{}", None),
        (r#"{"name": "a"}"#, Some("a")),
        (r#"{"model": "b", "name": "a"}"#, Some("b")),
    ] {
        let request = ValidShowRequest::from_bytes(body.as_bytes()).unwrap();
        assert_eq!(request.model.as_deref(), expected);
    }
    let error = ValidShowRequest::from_bytes(br#"{"model": 1}"#).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("model"));
}

/// Fields of both endpoints, and the `param` that the error names.
const BOTH: &[(&str, &str)] = &[
    (r#""model": 5"#, "model"),
    (r#""stream": "no""#, "stream"),
    (r#""options": []"#, "options"),
    (r#""options": {"temperature": 2.5}"#, "options.temperature"),
    (r#""options": {"top_p": -1}"#, "options.top_p"),
    (r#""options": {"top_k": -2}"#, "options.top_k"),
    (r#""options": {"min_p": 2}"#, "options.min_p"),
    (
        r#""options": {"repeat_penalty": 0}"#,
        "options.repeat_penalty",
    ),
    (
        r#""options": {"repeat_last_n": -2}"#,
        "options.repeat_last_n",
    ),
    (
        r#""options": {"presence_penalty": 3}"#,
        "options.presence_penalty",
    ),
    (
        r#""options": {"frequency_penalty": "a"}"#,
        "options.frequency_penalty",
    ),
    (r#""options": {"seed": 1.5}"#, "options.seed"),
    (r#""options": {"num_predict": -3}"#, "options.num_predict"),
    (r#""options": {"stop": [""]}"#, "options.stop.0"),
    (r#""options": {"stop": 1}"#, "options.stop"),
    (r#""options": {"mirostat": 2}"#, "options.mirostat"),
    (r#""options": {"typical_p": 0.7}"#, "options.typical_p"),
    (r#""think": "sometimes""#, "think"),
    (r#""think": 1"#, "think"),
    (r#""format": "yaml""#, "format"),
    (r#""format": []"#, "format"),
    (r#""keep_alive": true"#, "keep_alive"),
    (r#""keep_alive": "forever""#, "keep_alive"),
    (r#""logprobs": 1"#, "logprobs"),
    (r#""top_logprobs": 21"#, "top_logprobs"),
    (r#""template": "{{ .Prompt }}""#, "template"),
    (r#""_debug_render_only": true"#, "_debug_render_only"),
    (r#""cache_salt": """#, "cache_salt"),
];

const CHATS: &[(&str, &str)] = &[
    (r#""messages": {}"#, "messages"),
    (r#""messages": [1]"#, "messages.0"),
    (r#""messages": [{"content": "a"}]"#, "messages.0.role"),
    (r#""messages": [{"role": "judge"}]"#, "messages.0.role"),
    (
        r#""messages": [{"role": "user", "content": ["a"]}]"#,
        "messages.0.content",
    ),
    (
        r#""messages": [{"role": "user", "content": "a", "images": ["aGk="]}]"#,
        "messages.0.images",
    ),
    (
        r#""messages": [{"role": "assistant", "thinking": 1}]"#,
        "messages.0.thinking",
    ),
    (
        r#""messages": [{"role": "assistant", "tool_calls": [{}]}]"#,
        "messages.0.tool_calls.0.function",
    ),
    (
        r#""messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": {}}}]}]"#,
        "messages.0.tool_calls.0.function.name",
    ),
    (
        r#""messages": [{"role": "tool", "tool_name": 1}]"#,
        "messages.0.tool_name",
    ),
    (
        r#""tools": [{"type": "function", "function": {"name": ""}}]"#,
        "tools.0.function.name",
    ),
];

const GENERATIONS: &[(&str, &str)] = &[
    (r#""prompt": ["a"]"#, "prompt"),
    (r#""system": 1"#, "system"),
    (r#""suffix": 1"#, "suffix"),
    (r#""suffix": "end", "system": "a""#, "system"),
    (r#""suffix": "end", "format": "json""#, "format"),
    (r#""images": ["aGk="]"#, "images"),
    (r#""context": [-1]"#, "context.0"),
    (r#""context": "a""#, "context"),
    (r#""raw": 1"#, "raw"),
    (r#""raw": true, "system": "a""#, "system"),
    (r#""raw": true, "context": [1]"#, "context"),
    (r#""raw": true, "think": true"#, "think"),
    (r#""raw": true, "format": "json""#, "format"),
];

fn check_named(
    parse: fn(&[u8], UnsupportedContent) -> Result<OllamaTask, ApiError>,
    good: &str,
    own: &[(&str, &str)],
) {
    for (fields, param) in BOTH.iter().chain(own) {
        // The later of two equal keys counts.
        let body = format!("{{{good}, {fields}}}");
        let error = parse(body.as_bytes(), Refuse).expect_err(&body);
        assert_eq!(error.status, 400, "{body}");
        assert_eq!(error.param.as_deref(), Some(*param), "{body}");
    }
}

#[test]
fn bad_fields_are_named() {
    let chat = r#""messages": [{"role": "user", "content": "Hi"}]"#;
    check_named(OllamaTask::of_chat, chat, CHATS);
    check_named(OllamaTask::of_generation, r#""prompt": "Hi""#, GENERATIONS);
}
