//! Conversations that other providers wrote a part of: they are never refused, and what they hold
//! arrives as text, or as a note that something stood there. Images, audio and files that the user
//! shows now are refused, unless the operator wants a note.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

use backstop_protocol::UnsupportedContent::{self, Note, Refuse};
use backstop_protocol::anthropic::{ValidMessagesRequest, ValidTokenCountRequest};
use backstop_protocol::responses::ValidResponsesRequest;
use backstop_protocol::{ApiError, ValidChatRequest};
use serde_json::{Value, json};

const IMAGE_NOTE: &str = "[image: cannot be shown to this model]";

type Parsed = Result<Vec<Value>, ApiError>;

fn chat(messages: &Value, unsupported: UnsupportedContent) -> Parsed {
    let body = json!({"messages": messages});
    ValidChatRequest::from_value(&body, unsupported).map(|request| request.messages)
}

fn anthropic(messages: &Value, unsupported: UnsupportedContent) -> Parsed {
    let body = json!({"max_tokens": 9, "messages": messages}).to_string();
    let counted = ValidTokenCountRequest::from_bytes(body.as_bytes(), unsupported);
    let request = ValidMessagesRequest::from_bytes(body.as_bytes(), unsupported);
    assert_eq!(counted.is_ok(), request.is_ok());
    request.map(|request| request.chat.messages)
}

fn responses(items: &Value, unsupported: UnsupportedContent) -> Parsed {
    let body = json!({"input": items});
    ValidResponsesRequest::from_value(body, unsupported).map(|request| request.chat.messages)
}

/// The field that a refusal names.
fn refused(parsed: Parsed) -> String {
    let error = parsed.unwrap_err();
    assert_eq!(error.status, 400);
    error.param.unwrap()
}

/// The assistant's text when `blocks` were its turn, between two of the user's.
fn assistant_text(blocks: &Value) -> String {
    let messages = anthropic(
        &json!([{"role": "user", "content": "Go"}, {"role": "assistant", "content": blocks},
                {"role": "user", "content": "On"}]),
        Refuse,
    );
    messages.unwrap()[1]["content"].as_str().unwrap().to_owned()
}

