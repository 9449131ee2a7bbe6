//! What a gateway and this server might read differently is refused, and the connection closed.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Fixture, Options};

const POST: &str = "POST /v1/completions HTTP/1.1\r\nhost: t\r\n";
const SMUGGLED: &str = "GET /version HTTP/1.1\r\nhost: t\r\n\r\n";
/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends bytes and reads until the server closes the connection.
async fn exchange(fixture: &Fixture, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let mut answer = Vec::new();
    let sending = async {
        // The server may have had enough.
        let _ignored = writer.write_all(bytes).await;
    };
    let both = async { tokio::join!(sending, reader.read_to_end(&mut answer)) };
    let ((), read) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    read.unwrap();
    String::from_utf8(answer).unwrap()
}

/// The only answer: its status and the code of its error.
fn refusal(answer: &str) -> (u16, String) {
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("connection: close"), "{head}");
    let error: Value = serde_json::from_str(body).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let code = error["error"]["code"].as_str().unwrap().to_owned();
    (status, code)
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_a_400_and_nothing_behind_it_is_read() {
    let fixture = Fixture::ready(Options::default()).await;
    let heads = [
        "GET /health HTTP/1.1\nhost: t\n\n".to_owned(),
        "GET /health HTTP/1.1\r\nhost: t\n\r\n".to_owned(),
        format!("{POST}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{POST}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        format!("{POST}transfer-encoding: identity\r\n\r\n"),
        format!("{POST}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{POST}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"),
        format!("{POST}content-length: 0\r\ncontent-length: 5\r\n\r\n"),
        format!("{POST}content-length: 0\r\ncontent-length: 0\r\n\r\n"),
        format!("{POST}content-length: +0\r\n\r\n"),
        format!("{POST}x: a\r\n folded\r\n\r\n"),
        format!("{POST}content-length : 5\r\n\r\n"),
        format!("{POST}content length: 5\r\n\r\n"),
        format!("{POST}host: u\r\n\r\n"),
        "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "GET /health\r\n\r\n".to_owned(),
    ];
    for head in heads {
        let answer = exchange(&fixture, format!("{head}{SMUGGLED}").as_bytes()).await;
        assert_eq!(refusal(&answer), (400, "malformed_head".into()), "{head}");
    }
}

#[tokio::test]
async fn oversized_heads_are_answered_before_they_end_and_while_they_are_sent() {
    let fixture = Fixture::ready(Options::default()).await;
    let megabytes = "a".repeat(3 << 20);
    let cases = [
        (
            format!("GET /{megabytes} HTTP/1.1\r\n\r\n"),
            (414, "target_too_long"),
        ),
        (
            format!("{POST}x: {megabytes}\r\n\r\n"),
            (431, "head_too_large"),
        ),
        (
            format!("{POST}{}\r\n", "x: y\r\n".repeat(101)),
            (431, "head_too_large"),
        ),
    ];
    for (text, (status, code)) in cases {
        let answer = exchange(&fixture, text.as_bytes()).await;
        assert_eq!(refusal(&answer), (status, code.into()));
    }
}

#[tokio::test]
async fn malformed_chunks_end_the_connection() {
    let fixture = Fixture::ready(Options::default()).await;
    let extension = format!("1;{}\r\n{{\r\n", "x".repeat(5000));
    for chunks in [
        "zz\r\n",
        "1 \r\n{\r\n",
        "1\n{\n0\n\n",
        "1\r\n{}\r\n",
        &extension,
    ] {
        let text = format!("{POST}transfer-encoding: chunked\r\n\r\n{chunks}{SMUGGLED}");
        let answer = exchange(&fixture, text.as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(!answer.contains("\"version\""), "{answer}");
    }
}

#[tokio::test]
async fn good_requests_before_a_malformed_one_are_answered_first() {
    let fixture = Fixture::ready(Options::default()).await;
    let good = format!("{POST}content-length: 2\r\n\r\n{{}}{SMUGGLED}");
    let text = format!("{good}GET / HTTP/1.1\nhost: t\n\n{SMUGGLED}");
    let answer = exchange(&fixture, text.as_bytes()).await;
    let statuses: Vec<&str> = answer
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|text| &text[..3])
        .collect();
    assert_eq!(statuses, ["400", "200", "400"]);
    assert!(answer.contains("'prompt'"), "{answer}");
    assert!(answer.contains("malformed_head"), "{answer}");
}

#[tokio::test]
async fn refusals_are_counted_like_other_answers() {
    let fixture = Fixture::ready(Options::default()).await;
    exchange(&fixture, b"GET / HTTP/1.1\n\n").await;
    let metrics = fixture.client().get("/metrics").await.text;
    let counted = metrics
        .lines()
        .any(|line| line.contains("\"other\"") && line.contains("\"400\""));
    assert!(counted, "{metrics}");
}
