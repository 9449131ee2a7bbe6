//! What each failure of the stand-in looks like to a client that sees every byte.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use backstop_drill::{FAULTS, Fault, StandIn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const NONCE: &str = "drill-0123456789abcdef";
/// Silence that is longer is taken to last for ever. The stand-in says what it has to say within a few milliseconds.
const SILENCE: Duration = Duration::from_millis(1500);
/// What the stand-in says at the end of an answer that is whole.
const LAST_WORD: &str = "all.";

/// How a connection went on after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Refused,
    Reset,
    /// All of an answer was there, as HTTP has it.
    Whole,
    /// It was closed within an answer.
    Cut,
    Silent,
}

struct Seen {
    text: String,
    end: End,
}

impl Seen {
    fn status(&self) -> &str {
        self.text.split(' ').nth(1).unwrap_or_default()
    }

    /// Of the answer's text, how much arrived.
    fn has_nonce(&self) -> bool {
        self.text
            .split_once("\r\n\r\n")
            .is_some_and(|(_, body)| body.contains(&format!("{NONCE}:")))
    }
}

async fn start() -> StandIn {
    StandIn::start("127.0.0.1:0".parse().unwrap()).unwrap()
}

fn request(is_stream: bool) -> String {
    let body = format!(
        r#"{{"model": "m", "stream": {is_stream}, "messages": [{{"role": "user", "content": "Request {NONCE}."}}]}}"#
    );
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

async fn ask(address: SocketAddr, is_stream: bool) -> Seen {
    let mut stream = match TcpStream::connect(address).await {
        Ok(stream) => stream,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            return Seen {
                text: String::new(),
                end: End::Refused,
            };
        }
    };
    // It may be reset while it is sent.
    let _ = stream.write_all(request(is_stream).as_bytes()).await;
    let mut bytes = Vec::new();
    let end = loop {
        let mut piece = [0; 4096];
        match tokio::time::timeout(SILENCE, stream.read(&mut piece)).await {
            Err(_) => break End::Silent,
            Ok(Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                break End::Reset;
            }
            Ok(Ok(0)) => break End::Cut,
            Ok(Ok(count)) => bytes.extend_from_slice(&piece[..count]),
        }
        if is_complete(&bytes) {
            break End::Whole;
        }
    };
    Seen {
        text: String::from_utf8(bytes).unwrap(),
        end,
    }
}

/// The stand-in sends everything but its own errors in chunks, the last of which is empty.
fn is_complete(bytes: &[u8]) -> bool {
    bytes.ends_with(b"\r\n0\r\n\r\n")
}

