//! What small bodies could grow to: values are counted, wherever they stand.

use backstop_protocol::UnsupportedContent::Refuse;
use backstop_protocol::anthropic::{ValidMessagesRequest, ValidTokenCountRequest};
use backstop_protocol::limits::{
    MAX_CHAT_JSON_VALUES, MAX_JSON_VALUES, MAX_JSON_VALUES_IN_STRINGS, MAX_PROMPT_TOKENS,
};
use backstop_protocol::responses::ValidResponsesRequest;
use backstop_protocol::{
    ApiError, ValidChatRequest, ValidCompletionRequest, ValidDetokenizeRequest,
    ValidTokenizeRequest,
};
use serde_json::{Value, json};

/// A body with `padding` values in a field that nobody reads.
fn padded(fields: &str, padding: usize) -> String {
    format!("{{{fields},\"unread\":[{}]}}", vec!["0"; padding].join(","))
}

fn refusal<T>(result: Result<T, ApiError>) -> (u16, Option<String>) {
    let error = result.err().expect("refused");
    (error.status, error.param)
}

#[test]
fn a_body_with_too_many_values_is_too_large() {
    let chat = "\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_tokens\":1";
    let body = padded(chat, MAX_CHAT_JSON_VALUES);
    let body = body.as_bytes();
    for error in [
        ValidChatRequest::from_bytes(body, Refuse).unwrap_err(),
        ValidMessagesRequest::from_bytes(body, Refuse).unwrap_err(),
        ValidTokenCountRequest::from_bytes(body, Refuse).unwrap_err(),
        ValidTokenizeRequest::from_bytes(body, Refuse).unwrap_err(),
        ValidResponsesRequest::from_bytes(body, Refuse).unwrap_err(),
    ] {
        assert_eq!((error.status, error.code), (413, Some("body_too_large")));
    }
    let just_right = padded(chat, MAX_CHAT_JSON_VALUES - 20);
    assert!(ValidChatRequest::from_bytes(just_right.as_bytes(), Refuse).is_ok());
    let completion = padded("\"prompt\":\"a\"", MAX_JSON_VALUES);
    assert_eq!(
        refusal(ValidCompletionRequest::from_bytes(completion.as_bytes())),
        (413, None)
    );
}

#[test]
fn as_many_token_ids_as_a_prompt_may_have_are_parsed() {
    let ids = vec!["7"; MAX_PROMPT_TOKENS].join(",");
    let body = format!("{{\"prompt\":[{ids}],\"model\":\"m\"}}");
    assert!(ValidCompletionRequest::from_bytes(body.as_bytes()).is_ok());
    let body = format!("{{\"tokens\":[{ids}]}}");
    let tokens = ValidDetokenizeRequest::from_bytes(body.as_bytes()).unwrap();
    assert_eq!(tokens.tokens.len(), MAX_PROMPT_TOKENS);
}

/// Arguments with about so many values.
fn arguments(values: usize) -> Value {
    Value::String(format!("{{\"a\":[{}]}}", vec!["0"; values].join(",")))
}

#[test]
fn arguments_in_strings_share_one_limit() {
    let call =
        |values| json!({"id": "a", "function": {"name": "f", "arguments": arguments(values)}});
    let most = MAX_JSON_VALUES_IN_STRINGS * 2 / 3;
    let chat = |calls: Value| {
        let message = json!({"role": "assistant", "content": null, "tool_calls": calls});
        json!({"messages": [message, {"role": "user", "content": "a"}]}).to_string()
    };
    assert!(ValidChatRequest::from_bytes(chat(json!([call(most)])).as_bytes(), Refuse).is_ok());
    let two = chat(json!([call(most), call(most)]));
    assert_eq!(
        refusal(ValidChatRequest::from_bytes(two.as_bytes(), Refuse)),
        (
            400,
            Some("messages.0.tool_calls.1.function.arguments".to_owned())
        )
    );
    let item =
        json!({"type": "function_call", "call_id": "a", "name": "f", "arguments": arguments(most)});
    let responses = json!({"input": [{"role": "user", "content": "a"}, item, item]}).to_string();
    assert_eq!(
        refusal(ValidResponsesRequest::from_bytes(
            responses.as_bytes(),
            Refuse
        )),
        (400, Some("input.2.arguments".to_owned()))
    );
}

#[test]
fn a_schema_in_a_string_has_a_limit_too() {
    let schema = |values| {
        let body = json!({"messages": [{"role": "user", "content": "a"}], "guided_json": arguments(values)});
        ValidChatRequest::from_bytes(body.to_string().as_bytes(), Refuse)
    };
    assert!(schema(1000).is_ok());
    assert_eq!(
        refusal(schema(MAX_JSON_VALUES_IN_STRINGS)),
        (400, Some("guided_json".to_owned()))
    );
}

#[test]
fn what_an_answer_repeats_is_small() {
    let many = vec![json!([]); MAX_CHAT_JSON_VALUES / 2];
    for (field, value) in [
        (
            "tools",
            json!([{"type": "function", "name": "f", "parameters": {"a": many}}]),
        ),
        (
            "tool_choice",
            json!({"type": "function", "name": "g", "a": many}),
        ),
        ("instructions", json!("x".repeat(9 << 20))),
        ("text", json!({"format": {"type": "text", "a": many}})),
    ] {
        let mut body = json!({"input": "a", "tools": [{"type": "function", "name": "g"}]});
        body[field] = value;
        let result = ValidResponsesRequest::from_bytes(body.to_string().as_bytes(), Refuse);
        assert_eq!(refusal(result), (400, Some(field.to_owned())));
    }
}

#[test]
fn a_turn_in_thousands_of_pieces_is_one_message() {
    let pieces = vec![json!({"role": "user", "content": "é"}); 10_000];
    let body = json!({"messages": pieces, "max_tokens": 1}).to_string();
    let request = ValidMessagesRequest::from_bytes(body.as_bytes(), Refuse).unwrap();
    assert_eq!(request.chat.messages.len(), 1);
    assert_eq!(
        request.chat.messages[0]["content"],
        vec!["é"; 10_000].join("\n")
    );
}
