//! Connections: which are let in, which make room, and that a crowd of them delays nobody.

use std::time::Duration;

use backstop_server::{KeySet, Provenance, ServerConfig};
use hyper::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{Client, Open};
use crate::support::executor::Script;
use crate::support::{Fixture, Options, chat, eventually};

const CHAT: &str = "/v1/chat/completions";
const UNFINISHED: &[u8] = b"POST /v1/completions HTTP/1.1\r\nhost: t\r\n";
/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server whose answers go on, with one key.
async fn keyed(change: impl FnOnce(&mut ServerConfig)) -> Fixture {
    let options = Options {
        provenance: Provenance::new("north", "0123", "4567"),
        ..Options::script(Script::repeats("abc ").slowly(5))
    };
    let options = options.config(|config| {
        config.api_keys = Some(KeySet::new(["a-good-key"]));
        change(config);
    });
    Fixture::ready(options).await
}

fn holder(fixture: &Fixture) -> Client {
    fixture.client().with("authorization", "Bearer a-good-key")
}

async fn stream_of(client: &Client) -> Open {
    let body = chat(json!({"stream": true})).to_string();
    let mut open = client.open(Method::POST, CHAT, &body).await;
    assert_eq!(open.response.status(), 200);
    open.piece().await.unwrap();
    open
}

/// A connection whose request never gets anywhere.
async fn unfinished(fixture: &Fixture) -> TcpStream {
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    // It may have had to make room already.
    let _ignored = stream.write_all(UNFINISHED).await;
    stream
}

/// What comes until the connection is closed; a reset closes it too.
async fn until_closed(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let reading = stream.read_to_end(&mut bytes);
    let _reset = tokio::time::timeout(PATIENCE, reading).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Whether the server still holds the connection.
fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn a_crowd_of_unfinished_heads_delays_neither_probes_nor_streams() {
    let fixture = keyed(|config| {
        config.max_connections = 20;
        config.max_stranger_connections_per_address = 5;
    })
    .await;
    let mut stream = stream_of(&holder(&fixture)).await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(unfinished(&fixture).await);
    }
    assert_eq!(fixture.client().get("/health").await.status, 200);
    assert_eq!(holder(&fixture).get("/v1/models").await.status, 200);
    for _ in 0..20 {
        stream.piece().await.unwrap();
    }
    eventually("all but the share are gone", || {
        crowd.iter().filter(|stream| is_open(stream)).count() <= 5
    })
    .await;
}

#[tokio::test]
async fn holders_of_keys_have_no_share_of_their_address() {
    let fixture = keyed(|config| config.max_stranger_connections_per_address = 2).await;
    let mut streams = Vec::new();
    for _ in 0..6 {
        streams.push(stream_of(&holder(&fixture)).await);
    }
    let strangers = [unfinished(&fixture).await, unfinished(&fixture).await];
    assert!(
        until_closed(unfinished_after(&fixture, strangers).await)
            .await
            .is_empty()
    );
    for stream in &mut streams {
        for _ in 0..5 {
            stream.piece().await.unwrap();
        }
    }
}

/// Opens one more connection, and returns the one that had to make room for it.
async fn unfinished_after(fixture: &Fixture, strangers: [TcpStream; 2]) -> TcpStream {
    let _another = unfinished(fixture).await;
    let [oldest, _next] = strangers;
    oldest
}

#[tokio::test]
async fn without_keys_a_request_of_its_own_makes_a_connection_known() {
    let options = Options::script(Script::repeats("abc ").slowly(5))
        .config(|config| config.max_stranger_connections_per_address = 1);
    let fixture = Fixture::ready(options).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(stream_of(&fixture.client()).await);
    }
    for stream in &mut streams {
        stream.piece().await.unwrap();
    }
}

#[tokio::test]
async fn the_oldest_idle_connection_makes_room_and_the_newest_is_answered() {
    let options = Options::default().config(|config| config.max_connections = 1);
    let fixture = Fixture::ready(options).await;
    let first = TcpStream::connect(fixture.address).await.unwrap();
    assert_eq!(fixture.client().get("/health").await.status, 200);
    assert_eq!(until_closed(first).await, "");
}

#[tokio::test]
async fn a_running_request_is_never_cut_and_the_newcomer_hears_that_all_are_in_use() {
    let fixture = keyed(|config| config.max_connections = 1).await;
    let mut stream = stream_of(&holder(&fixture)).await;
    let newcomer = TcpStream::connect(fixture.address).await.unwrap();
    let answer = until_closed(newcomer).await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert!(
        answer.contains("\r\nx-backstop-model: north@0123\r\n"),
        "{answer}"
    );
    assert!(answer.contains("queue_full"), "{answer}");
    for _ in 0..20 {
        stream.piece().await.unwrap();
    }
    drop(stream);
    fixture.engine_idle().await;
    let client = holder(&fixture);
    let mut status = 429;
    // The place is free a moment after the engine is.
    for _ in 0..1000 {
        let mut socket = TcpStream::connect(fixture.address).await.unwrap();
        let request = b"GET /health HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
        let _refused = socket.write_all(request).await;
        if until_closed(socket).await.starts_with("HTTP/1.1 200 ") {
            status = client.get("/v1/models").await.status;
            break;
        }
    }
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_slow_head_is_a_408_and_a_silent_connection_is_closed() {
    let options =
        Options::default().config(|config| config.head_read_timeout = Duration::from_millis(100));
    let fixture = Fixture::ready(options).await;
    let slow = until_closed(unfinished(&fixture).await).await;
    assert!(slow.starts_with("HTTP/1.1 408 "), "{slow}");
    assert!(slow.contains("head_timeout"), "{slow}");
    let silent = TcpStream::connect(fixture.address).await.unwrap();
    assert_eq!(until_closed(silent).await, "");
}

#[tokio::test]
async fn a_kept_connection_may_idle_for_longer_than_a_head_may_take() {
    let options = Options::default().config(|config| {
        config.head_read_timeout = Duration::from_millis(50);
        config.idle_timeout = Duration::from_millis(600);
    });
    let fixture = Fixture::ready(options).await;
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    let request = b"GET /health HTTP/1.1\r\nhost: t\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut bytes = [0; 4096];
    assert!(stream.read(&mut bytes).await.unwrap() > 0);
    // Four times what a head may take, which is the wait that is tested.
    tokio::time::sleep(Duration::from_millis(200)).await;
    stream.write_all(request).await.unwrap();
    let count = stream.read(&mut bytes).await.unwrap();
    assert!(bytes[..count].starts_with(b"HTTP/1.1 200 "));
    assert_eq!(until_closed(stream).await, "");
}

#[tokio::test]
async fn probes_on_an_address_of_their_own_are_answered_whatever_the_main_one_does() {
    let fixture = keyed(|config| config.max_connections = 1).await;
    let listener = backstop_server::listen(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let thread = backstop_server::serve_probes(&fixture.server, listener).unwrap();
    let _stream = stream_of(&holder(&fixture)).await;
    let probe = Client::new(address);
    for path in ["/health", "/ready", "/ping"] {
        assert_eq!(probe.get(path).await.status, 200, "{path}");
    }
    let with_key = probe.clone().with("authorization", "Bearer a-good-key");
    for path in ["/metrics", "/v1/models", "/"] {
        assert_eq!(probe.get(path).await.status, 401, "{path}");
        assert_eq!(with_key.get(path).await.status, 404, "{path}");
    }
    drop(thread);
    assert!(TcpStream::connect(address).await.is_err());
}
