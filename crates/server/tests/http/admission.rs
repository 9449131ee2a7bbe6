//! Who is let in: limits of keys, fair shares, lanes, profiles, and advice that can be trusted.

use std::time::Duration;

use backstop_server::{AdmissionProfile, KeySet, KeySettings, Lane, QueueLimits, key_line};
use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::client::{Answer, Client, Open};
use crate::support::executor::Script;
use crate::support::{Fixture, Options, chat, completion, eventually};

const CHAT: &str = "/v1/chat/completions";

fn settings(name: &str) -> KeySettings {
    KeySettings {
        name: Some(name.to_owned()),
        ..KeySettings::default()
    }
}

/// A server with one slot and room for four in the queue, whose answers never end by themselves.
fn one_slot(keys: &[(&str, KeySettings)]) -> Options {
    let keys = keys.to_vec();
    let options = Options {
        max_num_seqs: 1,
        ..Options::script(Script::repeats("abc ").slowly(2))
    };
    options.config(|config| {
        config.normal.max_requests = 4;
        if !keys.is_empty() {
            config.api_keys = Some(KeySet::with_settings(keys));
        }
    })
}

fn with_key(fixture: &Fixture, key: &str) -> Client {
    let value = format!("Bearer {key}");
    fixture.client().with("authorization", &value)
}

/// Opens a stream that goes on until it is dropped.
async fn occupy(client: &Client) -> Open {
    let body = chat(json!({"stream": true})).to_string();
    let open = client.open(Method::POST, CHAT, &body).await;
    assert_eq!(open.response.status(), 200);
    open
}

/// Sends a request that has to wait.
fn wait(client: &Client, extra: Value) -> JoinHandle<Answer> {
    let client = client.clone();
    tokio::spawn(async move { client.chat(&chat(extra)).await })
}

async fn waiting(fixture: &Fixture, count: u32) {
    eventually("they wait", || {
        fixture.engine.stats().scheduler.waiting == count
    })
    .await;
}

fn refused(answer: &Answer, code: &str) {
    assert_eq!((answer.status, answer.error_code().as_str()), (429, code));
    assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
}

#[tokio::test]
async fn the_queue_is_bounded_before_the_engine_is_asked() {
    let fixture = Fixture::ready(one_slot(&[])).await;
    let client = fixture.client();
    let running = occupy(&client).await;
    let queue: Vec<_> = (0..4).map(|_| wait(&client, json!({}))).collect();
    waiting(&fixture, 4).await;
    refused(&client.chat(&chat(json!({}))).await, "queue_full");
    let metrics = client.get("/metrics").await.text;
    assert!(
        metrics.contains("reason=\"max_num_queued_reqs\""),
        "{metrics}"
    );
    queue.iter().for_each(JoinHandle::abort);
    waiting(&fixture, 0).await;
    let _again = wait(&client, json!({}));
    waiting(&fixture, 1).await;
    drop(running);
}

#[tokio::test]
async fn a_burst_fills_all_slots_of_an_idle_server_and_the_queue() {
    let options = Options {
        max_num_seqs: 16,
        ..Options::default()
    };
    let options = options.config(|config| config.normal.max_requests = 1);
    let fixture = Fixture::ready(options).await;
    let client = fixture.client();
    let many = json!({"n": 17, "temperature": 1});
    assert_eq!(client.chat(&chat(many)).await.status, 200);
    refused(&client.chat(&chat(json!({"n": 18}))).await, "queue_full");
}

#[tokio::test]
async fn prompt_tokens_that_wait_are_bounded() {
    let options = one_slot(&[]).config(|config| config.max_queued_tokens = Some(100));
    let fixture = Fixture::ready(options).await;
    let client = fixture.client();
    let running = occupy(&client).await;
    let long = "x".repeat(200);
    let first = wait(
        &client,
        json!({"messages": [{"role": "user", "content": long}]}),
    );
    waiting(&fixture, 1).await;
    refused(&client.chat(&chat(json!({}))).await, "queue_full");
    let metrics = client.get("/metrics").await.text;
    assert!(
        metrics.contains("reason=\"max_num_queued_tokens\""),
        "{metrics}"
    );
    first.abort();
    drop(running);
}

