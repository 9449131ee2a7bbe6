//! Bodies of few bytes that would take much memory once they are parsed.

use hyper::Method;
use serde_json::json;

use crate::support::{Fixture, Options, chat};

/// The routes that read bodies, each with the beginning of one.
const ROUTES: [(&str, &str); 7] = [
    ("/v1/chat/completions", CHAT_FIELDS),
    ("/v1/completions", "\"prompt\":\"a\""),
    ("/v1/responses", "\"input\":\"a\""),
    ("/v1/messages", CHAT_FIELDS),
    ("/v1/messages/count_tokens", CHAT_FIELDS),
    ("/tokenize", CHAT_FIELDS),
    ("/detokenize", "\"tokens\":[1]"),
];
const CHAT_FIELDS: &str = "\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_tokens\":1";

fn body(fields: &str, unit: &str, times: usize) -> String {
    let values = unit.repeat(times);
    format!(
        "{{{fields},\"tools\":[{{\"type\":\"function\",\"function\":{{\"name\":\"f\",\"parameters\":{{\"x\":[{values}0]}}}}}}]}}"
    )
}

#[tokio::test]
async fn bodies_with_too_many_values_are_refused_on_every_route() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let nested = "[".repeat(100) + &"]".repeat(100) + ",";
    let units = [
        ("[],", 1_200_000),
        ("{\"a\":0},", 1_000_000),
        ("\"\",", 2_500_000),
        (nested.as_str(), 30_000),
    ];
    for (path, fields) in ROUTES {
        for (unit, times) in units {
            let answer = client
                .send(Method::POST, path, body(fields, unit, times))
                .await;
            assert_eq!(answer.status, 413, "{path} {} {}", &unit[..3], answer.text);
        }
    }
    fixture.engine_idle().await;
    assert_eq!(client.chat(&chat(json!({}))).await.status, 200);
}

#[tokio::test]
async fn a_conversation_may_have_fewer_values_than_a_prompt_of_token_ids() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let values = "0,".repeat(300_000);
    let conversation = body(CHAT_FIELDS, "0,", 300_000);
    let answer = client.send(Method::POST, ROUTES[0].0, conversation).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (413, "body_too_large")
    );
    let ids = format!("{{\"prompt\":[{values}0]}}");
    let answer = client.send(Method::POST, "/v1/completions", ids).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (400, "context_length_exceeded")
    );
}

#[tokio::test]
async fn json_within_strings_is_bounded_as_well() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let arguments = format!("{{\"x\":[{}0]}}", "[],".repeat(400_000));
    let call =
        json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}});
    let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let answer = client
        .chat(&chat(
            json!({"messages": [message, {"role": "user", "content": "a"}]}),
        ))
        .await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert!(answer.text.contains("arguments"), "{}", answer.text);
    let answer = client.chat(&chat(json!({"guided_json": arguments}))).await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert!(answer.text.contains("guided_json"), "{}", answer.text);
}

#[tokio::test]
async fn long_numbers_and_escapes_cost_no_more_than_their_bytes() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    for (content, statuses) in [
        (format!("\"{}\"", "\\u0000".repeat(1_000_000)), [400, 400]),
        (
            format!(
                "\"a\"}}],\"seed\":1{},\"x\":[{{\"y\":0",
                "0".repeat(2_000_000)
            ),
            [400, 400],
        ),
        (
            format!("\"a\"}}],\"x\":[{{\"y\":0.{}", "1".repeat(2_000_000)),
            [200, 200],
        ),
    ] {
        let body = format!(
            "{{\"messages\":[{{\"role\":\"user\",\"content\":{content}}}],\"max_tokens\":1}}"
        );
        let answer = client.send(Method::POST, ROUTES[0].0, body).await;
        assert!(
            statuses.contains(&answer.status),
            "{} {}",
            answer.status,
            answer.text
        );
    }
}
