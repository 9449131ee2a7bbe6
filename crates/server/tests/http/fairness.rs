//! Keys beside one another: none shuts another one out, and none learns what another has asked.

use backstop_server::{KeySet, KeySettings};
use futures::future::select_all;
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{Client, Open};
use crate::support::executor::Script;
use crate::support::{Fixture, Options, chat, completion, eventually};

const CHAT: &str = "/v1/chat/completions";

fn settings(name: &str) -> KeySettings {
    KeySettings {
        name: Some(name.to_owned()),
        ..KeySettings::default()
    }
}

/// Two keys beside one another, and one that sees them.
fn keyed(options: Options) -> Options {
    let seeing = KeySettings {
        may_see_all_keys: true,
        ..settings("prometheus")
    };
    let keys = KeySet::with_settings([
        ("greedy-key", settings("greedy")),
        ("modest-key", settings("modest")),
        ("seeing-key", seeing),
    ]);
    options.config(|config| config.api_keys = Some(keys))
}

fn with_key(fixture: &Fixture, key: &str) -> Client {
    fixture.client().with("x-api-key", key)
}

#[tokio::test]
async fn a_key_is_answered_although_another_fills_engine_and_queue() {
    let options = Options {
        max_num_seqs: 4,
        ..Options::script(Script::repeats("abc ").slowly(2))
    };
    let options = keyed(options).config(|config| config.normal.max_requests = 8);
    let fixture = Fixture::ready(options).await;
    let (greedy, modest) = (
        with_key(&fixture, "greedy-key"),
        with_key(&fixture, "modest-key"),
    );
    let endless = chat(json!({"stream": true}));
    let mut streams: Vec<Open> = Vec::new();
    for _ in 0..4 {
        streams.push(greedy.open(Method::POST, CHAT, endless.to_string()).await);
    }
    let queue: Vec<_> = (0..16)
        .map(|_| {
            let (greedy, endless) = (greedy.clone(), endless.clone());
            tokio::spawn(async move { greedy.chat(&endless).await.status })
        })
        .collect();
    eventually("its queue is full", || {
        fixture.engine.stats().scheduler.waiting == 7
            && queue.iter().filter(|waiting| waiting.is_finished()).count() == 9
    })
    .await;
    // More than the crowd's streams leave for others, and each of them at once.
    for _ in 0..3 {
        let answer = modest.chat(&chat(json!({"max_tokens": 20}))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.json()["usage"]["completion_tokens"], 20);
    }
    // Nobody lost anything by it.
    for stream in &mut streams {
        for _ in 0..30 {
            assert!(stream.piece().await.is_some());
        }
    }
    queue.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Tokens of the prompt that were cached, wherever an API reports them.
fn cached(answer: &Value) -> u64 {
    let usage = &answer["usage"];
    let places = [
        &usage["prompt_tokens_details"]["cached_tokens"],
        &usage["input_tokens_details"]["cached_tokens"],
        &usage["cache_read_input_tokens"],
    ];
    let found = places.into_iter().find_map(Value::as_u64);
    found.unwrap_or(0)
}

/// The four APIs, each with a request that begins like no other's.
fn requests() -> [(&'static str, Value); 4] {
    let text = |first: &str| format!("{first} {}", "x".repeat(200));
    let message = |first: &str| json!([{"role": "user", "content": text(first)}]);
    [
        (CHAT, json!({"messages": message("chat"), "max_tokens": 2})),
        (
            "/v1/completions",
            json!({"prompt": text("completion"), "max_tokens": 2}),
        ),
        (
            "/v1/responses",
            json!({"input": text("response"), "max_output_tokens": 2}),
        ),
        (
            "/v1/messages",
            json!({"messages": message("message"), "max_tokens": 2}),
        ),
    ]
}

async fn cached_for(client: &Client, path: &str, body: &Value, salt: Option<&str>) -> u64 {
    let mut body = body.clone();
    if let Some(salt) = salt {
        body["cache_salt"] = json!(salt);
    }
    let answer = client.post(path, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    cached(&answer.json())
}

#[tokio::test]
async fn a_cached_prefix_is_found_by_its_own_key_and_salt_alone() {
    let fixture = Fixture::ready(keyed(Options::default())).await;
    let (first, second) = (
        with_key(&fixture, "greedy-key"),
        with_key(&fixture, "modest-key"),
    );
    for (path, body) in requests() {
        assert_eq!(cached_for(&first, path, &body, None).await, 0, "{path}");
        assert!(cached_for(&first, path, &body, None).await > 100, "{path}");
        assert_eq!(cached_for(&second, path, &body, None).await, 0, "{path}");
        assert_eq!(
            cached_for(&first, path, &body, Some("a")).await,
            0,
            "{path}"
        );
        assert!(
            cached_for(&first, path, &body, Some("a")).await > 100,
            "{path}"
        );
        assert_eq!(
            cached_for(&second, path, &body, Some("a")).await,
            0,
            "{path}"
        );
        assert_eq!(
            cached_for(&first, path, &body, Some("b")).await,
            0,
            "{path}"
        );
        let mut bad = body.clone();
        bad["cache_salt"] = json!("");
        let answer = first.post(path, &bad).await;
        assert_eq!(answer.status, 400);
        assert!(answer.text.contains("cache_salt"), "{}", answer.text);
    }
}

#[tokio::test]
async fn prefixes_are_shared_between_keys_on_request_and_without_keys() {
    let shared = keyed(Options::default()).config(|config| config.share_prefix_cache = true);
    for options in [shared, Options::default()] {
        let fixture = Fixture::ready(options).await;
        let (first, second) = (
            with_key(&fixture, "greedy-key"),
            with_key(&fixture, "modest-key"),
        );
        for (path, body) in requests() {
            assert_eq!(cached_for(&first, path, &body, None).await, 0, "{path}");
            assert!(cached_for(&second, path, &body, None).await > 100, "{path}");
            assert_eq!(
                cached_for(&second, path, &body, Some("a")).await,
                0,
                "{path}"
            );
            assert!(
                cached_for(&first, path, &body, Some("a")).await > 100,
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn metrics_name_other_keys_to_those_who_may_see_them_alone() {
    let options = keyed(Options::default()).config(|config| config.public_metrics = true);
    let fixture = Fixture::ready(options).await;
    for key in ["greedy-key", "modest-key"] {
        let client = with_key(&fixture, key);
        assert_eq!(client.complete(&completion(json!({}))).await.status, 200);
    }
    let names = async |client: Client| {
        let metrics = client.get("/metrics").await.text;
        let known = ["greedy", "modest"].into_iter();
        let known = known.filter(|name| metrics.contains(&format!("{{key=\"{name}\"}} 1")));
        (
            known.collect::<Vec<_>>(),
            metrics.contains("backstop:keys 3"),
        )
    };
    assert_eq!(
        names(with_key(&fixture, "greedy-key")).await,
        (vec!["greedy"], true)
    );
    assert_eq!(
        names(with_key(&fixture, "seeing-key")).await,
        (vec!["greedy", "modest"], true)
    );
    assert_eq!(names(fixture.client()).await, (vec![], true));
    assert_eq!(
        names(with_key(&fixture, "no-such-key")).await,
        (vec![], true)
    );
}

/// Begins to send a body and does not go on.
async fn stall(fixture: &Fixture, key: &str, bytes: usize) -> TcpStream {
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: test\r\nx-api-key: {key}\r\ncontent-length: {}\r\n\r\n",
        bytes + 1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; bytes]).await.unwrap();
    stream
}

#[tokio::test]
async fn bodies_that_never_end_shut_nobody_else_out() {
    let options = keyed(Options::default()).config(|config| {
        config.max_body_bytes = 32 << 10;
        config.max_buffered_body_bytes = 256 << 10;
    });
    let fixture = Fixture::ready(options).await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        stalled.push(stall(&fixture, "greedy-key", 31 << 10).await);
    }
    // Those for which there is no room are refused.
    let refused = stalled.iter_mut().map(|stream| {
        Box::pin(async {
            let mut status = [0; 12];
            stream.read_exact(&mut status).await.unwrap();
            status
        })
    });
    let (status, ..) = select_all(refused).await;
    assert_eq!(&status, b"HTTP/1.1 429");
    let padded = format!("{}{}", chat(json!({})), " ".repeat(30 << 10));
    let other = with_key(&fixture, "modest-key");
    let answer = other.send(Method::POST, CHAT, padded).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn tokens_that_are_counted_alone_are_taken_from_the_limit() {
    let limited = KeySettings {
        tokens_per_minute: Some(100),
        ..settings("limited")
    };
    let paths = [
        ("/tokenize", json!({"prompt": "x".repeat(300)})),
        ("/detokenize", json!({"tokens": vec![65; 300]})),
        (
            "/v1/messages/count_tokens",
            json!({"messages": [{"role": "user", "content": "x".repeat(300)}]}),
        ),
    ];
    for (path, body) in paths {
        // What is owed is the holder's: each case has one of its own.
        let keys = KeySet::with_settings([("limited-key", limited.clone())]);
        let options = Options::default().config(|config| config.api_keys = Some(keys));
        let fixture = Fixture::ready(options).await;
        let client = with_key(&fixture, "limited-key");
        let first = client.post(path, &body).await;
        assert_eq!(
            (first.status, first.header("x-ratelimit-remaining-tokens")),
            (200, "0")
        );
        let second = client.post(path, &body).await;
        assert_eq!(second.status, 429, "{path}: {}", second.text);
    }
}
