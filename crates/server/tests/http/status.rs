//! `GET /backstop/status`: what the server remembers of itself, and who may see it.

use std::time::{Duration, SystemTime};

use crate::support::{Fixture, Options, chat};
use backstop_engine::LifecycleState;
use backstop_server::{CanaryResult, KeySet, KeySettings};
use serde_json::{Value, json};

const STATUS: &str = "/backstop/status";

fn canary(passed: bool, difference: Option<f32>) -> CanaryResult {
    CanaryResult {
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(1000),
        passed,
        took: Duration::from_millis(250),
        difference,
    }
}

fn keys() -> KeySet {
    let named = |name: &str, may_see_all_keys| KeySettings {
        name: Some(name.to_owned()),
        may_see_all_keys,
        ..KeySettings::default()
    };
    KeySet::with_settings([
        ("first-key-1", named("first", false)),
        ("second-key-2", named("second", false)),
        ("operators-key", named("operator", true)),
    ])
}

#[tokio::test]
async fn the_status_is_told_in_every_state() {
    let fixture = Fixture::loading(Options::default()).await;
    let client = fixture.client();
    let states = async || {
        let status = client.get(STATUS).await.json();
        let states = status["states"].as_array().unwrap().clone();
        let names = states.iter().map(|change| change["name"].clone());
        (status["state"]["name"].clone(), names.collect::<Vec<_>>())
    };
    assert_eq!(states().await, (json!("loading"), vec![json!("loading")]));
    for (state, names) in [
        (LifecycleState::Warming, json!(["loading", "warming"])),
        (
            LifecycleState::Ready,
            json!(["loading", "warming", "ready"]),
        ),
    ] {
        fixture.lifecycle.advance(state);
        let names = names.as_array().unwrap().clone();
        while states().await.1 != names {
            tokio::task::yield_now().await;
        }
    }
    let answer = client.get(STATUS).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    let status = answer.json();
    assert_eq!(status["models"][0]["task"], "generate");
    assert_eq!(status["models"][0]["name"], "north");
    assert_eq!(status["engine"]["max_running"], 8);
    assert_eq!(status["engine"]["max_waiting"], 128);
    assert_eq!(status["profile"], "normal");
    assert!(status.get("keys").is_none());
}

#[tokio::test]
async fn canaries_are_told_and_counted() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let metrics = client.get("/metrics").await.text;
    assert!(metrics.contains("backstop:canary_last_passed_timestamp_seconds 0.0"));
    assert!(!metrics.contains("backstop:canary_passed"));
    fixture.server.record_canary(canary(true, Some(0.25)));
    fixture.server.record_canary(canary(false, None));
    fixture.server.record_canary(canary(false, Some(f32::NAN)));
    let told = client.get(STATUS).await.json()["canary"].clone();
    assert_eq!((&told["runs"], &told["failures"]), (&json!(3), &json!(2)));
    let rows = [
        json!({"at": 1000.0, "passed": true, "seconds": 0.25, "difference": 0.25}),
        json!({"at": 1000.0, "passed": false, "seconds": 0.25, "difference": null}),
        json!({"at": 1000.0, "passed": false, "seconds": 0.25, "difference": null}),
    ];
    assert_eq!(told["results"], json!(rows));
    let metrics = client.get("/metrics").await.text;
    let expected = [
        "backstop:canary_runs_total 3",
        "backstop:canary_failures_total 2",
        "backstop:canary_passed 0.0",
        "backstop:canary_last_passed_timestamp_seconds 1000.0",
    ];
    for line in expected {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn each_key_sees_its_own_errors_and_use_and_some_see_all() {
    let options = Options::named("north").config(|config| config.api_keys = Some(keys()));
    let fixture = Fixture::ready(options).await;
    let stranger = fixture.client();
    let with = |key: &str| stranger.clone().with("x-api-key", key);
    let (first, second) = (with("first-key-1"), with("second-key-2"));
    assert_eq!(stranger.get(STATUS).await.status, 401);
    assert_eq!(first.chat(&chat(json!({}))).await.status, 200);
    let secret = json!({"model": "secret-name", "messages": []});
    let failing = first.clone().with("x-request-id", "trace-1");
    for _ in 0..3 {
        assert!((400..500).contains(&failing.chat(&secret).await.status));
    }
    assert_eq!(second.get("/nowhere").await.status, 404);

    let seen = async |key: &str| {
        let answer = with(key).get(STATUS).await;
        assert!(!answer.text.contains("secret-name"));
        let status = answer.json();
        let column = |list: &Value, name: &str| {
            let rows = list.as_array().unwrap().iter();
            let mut column: Vec<String> = rows.map(|row| row[name].to_string()).collect();
            column.sort();
            column.join(" ")
        };
        let errors = column(&status["errors"], "route");
        (status.clone(), errors, column(&status["keys"], "key"))
    };
    let (status, errors, names) = seen("first-key-1").await;
    assert_eq!(
        (errors.as_str(), names.as_str()),
        (r#""/v1/chat/completions""#, r#""first""#)
    );
    let error = &status["errors"][0];
    assert_eq!(
        (&error["count"], &error["key"]),
        (&json!(3), &json!("first"))
    );
    assert_eq!(error["request_id"], "trace-1");
    assert_eq!(error["late"], false);
    assert!(error["code"].is_string() && error["first_at"].as_f64() <= error["last_at"].as_f64());
    let (_, errors, names) = seen("second-key-2").await;
    assert_eq!((errors.as_str(), names.as_str()), (r#""other""#, ""));
    let (_, errors, names) = seen("operators-key").await;
    assert_eq!(
        errors,
        r#""/backstop/status" "/v1/chat/completions" "other""#
    );
    assert_eq!(names, r#""first""#);
}

#[tokio::test]
async fn the_load_is_sampled() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    assert_eq!(client.chat(&chat(json!({}))).await.status, 200);
    assert_eq!(client.get("/nowhere").await.status, 404);
    let load = loop {
        let load = client.get(STATUS).await.json()["load"].clone();
        let errors = load["errors_per_s"].as_array().unwrap().iter();
        if errors.filter_map(Value::as_f64).sum::<f64>() > 0.0 {
            break load;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(load["interval_s"], 5.0);
    let sum = |name: &str| -> f64 {
        let column = load[name].as_array().unwrap().iter();
        column.filter_map(Value::as_f64).sum()
    };
    for name in [
        "prompt_tokens_per_s",
        "generation_tokens_per_s",
        "errors_per_s",
    ] {
        assert!(sum(name) > 0.0, "{name}: {load}");
    }
    assert!(sum("first_token_p50_s") > 0.0 && sum("first_token_p99_s") >= sum("first_token_p50_s"));
    assert!(sum("inter_token_p50_s") > 0.0, "{load}");
}