#[tokio::test]
async fn the_pace_of_the_queue_is_measured() {
    let options = Options {
        max_num_seqs: 1,
        ..Options::script(Script::repeats("abc ").slowly(2))
    };
    let fixture = Fixture::ready(options).await;
    let client = fixture.client();
    // Answers of a tenth of a second each, and always some that wait.
    let work: Vec<_> = (0..100)
        .map(|_| wait(&client, json!({"max_tokens": 50})))
        .collect();
    let known = |metrics: &str| {
        let rate = metrics
            .lines()
            .find_map(|line| line.strip_prefix("backstop:queue_drain_rate "));
        rate.is_some_and(|rate| rate.parse::<f64>().is_ok_and(|rate| rate > 0.0))
    };
    let mut metrics = client.get("/metrics").await.text;
    while !known(&metrics) {
        assert!(!work[99].is_finished(), "{metrics}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        metrics = client.get("/metrics").await.text;
    }
    work.iter().for_each(JoinHandle::abort);
    fixture.engine_idle().await;
}

#[tokio::test]
async fn probes_pass_a_full_queue() {
    let fixture = Fixture::ready(one_slot(&[])).await;
    let client = fixture.client();
    let running = occupy(&client).await;
    let queue: Vec<_> = (0..4).map(|_| wait(&client, json!({}))).collect();
    waiting(&fixture, 4).await;
    let probe = wait(&client, json!({"max_tokens": 16}));
    waiting(&fixture, 5).await;
    drop(running);
    // The others never end by themselves, so that it was first.
    let probe = probe.await.unwrap();
    assert_eq!(probe.status, 200);
    assert_eq!(probe.json()["choices"][0]["finish_reason"], "length");
    queue.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn requests_per_minute_are_limited_told_and_refunded() {
    let limited = KeySettings {
        requests_per_minute: Some(2),
        ..settings("gateway")
    };
    let seeing = KeySettings {
        may_see_all_keys: true,
        ..settings("other")
    };
    let options = Options::default().config(|config| {
        config.api_keys = Some(KeySet::with_settings([
            ("limited-key", limited),
            ("other-key", seeing),
        ]));
    });
    let fixture = Fixture::ready(options).await;
    let client = with_key(&fixture, "limited-key");
    let first = client.chat(&chat(json!({}))).await;
    assert_eq!(first.status, 200);
    assert_eq!(first.header("x-ratelimit-limit-requests"), "2");
    assert_eq!(first.header("x-ratelimit-remaining-requests"), "1");
    assert!(first.header("x-ratelimit-reset-requests").ends_with('s'));
    assert_eq!(first.header("x-ratelimit-limit-tokens"), "");
    // What is no generation is free, and so is what the server itself had to refuse.
    assert_eq!(client.get("/v1/models").await.status, 200);
    let crowd = completion(json!({"prompt": ["a", "b"], "n": 128}));
    refused(&client.complete(&crowd).await, "queue_full");
    // A mistake of the client's is not.
    assert_eq!(
        client.complete(&json!({"max_tokens": -1})).await.status,
        400
    );
    let over = client.chat(&chat(json!({}))).await;
    refused(&over, "rate_limit_exceeded");
    assert!((29..=31).contains(&over.header("retry-after").parse::<u32>().unwrap()));
    assert_eq!(over.header("x-ratelimit-remaining-requests"), "0");
    let other = with_key(&fixture, "other-key");
    let free = other.chat(&chat(json!({}))).await;
    assert_eq!(
        (free.status, free.header("x-ratelimit-limit-requests")),
        (200, "")
    );
    let metrics = other.get("/metrics").await.text;
    for line in [
        "backstop:key_requests_total{key=\"gateway\"} 3",
        "backstop:key_requests_total{key=\"other\"} 1",
        "backstop:key_generation_tokens_total{key=\"other\"} 14",
        "backstop:key_requests_in_flight{key=\"gateway\"} 0",
        "backstop:keys 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert!(!metrics.contains("-key\""));
}

#[tokio::test]
async fn tokens_per_minute_count_prompts_and_answers() {
    let limited = KeySettings {
        tokens_per_minute: Some(60),
        ..settings("gateway")
    };
    let options = Options::script(Script::repeats("a")).config(|config| {
        config.api_keys = Some(KeySet::with_settings([("limited-key", limited)]));
    });
    let fixture = Fixture::ready(options).await;
    let client = with_key(&fixture, "limited-key");
    let body = completion(json!({"prompt": "x".repeat(20), "max_tokens": 70}));
    let first = client.complete(&body).await;
    assert_eq!(first.status, 200);
    assert_eq!(first.header("x-ratelimit-limit-tokens"), "60");
    // 90 of 60 are used, and 20 more are wanted.
    let over = client.complete(&body).await;
    refused(&over, "rate_limit_exceeded");
    let advice: u32 = over.header("retry-after").parse().unwrap();
    assert!((45..=51).contains(&advice), "{advice}");
    assert_eq!(over.header("x-ratelimit-remaining-tokens"), "0");
}

#[tokio::test]
async fn requests_at_once_are_limited_until_they_end() {
    let limited = KeySettings {
        max_concurrent_requests: Some(1),
        ..settings("gateway")
    };
    let keys = [("limited-key", limited), ("other-key", settings("other"))];
    let options = Options {
        max_num_seqs: 4,
        ..one_slot(&keys)
    };
    let fixture = Fixture::ready(options).await;
    let client = with_key(&fixture, "limited-key");
    let running = occupy(&client).await;
    refused(&client.chat(&chat(json!({}))).await, "rate_limit_exceeded");
    assert_eq!(client.get("/v1/models").await.status, 200);
    let other = occupy(&with_key(&fixture, "other-key")).await;
    drop(running);
    let mut status = 429;
    for _ in 0..1000 {
        status = client.chat(&chat(json!({"max_tokens": 1}))).await.status;
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(status, 200);
    drop(other);
}

#[tokio::test]
async fn a_key_that_sends_little_is_not_kept_waiting_by_one_that_sends_much() {
    let keys = [
        ("busy-key-1", settings("busy")),
        ("calm-key-2", settings("calm")),
    ];
    let options = one_slot(&keys).config(|config| config.normal.max_requests = 40);
    let fixture = Fixture::ready(options).await;
    let (busy, calm) = (
        with_key(&fixture, "busy-key-1"),
        with_key(&fixture, "calm-key-2"),
    );
    let running = occupy(&busy).await;
    let queue: Vec<_> = (0..10)
        .map(|_| wait(&busy, json!({"max_tokens": 40})))
        .collect();
    waiting(&fixture, 10).await;
    let soon = wait(&calm, json!({"max_tokens": 40}));
    waiting(&fixture, 11).await;
    drop(running);
    assert_eq!(soon.await.unwrap().status, 200);
    let ended = queue.iter().filter(|request| request.is_finished()).count();
    assert!(ended < 5, "{ended} of ten went before it");
    for request in queue {
        assert_eq!(request.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn only_keys_that_may_choose_their_priority_do() {
    let chooser = KeySettings {
        may_choose_priority: true,
        ..settings("chooser")
    };
    let keys = [("plain-key-1", settings("plain")), ("chooser-key", chooser)];
    let fixture = Fixture::ready(one_slot(&keys)).await;
    let (plain, chooser) = (
        with_key(&fixture, "plain-key-1"),
        with_key(&fixture, "chooser-key"),
    );
    let running = occupy(&plain).await;
    let late = wait(&chooser, json!({"max_tokens": 40, "priority": 9}));
    waiting(&fixture, 1).await;
    let pushing = wait(&plain, json!({"max_tokens": 400, "priority": 9}));
    waiting(&fixture, 2).await;
    drop(running);
    let first = tokio::select! {
        answer = late => ("batch", answer.unwrap().status),
        answer = pushing => ("standard", answer.unwrap().status),
    };
    assert_eq!(first, ("standard", 200));
}

#[tokio::test]
async fn an_outage_refuses_batch_shares_equally_and_waits_longer() {
    let batch = KeySettings {
        lane: Lane::Batch,
        ..settings("batch")
    };
    let keys = [
        ("first-key-1", settings("first")),
        ("second-key-2", settings("second")),
        ("batch-key-3", batch),
    ];
    let options = one_slot(&keys).config(|config| {
        config.outage = QueueLimits {
            max_requests: 5,
            timeout: Duration::from_secs(60),
            default_max_tokens: Some(7),
        };
        config.normal.timeout = Duration::from_millis(100);
    });
    let fixture = Fixture::ready(options).await;
    let first = with_key(&fixture, "first-key-1");
    fixture
        .server
        .set_admission_profile(AdmissionProfile::Outage);
    let body = chat(json!({"stream": true, "max_tokens": 2000})).to_string();
    let running = first.open(Method::POST, CHAT, &body).await;
    refused(
        &with_key(&fixture, "batch-key-3")
            .chat(&chat(json!({})))
            .await,
        "lane_closed",
    );
    // Six places and three keys, of which one is yet to come: two each.
    let second_of_first = wait(&first, json!({}));
    waiting(&fixture, 1).await;
    refused(&first.chat(&chat(json!({}))).await, "queue_full");
    let of_second = wait(&with_key(&fixture, "second-key-2"), json!({}));
    waiting(&fixture, 2).await;
    drop(running);
    for waited in [second_of_first, of_second] {
        let answer = waited.await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["usage"]["completion_tokens"], 7);
    }
    let metrics = first.get("/metrics").await.text;
    for line in [
        "backstop:admission_profile{profile=\"outage\"} 1",
        "reason=\"lane\"",
        "reason=\"key_share\"",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    fixture
        .server
        .set_admission_profile(AdmissionProfile::Normal);
    assert_eq!(fixture.server.admission_profile(), AdmissionProfile::Normal);
    let limited = chat(json!({"max_tokens": 20}));
    let answer = with_key(&fixture, "batch-key-3").chat(&limited).await;
    assert_eq!(answer.json()["usage"]["completion_tokens"], 20);
}

#[tokio::test]
async fn keys_change_with_their_file_while_requests_run() {
    let path = std::env::temp_dir().join(format!("backstop-http-keys-{}", std::process::id()));
    let line = key_line("first-key-1", &settings("first"));
    std::fs::write(&path, format!("{line}\n")).unwrap();
    let options = one_slot(&[]).config(|config| {
        config.api_keys = Some(KeySet::from_file(&path).unwrap());
    });
    let fixture = Fixture::ready(options).await;
    let (first, second) = (
        with_key(&fixture, "first-key-1"),
        with_key(&fixture, "second-key-2"),
    );
    let mut running = occupy(&first).await;
    assert_eq!(second.get("/version").await.status, 401);
    std::fs::write(&path, "broken\n").unwrap();
    assert!(fixture.server.reload_keys().unwrap().is_err());
    assert_eq!(first.get("/version").await.status, 200);
    std::fs::write(&path, "second-key-2\n").unwrap();
    eventually("the new file is noticed", || {
        fixture.server.reload_keys().unwrap().is_ok()
    })
    .await;
    assert_eq!(first.get("/version").await.status, 401);
    let metrics = second.get("/metrics").await.text;
    let failed = "backstop:key_file_reloads_total{outcome=\"refused\"}";
    assert!(metrics.contains(failed), "{metrics}");
    // A stream that began with the old key goes on.
    assert!(running.piece().await.is_some());
    std::fs::remove_file(path).unwrap();
}