#[test]
fn blocks_of_anthropics_tools_become_their_words() {
    let cases = [
        (
            json!({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "rust"}}),
            "[server tool use web_search: {\"query\":\"rust\"}]",
        ),
        (
            json!({"type": "web_search_tool_result", "tool_use_id": "s", "content": [
                {"type": "web_search_result", "title": "Rust", "url": "https://rust-lang.org",
                 "encrypted_content": "secret", "page_age": "1 day"}]}),
            "[web search tool result]\nRust\nhttps://rust-lang.org",
        ),
        (
            json!({"type": "web_search_tool_result", "tool_use_id": "s", "content":
                {"type": "web_search_tool_result_error", "error_code": "unavailable"}}),
            "[web search tool result]\nunavailable",
        ),
        (
            json!({"type": "web_fetch_tool_result", "tool_use_id": "s", "content":
                {"type": "web_fetch_result", "url": "https://a.b", "content": {"type": "document",
                 "title": "Page", "source": {"type": "text", "media_type": "text/plain", "data": "Words."}}}}),
            "[web fetch tool result]\nhttps://a.b\nPage\nWords.",
        ),
        (
            json!({"type": "web_fetch_tool_result", "tool_use_id": "s", "content":
                {"type": "web_fetch_result", "url": "https://a.b", "content": {"type": "document",
                 "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBER"}}}}),
            "[web fetch tool result]\nhttps://a.b\n[document: cannot be shown to this model]",
        ),
        (
            json!({"type": "code_execution_tool_result", "tool_use_id": "s", "content":
                {"type": "code_execution_result", "stdout": "4\n", "stderr": "warned", "return_code": 1,
                 "content": [{"type": "code_execution_output", "file_id": "f"}]}}),
            "[code execution tool result]\n[file: cannot be shown to this model]\n4\n\nwarned\nreturn code 1",
        ),
        (
            json!({"type": "bash_code_execution_tool_result", "tool_use_id": "s", "content":
                {"type": "bash_code_execution_result", "stdout": "out", "stderr": "", "return_code": 0, "content": []}}),
            "[bash code execution tool result]\nout",
        ),
        (
            json!({"type": "text_editor_code_execution_tool_result", "tool_use_id": "s", "content":
                {"type": "text_editor_code_execution_view_result", "file_type": "text", "content": "fn main"}}),
            "[text editor code execution tool result]\nfn main",
        ),
        (
            json!({"type": "text_editor_code_execution_tool_result", "tool_use_id": "s", "content":
                {"type": "text_editor_code_execution_create_result", "is_file_update": false}}),
            "[text editor code execution tool result: cannot be shown to this model]",
        ),
        (
            json!({"type": "tool_search_tool_result", "tool_use_id": "s", "content":
                {"type": "tool_search_tool_search_result", "tool_references":
                 [{"type": "tool_reference", "tool_name": "get_weather"}]}}),
            "[tool search tool result]\nget_weather",
        ),
        (
            json!({"type": "mcp_tool_use", "id": "m", "name": "find", "server_name": "files", "input": {}}),
            "[mcp tool use files find: {}]",
        ),
        (
            json!({"type": "mcp_tool_result", "tool_use_id": "m", "is_error": true,
                   "content": [{"type": "text", "text": "gone"}]}),
            "[mcp tool result]\nError:\ngone",
        ),
        (
            json!({"type": "compaction", "content": "They talked.", "encrypted_content": "x"}),
            "[compaction]\nThey talked.",
        ),
        (
            json!({"type": "container_upload", "file_id": "f"}),
            "[file: cannot be shown to this model]",
        ),
        (
            json!({"type": "made_up_next_year", "payload": {"data": "x"}}),
            "[made up next year: cannot be shown to this model]",
        ),
        (
            json!({"type": "no name\n[at all", "payload": 1}),
            "[content: cannot be shown to this model]",
        ),
    ];
    for (block, expected) in cases {
        assert_eq!(assistant_text(&json!([block])), expected, "{block}");
    }
    let nothing = json!([{"type": "redacted_thinking", "data": "x"}, {"type": "thinking"},
        {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}},
        {"type": "mcp_tool_listing", "mcp_server_name": "files", "tools": []},
        {"type": "text", "text": "Hello"}]);
    assert_eq!(assistant_text(&nothing), "Hello");
}

#[test]
fn blocks_stay_in_order_and_are_told_from_the_models_own_words() {
    let blocks = json!([
        {"type": "text", "text": "I look."},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "text", "text": "Found nothing."},
        {"type": "tool_use", "id": "t", "name": "f", "input": {}},
    ]);
    let turn = |blocks: &Value| {
        let history = json!([{"role": "user", "content": "Go"},
            {"role": "assistant", "content": blocks},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}]);
        anthropic(&history, Refuse).unwrap()[1].clone()
    };
    let answer = turn(&blocks);
    let expected = "I look.\n[server tool use web_search: {}]\n\
                    [web search tool result: cannot be shown to this model]\nFound nothing.";
    assert_eq!(answer["content"], expected);
    assert_eq!(answer["quotes"], true);
    assert_eq!(answer["tool_calls"].as_array().unwrap().len(), 1);
    let own = turn(&json!([{"type": "text", "text": "a"}]));
    assert!(own.get("quotes").is_none());
}