#[tokio::test]
async fn every_failure_is_what_it_is_called() {
    let stand_in = start().await;
    for fault in &FAULTS {
        let name = fault.name;
        stand_in.set(Some(fault)).await;
        let address = stand_in.address();
        let (streams, whole) = tokio::join!(ask(address, true), ask(address, false));
        match name {
            "connection-refused" => assert!(both(&streams, &whole, End::Refused)),
            "connection-reset" => assert!(both(&streams, &whole, End::Reset)),
            // These clients ask for no certificate.
            "tls-failure" => assert!(both(&streams, &whole, End::Whole) && streams.has_nonce()),
            "status-429-retry-after" => assert!(streams.text.contains("retry-after: 30\r\n")),
            "status-429" => assert!(!streams.text.contains("retry-after")),
            "status-502" => assert!(whole.text.contains("<html>")),
            "context-overflow" => {
                assert!(whole.text.contains(r#""code":"context_length_exceeded""#))
            }
            "content-policy" => {
                assert!(whole.text.contains(r#""code":"content_policy_violation""#))
            }
            "content-filter" => {
                for seen in [&streams, &whole] {
                    assert!(seen.text.contains("content_filter") && !seen.has_nonce());
                    assert_eq!((seen.end, seen.status()), (End::Whole, "200"));
                }
            }
            "garbage-json" => {
                assert!(both(&streams, &whole, End::Whole) && !whole.text.contains("usage"))
            }
            "hang-before-headers" => {
                assert!(both(&streams, &whole, End::Silent));
                assert!(streams.text.is_empty() && whole.text.is_empty());
            }
            "hang-after-headers" => {
                assert!(both(&streams, &whole, End::Silent));
                assert!(streams.text.ends_with("\r\n\r\n") && streams.status() == "200");
            }
            "slow-death" => assert!(both(&streams, &whole, End::Whole) && streams.has_nonce()),
            "stream-cut-before-text" => {
                assert!(streams.end == End::Cut && streams.text.contains("assistant"));
                assert!(!streams.has_nonce());
            }
            "cut-in-text" => assert!(both(&streams, &whole, End::Cut) && streams.has_nonce()),
            "stream-ends-early" => {
                assert!(streams.end == End::Whole && streams.has_nonce());
                assert!(!streams.text.contains("[DONE]") && !streams.text.contains(LAST_WORD));
            }
            "stream-done-early" => {
                assert!(streams.end == End::Whole && streams.text.contains("[DONE]"));
                assert!(!streams.text.contains(r#""finish_reason":"stop""#));
            }
            "stream-stall" => assert!(streams.end == End::Silent && streams.has_nonce()),
            other => {
                let status = other.strip_prefix("status-").expect("a case of this test");
                assert_eq!((streams.status(), whole.status()), (status, status));
                assert_eq!(whole.end, End::Whole);
            }
        }
    }
}

fn both(streams: &Seen, whole: &Seen, end: End) -> bool {
    streams.end == end && whole.end == end
}

#[tokio::test]
async fn it_is_well_before_and_after_every_failure() {
    let stand_in = start().await;
    for fault in &FAULTS {
        stand_in.set(Some(fault)).await;
        stand_in.set(None).await;
        for is_stream in [true, false] {
            let seen = ask(stand_in.address(), is_stream).await;
            assert_eq!(
                (seen.end, seen.status()),
                (End::Whole, "200"),
                "{}",
                fault.name
            );
            assert!(
                seen.text.contains(LAST_WORD) && seen.text.contains(r#""finish_reason":"stop""#)
            );
        }
    }
}

#[tokio::test]
async fn a_connection_from_before_a_failure_serves_nothing_more() {
    let stand_in = start().await;
    let mut stream = TcpStream::connect(stand_in.address()).await.unwrap();
    stream.write_all(request(false).as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    while !is_complete(&bytes) {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).await.unwrap();
        bytes.extend_from_slice(&piece[..count]);
    }
    stand_in
        .set(Some(Fault::named("status-503").unwrap()))
        .await;
    let mut rest = Vec::new();
    assert_eq!(
        stream.read_to_end(&mut rest).await.unwrap(),
        0,
        "it was closed"
    );
}

#[tokio::test]
async fn its_certificate_is_from_nobody() {
    let stand_in = start().await;
    stand_in
        .set(Some(Fault::named("tls-failure").unwrap()))
        .await;
    let mut stream = TcpStream::connect(stand_in.address()).await.unwrap();
    // What a client of TLS 1.2 says first, without a cipher that anybody has: the stand-in answers in TLS.
    let hello = b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x03";
    stream.write_all(hello).await.unwrap();
    stream.write_all(&[7; 32]).await.unwrap();
    stream
        .write_all(b"\x00\x00\x02\x00\x01\x01\x00")
        .await
        .unwrap();
    let mut record = [0; 2];
    stream.read_exact(&mut record).await.unwrap();
    assert_eq!(record, [0x15, 3], "an alert");
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_that_says_so() {
    let stand_in = start().await;
    let error = StandIn::start(stand_in.address())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("--stand-in"), "{error}");
}

#[tokio::test]
async fn what_is_no_chat_is_refused() {
    let stand_in = start().await;
    for (text, status) in [
        (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n[]",
            "400",
        ),
        ("GET /v1/elsewhere HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        ("GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n", "200"),
    ] {
        let mut stream = TcpStream::connect(stand_in.address()).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).await.unwrap();
        let answer = String::from_utf8_lossy(&bytes[..count]).into_owned();
        assert_eq!(answer.split(' ').nth(1), Some(status), "{answer}");
    }
}
