//! What hangs is noticed, and nobody waits for it for ever. A thread that is stuck can be neither cancelled nor joined:
//! the life-cycle fails, as the watchdog of the process makes it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use backstop_engine::LifecycleState;
use hyper::Method;
use serde_json::{Value, json};

use super::support::encoder::FakeEncoder;
use super::support::executor::Script;
use super::support::{Fixture, Options, chat, eventually};

const CHAT: &str = "/v1/chat/completions";

/// The server has been found to hang, and fails.
async fn fails(fixture: &Fixture) {
    eventually("it is noticed", || {
        fixture.server.stalled(Duration::ZERO).is_some()
    })
    .await;
    // Time in which the process did not run counts for nobody.
    let excused = Duration::from_secs(3600);
    assert_eq!(fixture.server.stalled(excused), None);
    let health = fixture.client().get("/health").await;
    assert_eq!(
        (health.status, health.json()["status"].as_str()),
        (503, Some("stalled"))
    );
    let reason = health.json()["reason"].as_str().map(str::to_owned);
    assert!(reason.is_some_and(|reason| reason.contains("has work")));
    let failed = LifecycleState::Failed("it hangs".to_owned());
    fixture.lifecycle.advance(failed);
}

#[tokio::test]
async fn a_hung_engine_costs_nobody_an_end_without_an_error() {
    let script = Script::repeats("a").slowly(2);
    let stalled = script.stalled.clone();
    let options = Options {
        max_num_seqs: 2,
        ..Options::script(script).config(|c| c.watchdog_timeout = Duration::from_millis(200))
    };
    let fixture = Fixture::ready(options).await;
    let body = chat(json!({"stream": true})).to_string();
    let mut streamed = fixture.client().open(Method::POST, CHAT, &body).await;
    streamed.piece().await.unwrap();
    let ask = || {
        let client = fixture.client();
        tokio::spawn(async move { client.chat(&chat(json!({}))).await })
    };
    let (running, waiting) = (ask(), ask());
    eventually("one runs and one waits", || {
        let scheduler = fixture.engine.stats().scheduler;
        (scheduler.running, scheduler.waiting) == (2, 1)
    })
    .await;
    stalled.store(true, Ordering::Relaxed);
    // It has come in, and the engine will never hear of it.
    let arriving = ask();
    eventually("all have come in", || {
        fixture.server.requests_in_flight() == 4
    })
    .await;
    fails(&fixture).await;
    let rest = streamed.rest().await;
    let last: Value = serde_json::from_str(rest.events().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "engine_unavailable");
    assert!(!rest.text.contains("[DONE]"), "{}", rest.text);
    for asked in [running, waiting, arriving] {
        let answer = asked.await.unwrap();
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (503, "engine_unavailable")
        );
    }
    let health = fixture.client().get("/health").await;
    assert_eq!(
        (health.status, health.json()["status"].as_str()),
        (503, Some("failed"))
    );
    assert_eq!(fixture.server.requests_in_flight(), 0);
    // For the end of the test, which joins the thread.
    stalled.store(false, Ordering::Relaxed);
}

#[tokio::test]
async fn a_busy_engine_does_not_hang() {
    let script = Script::repeats("a").slowly(20);
    let options = Options {
        max_num_seqs: 2,
        ..Options::script(script).config(|c| c.watchdog_timeout = Duration::from_millis(250))
    };
    let fixture = Fixture::ready(options).await;
    let ask = || {
        let client = fixture.client();
        tokio::spawn(async move { client.chat(&chat(json!({"max_tokens": 20}))).await })
    };
    let asked: Vec<_> = (0..6).map(|_| ask()).collect();
    for asked in asked {
        assert_eq!(asked.await.unwrap().status, 200);
        assert_eq!(fixture.server.stalled(Duration::ZERO), None);
    }
}

#[tokio::test]
async fn a_hung_encoder_fails_what_waits_for_it_and_what_does_not() {
    let (vectors, scores) = (FakeEncoder::of_vectors(false), FakeEncoder::of_scores());
    let script = Script::repeats("a").slowly(2);
    let options = Options {
        script,
        ..Options::encoding(&vectors, &scores)
            .config(|config| config.watchdog_timeout = Duration::from_millis(200))
    };
    let fixture = Fixture::ready(options).await;
    let body = chat(json!({"stream": true})).to_string();
    let mut streamed = fixture.client().open(Method::POST, CHAT, &body).await;
    streamed.piece().await.unwrap();
    vectors.stalled.store(true, Ordering::Relaxed);
    let encoded = tokio::spawn({
        let client = fixture.client();
        let body = json!({"model": "vectors", "input": "a"});
        async move { client.post("/v1/embeddings", &body).await }
    });
    fails(&fixture).await;
    let answer = encoded.await.unwrap();
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (503, "engine_unavailable")
    );
    let rest = streamed.rest().await;
    assert!(!rest.text.contains("[DONE]"), "{}", rest.text);
    vectors.stalled.store(false, Ordering::Relaxed);
}

#[tokio::test]
async fn loading_that_reads_nothing_says_so() {
    let options = Options::default().config(|c| c.watchdog_timeout = Duration::from_millis(50));
    let fixture = Fixture::loading(options).await;
    fixture.lifecycle.advance(LifecycleState::Loading {
        bytes_done: 3,
        bytes_total: 10,
    });
    eventually("it is noticed", || {
        let pause = fixture.server.loading_pause();
        pause.is_some_and(|pause| pause > Duration::from_millis(60))
    })
    .await;
    for path in ["/ready", "/health"] {
        let answer = fixture.client().get(path).await;
        assert_eq!(answer.status, 503);
        let reason = answer.json()["reason"].to_string();
        assert!(
            reason.contains("nothing of the model's files has been read"),
            "{path}: {reason}"
        );
    }
    fixture.lifecycle.advance(LifecycleState::Loading {
        bytes_done: 4,
        bytes_total: 10,
    });
    let answer = fixture.client().get("/health").await;
    assert!(answer.json()["reason"].is_null());
    assert!(answer.json()["progress"]["seconds_since_progress"].is_number());
    // Nothing is ended for it.
    assert_eq!(fixture.server.stalled(Duration::ZERO), None);
}
