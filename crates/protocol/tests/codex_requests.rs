//! Requests that Codex CLI 0.169.0 sent, each with the history of one tool call. What it sends
//! depends on whether it knows the model: `unknown_model` and `namespace` are of a model that it
//! does not, the others of models that it does. Long texts are cut off, ids are zeros, and each
//! list of tools has two functions at most.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that panics fails its test"
)]

use backstop_protocol::UnsupportedContent::Refuse;
use backstop_protocol::responses::{ToolKind, ValidResponsesRequest};
use serde_json::{Value, json};

fn parse(body: &str) -> ValidResponsesRequest {
    let request = ValidResponsesRequest::from_bytes(body.as_bytes(), Refuse).unwrap();
    assert!(request.chat.stream.is_some());
    assert!(request.reasoning.with_encrypted_content);
    request
}

/// The names under which the model is offered tools.
fn offered(request: &ValidResponsesRequest) -> Vec<&str> {
    let tools = request.chat.tools.iter();
    tools
        .map(|tool| tool["function"]["name"].as_str().unwrap())
        .collect()
}

/// The call in the history, and the text of its result, which follows it.
fn call_and_result(request: &ValidResponsesRequest) -> (&Value, &str) {
    let [.., call, result] = &request.chat.messages[..] else {
        panic!("too few messages");
    };
    assert_eq!(result["role"], "tool");
    assert_eq!(result["tool_call_id"], call["tool_calls"][0]["id"]);
    (
        &call["tool_calls"][0]["function"],
        result["content"].as_str().unwrap(),
    )
}

#[test]
fn a_model_that_it_does_not_know() {
    let request = parse(include_str!("codex/unknown_model.json"));
    let names = ["exec_command", "write_stdin", "multi_agent_v1.close_agent"];
    assert_eq!(offered(&request)[..3], names);
    assert!(request.reasoning.as_summary);
    let roles: Vec<_> = request
        .chat
        .messages
        .iter()
        .map(|message| message["role"].as_str().unwrap())
        .collect();
    let expected = ["system", "system", "user", "user", "assistant", "tool"];
    assert_eq!(roles, expected);
    assert_eq!(request.chat.messages[4]["reasoning"], "I think");
    let (call, result) = call_and_result(&request);
    assert_eq!(
        *call,
        json!({"name": "exec_command", "arguments": {"cmd": "true"}})
    );
    assert!(result.contains("Process exited with code 0"));
}

#[test]
fn a_call_of_a_tool_in_a_namespace() {
    let request = parse(include_str!("codex/namespace.json"));
    let (call, _) = call_and_result(&request);
    assert_eq!(call["name"], "multi_agent_v1.wait_agent");
    let origin = request.tools.origin("multi_agent_v1.close_agent");
    assert_eq!(
        (origin.namespace.as_deref(), origin.name.as_str()),
        (Some("multi_agent_v1"), "close_agent")
    );
}

#[test]
fn a_patch_through_a_custom_tool() {
    let request = parse(include_str!("codex/custom_tool.json"));
    assert_eq!(request.tools.origin("apply_patch").kind, ToolKind::Custom);
    let (call, result) = call_and_result(&request);
    let patch = "*** Begin Patch\n*** Add File: a.txt\n+hi\n*** End Patch\n";
    assert_eq!(
        *call,
        json!({"name": "apply_patch", "arguments": {"input": patch}})
    );
    assert!(result.starts_with("patch rejected"));
}

#[test]
fn tools_that_come_with_the_conversation() {
    let request = parse(include_str!("codex/additional_tools.json"));
    assert_eq!(offered(&request)[..2], ["functions.exec", "functions.wait"]);
    assert_eq!(
        request.tools.origin("functions.exec").kind,
        ToolKind::Custom
    );
    let (call, result) = call_and_result(&request);
    assert_eq!(call["name"], "functions.exec");
    assert!(result.ends_with("\nhi"));
}

#[test]
fn tools_that_a_search_has_found() {
    let request = parse(include_str!("codex/tool_search.json"));
    assert_eq!(request.tools.origin("tool_search").kind, ToolKind::Search);
    let (call, result) = call_and_result(&request);
    assert_eq!(
        *call,
        json!({"name": "tool_search", "arguments": {"query": "spawn agent"}})
    );
    let found = ["multi_agent_v1.spawn_agent", "multi_agent_v1.resume_agent"];
    assert_eq!(result, json!({"found": found}).to_string());
    assert_eq!(offered(&request)[4..], found);
}