#[test]
fn blocks_in_unusual_places_are_shown_there() {
    let messages = json!([
        {"role": "user", "content": [
            {"type": "search_result", "title": "Manual", "source": "https://m", "content":
                [{"type": "text", "text": "Press the button."}]},
            {"type": "document", "title": "Notes", "context": "From Monday",
             "source": {"type": "content", "content": [{"type": "text", "text": "Buy milk."}]}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Plain."}},
            {"type": "text", "text": "Answer."}]},
        {"role": "assistant", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "odd"}]},
        {"role": "system", "content": [{"type": "tool_addition", "tool":
            {"type": "tool_reference", "name": "late"}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "b", "content": [
                {"type": "tool_reference", "tool_name": "get_weather"},
                {"type": "search_result", "title": "T", "source": "S", "content": []},
                {"type": "image", "source": {"type": "base64", "data": "x"}}]},
            {"type": "tool_result", "tool_use_id": "c", "content": {"found": 3}}]},
    ]);
    let found = anthropic(&messages, Refuse).unwrap();
    let contents: Vec<&str> = found
        .iter()
        .map(|message| message["content"].as_str().unwrap())
        .collect();
    let image = format!("[tool reference]\nget_weather\n[search result]\nT\nS\n{IMAGE_NOTE}");
    assert_eq!(
        contents,
        [
            "[search result]\nManual\nhttps://m\nPress the button.\n\
             [document]\nNotes\nFrom Monday\nBuy milk.\n[document]\nPlain.\nAnswer.",
            "[tool result]\nodd",
            "[tool addition]\nlate",
            &image,
            "{\"found\":3}",
        ]
    );
}

#[test]
fn instructions_for_one_turn_end_with_it() {
    let messages = |last: &str| {
        let messages = json!([
            {"role": "user", "content": "a"},
            {"role": "system", "content": "Briefly.", "clear_at": "next_user_message"},
            {"role": last, "content": "b"},
        ]);
        anthropic(&messages, Refuse).unwrap().len()
    };
    assert_eq!((messages("assistant"), messages("user")), (3, 1));
}

#[test]
fn items_of_openais_tools_become_their_words() {
    let cases = [
        (
            json!({"type": "web_search_call", "id": "w", "status": "completed",
                   "action": {"type": "search", "query": "rust"}}),
            "[web search call: {\"type\":\"search\",\"query\":\"rust\"}]",
        ),
        (
            json!({"type": "file_search_call", "id": "f", "queries": ["a"], "results":
                [{"file_id": "x", "filename": "a.md", "text": "Words.", "score": 0.5}]}),
            "[file search call: [\"a\"]]\na.md\nWords.",
        ),
        (
            json!({"type": "code_interpreter_call", "id": "c", "code": "print(4)", "container_id": "x",
                   "outputs": [{"type": "logs", "logs": "4"}, {"type": "image", "url": "data:image"}]}),
            &format!("[code interpreter call]\nprint(4)\n4\n{IMAGE_NOTE}"),
        ),
        (
            json!({"type": "image_generation_call", "id": "i", "result": "iVBOR", "revised_prompt": "A cat"}),
            &format!("{IMAGE_NOTE}\nA cat"),
        ),
        (
            json!({"type": "mcp_call", "id": "m", "server_label": "files", "name": "find",
                   "arguments": "{\"a\": 1}", "output": "found", "error": null}),
            "[mcp call files find: {\"a\": 1}]\nfound",
        ),
        (
            json!({"type": "mcp_approval_request", "id": "m", "server_label": "files", "name": "rm", "arguments": "{}"}),
            "[mcp approval request files rm: {}]",
        ),
        (
            json!({"type": "program", "id": "p", "call_id": "p", "code": "let a", "fingerprint": "x"}),
            "[program]\nlet a",
        ),
        (
            json!({"type": "program_output", "id": "p", "call_id": "p", "result": "7", "status": "completed"}),
            "[program output]\n7",
        ),
        (
            json!({"type": "compaction", "encrypted_content": "x"}),
            "[compaction: cannot be shown to this model]",
        ),
        (
            json!({"type": "item_reference", "id": "msg_1"}),
            "[item reference: cannot be shown to this model]",
        ),
        (
            json!({"id": "msg_1"}),
            "[item reference: cannot be shown to this model]",
        ),
        (json!({"type": "made_up", "text": "new"}), "[made up]\nnew"),
    ];
    for (item, expected) in cases {
        let items = json!([{"role": "user", "content": "Go"}, item,
            {"type": "message", "role": "assistant", "content": "Done."},
            {"role": "user", "content": "On"}]);
        let messages = responses(&items, Refuse).unwrap();
        let answer =
            json!({"role": "assistant", "content": format!("{expected}\nDone."), "quotes": true});
        assert_eq!(messages[1], answer, "{item}");
        assert_eq!(messages.len(), 3, "{item}");
    }
    let listing = json!([{"role": "user", "content": "Go"},
        {"type": "mcp_list_tools", "id": "l", "server_label": "s", "tools": []},
        {"type": "mcp_approval_response", "approval_request_id": "m", "approve": false}]);
    let messages = responses(&listing, Refuse).unwrap();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[1]["content"], "[mcp approval response: denied]");
}

