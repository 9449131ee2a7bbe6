//! Load, disconnects, deadlines and shutdown: nothing hangs, and nobody pays for another.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::join_all;
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::executor::Script;
use crate::support::{Fixture, Options, chat, completion, eventually};

const CHAT: &str = "/v1/chat/completions";

/// A server whose answers go on until they fill the context, a token each few milliseconds.
async fn endless(options: impl FnOnce(Options) -> Options) -> Fixture {
    Fixture::ready(options(Options::script(Script::repeats("abc ").slowly(5)))).await
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_frees_its_sequence() {
    let fixture = endless(|options| options).await;
    let body = chat(json!({"stream": true, "n": 3})).to_string();
    let mut open = fixture.client().open(Method::POST, CHAT, &body).await;
    assert_eq!(open.response.status(), 200);
    open.piece().await.unwrap();
    assert!(fixture.server.requests_in_flight() == 1);
    drop(open);
    fixture.engine_idle().await;
    eventually("the request is gone", || {
        fixture.server.requests_in_flight() == 0
    })
    .await;
    let metrics = fixture.client().get("/metrics").await.text;
    assert!(metrics.contains("finished_reason=\"abort\""), "{metrics}");
}

#[tokio::test]
async fn a_client_that_leaves_before_the_whole_answer_frees_its_sequence() {
    let fixture = endless(|options| options).await;
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    let body = chat(json!({})).to_string();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    eventually("the sequence runs", || {
        fixture.engine.stats().scheduler.running == 1
    })
    .await;
    drop(stream);
    fixture.engine_idle().await;
    eventually("the request is gone", || {
        fixture.server.requests_in_flight() == 0
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_is_forgotten() {
    let fixture = endless(|options| Options {
        max_num_seqs: 1,
        ..options
    })
    .await;
    let streaming = chat(json!({"stream": true})).to_string();
    let running = fixture.client().open(Method::POST, CHAT, &streaming).await;
    let client = fixture.client();
    let waiting = tokio::spawn(async move { client.open(Method::POST, CHAT, &streaming).await });
    eventually("one waits", || {
        fixture.engine.stats().scheduler.waiting == 1
    })
    .await;
    // No status before the sequence leaves the queue.
    assert!(!waiting.is_finished());
    waiting.abort();
    eventually("none waits", || {
        fixture.engine.stats().scheduler.waiting == 0
    })
    .await;
    drop(running);
    fixture.engine_idle().await;
}

#[tokio::test]
async fn a_full_queue_is_a_429_and_a_long_wait_a_503() {
    let fixture = endless(|options| {
        let options = Options {
            max_num_seqs: 1,
            max_waiting: 1,
            ..options
        };
        options.config(|config| config.normal.timeout = Duration::from_millis(300))
    })
    .await;
    let streaming = chat(json!({"stream": true})).to_string();
    let running = fixture.client().open(Method::POST, CHAT, &streaming).await;
    let client = fixture.client();
    let waiting = tokio::spawn(async move { client.chat(&chat(json!({"stream": true}))).await });
    eventually("one waits", || {
        fixture.engine.stats().scheduler.waiting == 1
    })
    .await;
    let refused = fixture.client().chat(&chat(json!({}))).await;
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (429, "queue_full")
    );
    let late = waiting.await.unwrap();
    assert_eq!(
        (late.status, late.error_code().as_str()),
        (503, "deadline_exceeded")
    );
    drop(running);
}

#[tokio::test]
async fn one_choice_too_many_gives_back_the_others() {
    let fixture = endless(|options| Options {
        max_num_seqs: 1,
        max_waiting: 2,
        ..options
    })
    .await;
    let answer = fixture.client().chat(&chat(json!({"n": 16}))).await;
    assert_eq!(answer.status, 429);
    fixture.engine_idle().await;
}

#[tokio::test]
async fn sixty_four_at_once_all_get_their_own_answer() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let requests = (0..64u32).map(|number| {
        let client = client.clone();
        async move {
            let extra = json!({"prompt": format!("<{number}>"), "echo": true,
                               "stream": number % 2 == 0});
            let answer = client.complete(&completion(extra)).await;
            assert_eq!(answer.status, 200);
            let text: String = if number % 2 == 0 {
                let chunks = answer.chunks();
                chunks
                    .iter()
                    .map(|c| c["choices"][0]["text"].as_str().unwrap())
                    .collect()
            } else {
                answer.json()["choices"][0]["text"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            };
            assert_eq!(text, format!("<{number}>Hello, world!"));
        }
    });
    join_all(requests).await;
    fixture.engine_idle().await;
    eventually("all are gone", || fixture.server.requests_in_flight() == 0).await;
}

#[tokio::test]
async fn a_slow_client_gets_fewer_and_larger_pieces() {
    let script = Script::repeats("abcdefgh");
    let fixture = Fixture::ready(Options::script(script)).await;
    let body = chat(json!({"stream": true, "max_tokens": 1000})).to_string();
    let open = fixture.client().open(Method::POST, CHAT, &body).await;
    fixture.engine_idle().await;
    let answer = open.rest().await;
    let chunks = answer.chunks();
    let text: String = chunks
        .iter()
        .filter_map(|c| {
            c["choices"][0]["delta"]["content"]
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    assert_eq!(text, "abcdefgh".repeat(125));
    assert!(chunks.len() < 1000, "{}", chunks.len());
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_ended() {
    let fixture = endless(|options| {
        options.config(|config| config.request_timeout = Duration::from_millis(300))
    })
    .await;
    let streamed = fixture.client().chat(&chat(json!({"stream": true}))).await;
    let last: Value = serde_json::from_str(streamed.events().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "deadline_exceeded");
    let whole = fixture.client().chat(&chat(json!({}))).await;
    assert_eq!(
        (whole.status, whole.error_code().as_str()),
        (503, "deadline_exceeded")
    );
    fixture.engine_idle().await;
}

#[tokio::test]
async fn pauses_are_filled_with_comments() {
    let script = Script::repeats("a").slowly(1);
    let stalled = script.stalled.clone();
    let options = Options::script(script)
        .config(|config| config.keep_alive_interval = Duration::from_millis(50));
    let fixture = Fixture::ready(options).await;
    let body = chat(json!({"stream": true})).to_string();
    let mut open = fixture.client().open(Method::POST, CHAT, &body).await;
    stalled.store(true, Ordering::Relaxed);
    while open.piece().await.unwrap() != ": keep-alive\n\n" {}
    stalled.store(false, Ordering::Relaxed);
}

#[tokio::test]
async fn a_dying_engine_answers_everybody() {
    let script = Script::repeats("a").slowly(2);
    let broken = script.broken.clone();
    let fixture = Fixture::ready(Options {
        max_num_seqs: 1,
        ..Options::script(script)
    })
    .await;
    let streaming = chat(json!({"stream": true})).to_string();
    let open = fixture.client().open(Method::POST, CHAT, &streaming).await;
    let client = fixture.client();
    let waiting = tokio::spawn(async move { client.chat(&chat(json!({}))).await });
    eventually("one waits", || {
        fixture.engine.stats().scheduler.waiting == 1
    })
    .await;
    broken.store(true, Ordering::Relaxed);
    let answer = open.rest().await;
    let last: Value = serde_json::from_str(answer.events().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "engine_unavailable");
    assert_eq!(waiting.await.unwrap().error_code(), "engine_unavailable");
    // Answers fail a moment before the engine's life is said to have ended; meanwhile the queue may still be full.
    fixture.lifecycle.failed().await;
    let late = fixture.client().chat(&chat(json!({}))).await;
    assert_eq!(
        (late.status, late.error_code().as_str()),
        (503, "engine_unavailable")
    );
    assert_eq!(fixture.client().get("/health").await.status, 503);
}

#[tokio::test]
async fn shutdown_finishes_what_runs_and_refuses_what_comes() {
    let mut fixture = Fixture::ready(Options::script(Script::repeats("a").slowly(5))).await;
    let body = chat(json!({"stream": true, "max_tokens": 100})).to_string();
    let open = fixture.client().open(Method::POST, CHAT, &body).await;
    fixture.shut_down();
    eventually("the server drains", || !fixture.lifecycle.is_ready()).await;
    let refused = fixture.client().chat(&chat(json!({}))).await;
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (503, "server_draining")
    );
    assert_eq!(refused.header("connection"), "close");
    assert_eq!(fixture.client().get("/health").await.status, 200);
    assert_eq!(fixture.client().get("/ready").await.status, 503);
    let answer = open.rest().await;
    assert_eq!(answer.events().last(), Some(&"[DONE]"));
    let served = tokio::time::timeout(Duration::from_secs(10), &mut fixture.serving).await;
    served.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(fixture.address).await.is_err());
}

#[tokio::test]
async fn a_drain_that_takes_too_long_is_cut_off() {
    let mut fixture =
        endless(|options| options.config(|c| c.drain_timeout = Duration::from_millis(100))).await;
    let body = chat(json!({"stream": true})).to_string();
    let open = fixture.client().open(Method::POST, CHAT, &body).await;
    let started = Instant::now();
    fixture.shut_down();
    let served = tokio::time::timeout(Duration::from_secs(10), &mut fixture.serving).await;
    served.unwrap().unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(9));
    drop(open);
    fixture.engine_idle().await;
}

#[tokio::test]
async fn bodies_are_bounded_in_size_and_time() {
    let options = Options::default().config(|config| {
        config.max_body_bytes = 100_000;
        config.body_read_timeout = Duration::from_millis(200);
    });
    let fixture = Fixture::ready(options).await;
    let client = fixture.client();
    let large = client.send(Method::POST, CHAT, vec![b' '; 100_001]).await;
    assert_eq!(
        (large.status, large.error_code().as_str()),
        (413, "body_too_large")
    );
    let reply = raw(
        &fixture,
        "POST /v1/completions HTTP/1.1\r\nhost: t\r\n\
                               content-length: 50\r\n\r\n{\"prompt\"",
    )
    .await;
    assert!(reply.starts_with("HTTP/1.1 408 "), "{reply}");
    let chunked = "POST /v1/completions HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\
                   connection: close\r\n\r\n10\r\n{\"prompt\": \"Hi\"}\r\n0\r\n\r\n";
    assert!(raw(&fixture, chunked).await.starts_with("HTTP/1.1 200 "));
}

/// Sends bytes and reads until the server closes the connection, or for two seconds.
async fn raw(fixture: &Fixture, text: &str) -> String {
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    let reading = stream.read_to_end(&mut reply);
    let _ignored = tokio::time::timeout(Duration::from_secs(2), reading).await;
    String::from_utf8_lossy(&reply).into_owned()
}
