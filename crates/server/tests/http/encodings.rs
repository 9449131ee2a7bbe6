//! Bodies that are packed, or begin with a byte order mark, or are in another character set.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::Method;
use serde_json::{Value, json};

use crate::support::client::{Answer, Client};
use crate::support::{Fixture, Options, chat, completion};

const CHAT: &str = "/v1/chat/completions";

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

async fn send(client: &Client, coding: &str, body: &[u8]) -> Answer {
    let client = client.clone().with("content-encoding", coding);
    client.send(Method::POST, CHAT, body).await
}

fn refusal(answer: &Answer) -> (u16, String) {
    (answer.status, answer.error_code())
}

#[tokio::test]
async fn packed_bodies_are_answered_on_every_route() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client().with("content-encoding", "gzip");
    let question = json!({"model": "north", "input": "Hi", "max_tokens": 9,
                          "messages": [{"role": "user", "content": "Hi"}]});
    let bodies: [(&str, Value); 7] = [
        (CHAT, chat(json!({}))),
        ("/v1/completions", completion(json!({}))),
        ("/v1/responses", json!({"model": "north", "input": "Hi"})),
        (
            "/v1/messages",
            json!({"model": "north", "max_tokens": 9, "messages": question["messages"]}),
        ),
        (
            "/v1/messages/count_tokens",
            json!({"model": "north", "messages": question["messages"]}),
        ),
        ("/tokenize", json!({"prompt": "Hi"})),
        ("/detokenize", json!({"tokens": [72, 105]})),
    ];
    for (path, body) in bodies {
        let answer = client
            .send(Method::POST, path, gzip(&body.to_string()))
            .await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
    let plain = fixture.client();
    assert_eq!(
        send(&plain, "identity", chat(json!({})).to_string().as_bytes())
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_byte_order_mark_is_no_part_of_the_text() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    for filler in [0, 10_000] {
        let body = format!("\u{feff}{}{}", chat(json!({})), " ".repeat(filler));
        assert_eq!(client.send(Method::POST, CHAT, &body).await.status, 200);
        assert_eq!(send(&client, "gzip", &gzip(&body)).await.status, 200);
        let twice = format!("\u{feff}{body}");
        let answer = client.send(Method::POST, CHAT, twice).await;
        assert_eq!(refusal(&answer), (400, "invalid_json".into()));
    }
}

#[tokio::test]
async fn what_cannot_be_unpacked_is_a_400_and_what_is_unknown_a_415() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let text = chat(json!({})).to_string();
    let packed = gzip(&text);
    let bad = |answer: Answer| assert_eq!(refusal(&answer), (400, "invalid_body_encoding".into()));
    bad(send(&client, "gzip", text.as_bytes()).await);
    bad(send(&client, "gzip", b"").await);
    bad(send(&client, "gzip", &packed[..packed.len() - 3]).await);
    bad(send(&client, "gzip", &[&packed[..], b"{}"].concat()).await);
    bad(send(&client, "gzip, gzip", &gzip("")).await);
    for coding in ["br", "deflate", "zstd"] {
        let answer = send(&client, coding, text.as_bytes()).await;
        assert_eq!(
            refusal(&answer),
            (415, "unsupported_content_encoding".into())
        );
        assert!(answer.text.contains("gzip and identity"));
        assert_eq!(answer.header("accept-encoding"), "gzip, identity");
    }
    let typed = async |kind: &str| {
        let client = client.clone().with("content-type", kind);
        client.send(Method::POST, CHAT, &text).await
    };
    for kind in [
        "application/json; charset=utf-16",
        "application/json; charset=\"Latin-1\"",
    ] {
        let answer = typed(kind).await;
        assert_eq!(refusal(&answer), (415, "unsupported_charset".into()));
        assert!(answer.text.contains("utf-8"));
    }
    assert_eq!(
        typed("application/json; Charset=\"UTF-8\"").await.status,
        200
    );
    let messages = client.clone().with("content-encoding", "br");
    let answer = messages.post("/v1/messages", &json!({})).await;
    assert_eq!(
        (answer.status, answer.json()["error"]["type"].as_str()),
        (415, Some("invalid_request_error"))
    );
}

#[tokio::test]
async fn a_bomb_costs_no_more_than_the_limit() {
    let options = Options::default().config(|config| config.max_body_bytes = 100_000);
    let fixture = Fixture::ready(options).await;
    let client = fixture.client();
    let bomb = gzip(&" ".repeat(64 << 20));
    assert!(bomb.len() < 100_000);
    let answer = send(&client, "gzip", &bomb).await;
    assert_eq!(refusal(&answer), (413, "body_too_large".into()));
    let mut text = chat(json!({})).to_string();
    text += &" ".repeat(100_000 - text.len());
    assert_eq!(send(&client, "gzip", &gzip(&text)).await.status, 200);
    text.push(' ');
    assert_eq!(send(&client, "gzip", &gzip(&text)).await.status, 413);
}