#[test]
fn what_the_model_thought_between_its_tools_stays_one_turn() {
    let reasoning = |text: &str| json!({"type": "reasoning", "summary": [{"text": text}]});
    let items = json!([{"role": "user", "content": "Go"}, reasoning("a"),
        {"type": "web_search_call", "action": {}}, reasoning("b"),
        {"role": "assistant", "content": "Done."}]);
    let messages = responses(&items, Refuse).unwrap();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[1]["reasoning"], "a\nb");
    assert_eq!(messages[1]["content"], "[web search call: {}]\nDone.");
}

#[test]
fn screens_are_results_that_cannot_be_seen() {
    let items = json!([{"role": "user", "content": "Go"},
        {"type": "computer_call", "call_id": "c", "action": {"type": "click", "x": 1, "y": 2}},
        {"type": "computer_call_output", "call_id": "c",
         "output": {"type": "computer_screenshot", "image_url": "data:"}}]);
    let messages = responses(&items, Refuse).unwrap();
    assert_eq!(messages[1]["tool_calls"][0]["function"]["name"], "computer");
    assert_eq!(messages[2]["content"], IMAGE_NOTE);
}

#[test]
fn parts_of_chats_become_their_words() {
    let history = json!([
        {"role": "user", "content": [
            {"type": "text", "text": "See:"}, {"type": "image_url", "image_url": {"url": "data:"}},
            {"type": "input_audio", "input_audio": {"data": "x"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:"}},
            {"type": "video_url", "video_url": {"url": "x"}}]},
        {"role": "assistant", "audio": {"id": "a", "transcript": "Hm"}, "images": [{"type": "image_url"}],
         "content": [{"type": "text", "text": "I see."}, {"type": "reference", "reference_ids": [1]}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Well"}]},
            {"type": "refusal", "refusal": "No"}]},
        {"role": "assistant", "content": "x", "reasoning": {"content": "So"}, "thinking_blocks": [1]},
        {"role": "assistant", "content": "x", "reasoning_details":
            [{"type": "reasoning.text", "text": "Thus"}, {"type": "reasoning.encrypted", "data": "x"}]},
        {"role": "user", "content": "And?"},
    ]);
    let found = chat(&history, Refuse).unwrap();
    assert_eq!(
        found[0]["content"],
        format!(
            "See:\n{IMAGE_NOTE}\n[audio: cannot be shown to this model]\n\
             [file a.pdf: cannot be shown to this model]\n[video: cannot be shown to this model]"
        )
    );
    assert_eq!(
        found[1]["content"],
        format!(
            "I see.\n[reference: cannot be shown to this model]\n\
             [audio: cannot be shown to this model]\nHm\n{IMAGE_NOTE}"
        )
    );
    assert_eq!(
        (&found[2]["content"], &found[2]["reasoning"]),
        (&json!("No"), &json!("Well"))
    );
    assert_eq!(found[3]["reasoning"], "So");
    assert_eq!(found[4]["reasoning"], "Thus");
}

/// Calls without ids and their results, whatever they are made of.
#[test]
fn calls_find_their_results_without_ids() {
    let call = |name: &str| json!({"function": {"name": name}});
    let history = json!([
        {"role": "user", "content": "Go"},
        {"role": "assistant", "tool_calls": [call("a"), call("b")]},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": {"value": 2}},
        {"role": "assistant", "tool_calls": [call("never answered")]},
        {"role": "user", "content": "Again"},
        {"role": "assistant", "tool_calls": [call("c"), {"id": "d", "function": {"name": "d"}}]},
        {"role": "tool", "content": 3},
        {"role": "tool", "content": "4"},
    ]);
    let found = chat(&history, Refuse).unwrap();
    let id = |message: usize, call: usize| &found[message]["tool_calls"][call]["id"];
    let results: Vec<&Value> = [2, 3, 7, 8]
        .map(|at: usize| &found[at]["tool_call_id"])
        .into();
    assert_eq!(results, [id(1, 0), id(1, 1), id(6, 0), id(6, 1)]);
    assert_ne!(id(1, 0), id(1, 1));
    assert_eq!(
        (&found[3]["content"], &found[7]["content"]),
        (&json!("{\"value\":2}"), &json!("3"))
    );

    let items = json!([
        {"type": "function_call", "name": "a"}, {"type": "function_call", "name": "b", "arguments": ""},
        {"type": "function_call_output", "output": "1"},
        {"type": "function_call_output", "output": {"value": 2}},
        {"type": "tool_search_call", "execution": "server", "call_id": null, "arguments": {}},
        {"type": "tool_search_output", "execution": "server", "call_id": null, "tools": []},
    ]);
    let found = responses(&items, Refuse).unwrap();
    let id = |message: usize, call: usize| &found[message]["tool_calls"][call]["id"];
    let results: Vec<&Value> = [1, 2, 4].map(|at: usize| &found[at]["tool_call_id"]).into();
    assert_eq!(results, [id(0, 0), id(0, 1), id(3, 0)]);
}

#[test]
fn arguments_of_every_form_arrive() {
    let forms = [
        (json!("{\"a\": 1}"), json!({"a": 1})),
        (json!({"a": 1}), json!({"a": 1})),
        (json!("{\"a"), json!("{\"a")),
        (json!("[1]"), json!("[1]")),
        (json!([1]), json!([1])),
        (json!(5), json!(5)),
        (json!(false), json!(false)),
        (json!(""), json!({})),
        (json!(" "), json!({})),
        (json!(null), json!({})),
    ];
    for (given, expected) in forms {
        let function = json!({"name": "f", "arguments": given});
        let in_chat = json!([
            {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": function}]},
            {"role": "assistant", "function_call": function}]);
        let in_responses =
            json!([{"type": "function_call", "call_id": "a", "name": "f", "arguments": given}]);
        let in_messages = json!([
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": given}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}]);
        let mut calls = chat(&in_chat, Refuse).unwrap();
        calls.push(responses(&in_responses, Refuse).unwrap().remove(0));
        calls.push(anthropic(&in_messages, Refuse).unwrap().remove(0));
        for message in calls {
            assert_eq!(
                message["tool_calls"][0]["function"]["arguments"], expected,
                "{given}"
            );
        }
    }
    let others = json!([{"role": "assistant", "tool_calls": [
        {"id": "a", "type": "custom", "custom": {"name": "patch", "input": "text"}},
        {"id": "b", "type": "web_search", "web_search": {"query": "q"}}]}]);
    let calls = chat(&others, Refuse).unwrap()[0]["tool_calls"].clone();
    assert_eq!(
        calls[0]["function"],
        json!({"name": "patch", "arguments": {"input": "text"}})
    );
    assert_eq!(
        calls[1]["function"],
        json!({"name": "web_search", "arguments": {"query": "q"}})
    );
}

#[test]
fn ids_and_names_may_be_as_long_as_others_make_them() {
    for (length, fits) in [(64 << 10, true), ((64 << 10) + 1, false)] {
        let long = "x".repeat(length);
        let odd = format!("ns/{}", "é ".repeat(20));
        let function = json!({"name": odd, "arguments": "{}"});
        let in_chat = json!([
            {"role": "assistant", "tool_calls": [{"id": long, "function": function}]},
            {"role": "tool", "tool_call_id": long, "name": odd, "content": ""}]);
        let in_responses = json!([
            {"type": "reasoning", "id": long, "summary": [], "encrypted_content": "x".repeat(1 << 20)},
            {"type": "function_call", "id": long, "call_id": long, "name": odd, "arguments": "{}"},
            {"type": "function_call_output", "call_id": long, "output": ""}]);
        let in_messages = json!([
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "a", "signature": "x".repeat(1 << 20)},
                {"type": "tool_use", "id": long, "name": odd, "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": long}]}]);
        assert_eq!(chat(&in_chat, Refuse).is_ok(), fits);
        assert_eq!(responses(&in_responses, Refuse).is_ok(), fits);
        assert_eq!(anthropic(&in_messages, Refuse).is_ok(), fits);
    }
}

/// A user's message with an image, in each of the three APIs.
fn image(api: usize) -> Value {
    let part = [
        json!({"type": "image_url", "image_url": {"url": "data:"}}),
        json!({"type": "image", "source": {"type": "base64", "data": "x"}}),
        json!({"type": "input_image", "image_url": "data:"}),
    ][api]
        .clone();
    json!({"role": "user", "content": [{"type": "text", "text": "Look"}, part]})
}

#[test]
fn only_the_latest_user_message_is_refused() {
    let parsers = [chat, anthropic, responses];
    let fields = ["messages", "messages", "input"];
    let answer = json!({"role": "assistant", "content": "Nice."});
    let instructions = json!({"role": "system", "content": "Be kind."});
    let said = json!({"role": "user", "content": "And now?"});
    for (api, parse) in parsers.into_iter().enumerate() {
        let image = image(api);
        // What is refused, and the message that is named.
        for (messages, at) in [
            (json!([image]), 0),
            (json!([image, said]), 0),
            (json!([said, image]), 1),
            (json!([image, instructions]), 0),
            (json!([image, answer]), 0),
            (json!([said, answer, image]), 2),
            (json!([image, answer, said, image]), 3),
        ] {
            let named = format!("{}.{at}.content.1.type", fields[api]);
            assert_eq!(refused(parse(&messages, Refuse)), named, "{messages}");
            let noted = parse(&messages, Note).unwrap();
            assert!(noted.iter().any(|message| {
                let text = message["content"].as_str().unwrap();
                text.contains(&format!("Look\n{IMAGE_NOTE}"))
            }));
        }
        for messages in [
            json!([image, answer, said]),
            json!([image, answer, answer]),
            json!([image, answer, instructions, said]),
        ] {
            let noted = parse(&messages, Refuse).unwrap();
            assert_eq!(
                noted[0]["content"],
                format!("Look\n{IMAGE_NOTE}"),
                "{messages}"
            );
        }
    }
}

#[test]
fn an_agent_that_brings_results_is_answered() {
    let conversations = [
        (
            chat as fn(&Value, UnsupportedContent) -> Parsed,
            json!([image(0), {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f"}}]},
                {"role": "tool", "tool_call_id": "a", "content":
                    [{"type": "text", "text": "Look"}, {"type": "image_url"}]}]),
        ),
        (
            anthropic,
            json!([image(1),
                {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content":
                    [{"type": "text", "text": "Look"}, {"type": "image"}]}, {"type": "image"}]}]),
        ),
        (
            responses,
            json!([image(2), {"type": "function_call", "call_id": "a", "name": "f", "arguments": ""},
                {"type": "function_call_output", "call_id": "a", "output":
                    [{"type": "input_text", "text": "Look"}, {"type": "input_image"}]}]),
        ),
    ];
    for (parse, conversation) in conversations {
        let messages = parse(&conversation, Refuse).unwrap();
        for at in [0, 2] {
            assert_eq!(messages[at]["content"], format!("Look\n{IMAGE_NOTE}"));
        }
    }
}
