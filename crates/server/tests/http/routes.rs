//! Every route: who may call it, when, and what it answers.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::executor::Script;
use crate::support::{Fixture, MAX_MODEL_LEN, Options, chat, eventually};
use backstop_engine::{Lifecycle, LifecycleState, StartPhase};
use backstop_server::{KeySet, Provenance, Server, ServerConfig};
use hyper::Method;
use serde_json::json;

#[tokio::test]
async fn probes_follow_the_life_cycle() {
    let fixture = Fixture::loading(Options::default()).await;
    let client = fixture.client();
    let probe = async |path: &'static str| client.get(path).await.status;
    assert_eq!((probe("/health").await, probe("/ready").await), (503, 503));
    fixture.lifecycle.advance(LifecycleState::Warming);
    assert_eq!((probe("/health").await, probe("/ready").await), (503, 503));
    fixture.lifecycle.advance(LifecycleState::Ready);
    assert_eq!((probe("/health").await, probe("/ready").await), (200, 200));
    assert_eq!(probe("/ping").await, 200);
    fixture.lifecycle.advance(LifecycleState::Draining);
    assert_eq!((probe("/health").await, probe("/ready").await), (200, 503));
    fixture
        .lifecycle
        .advance(LifecycleState::Failed("secret path".into()));
    let health = client.get("/health").await;
    assert_eq!((health.status, probe("/ready").await), (503, 503));
    assert_eq!(health.json()["status"], "failed");
    assert!(!health.text.contains("secret"));
}

#[tokio::test]
async fn loading_is_a_503_with_an_estimate_and_never_a_401_or_404() {
    let lifecycle = Lifecycle::new();
    let config = ServerConfig {
        api_keys: Some(KeySet::new(["a-good-key"])),
        ..ServerConfig::default()
    };
    let server = Server::new(config, lifecycle.clone());
    let listener = backstop_server::listen(([127, 0, 0, 1], 0).into()).unwrap();
    let client = crate::support::client::Client::new(listener.local_addr().unwrap());
    let serving = tokio::spawn(backstop_server::serve(
        server,
        vec![listener.into()],
        std::future::pending(),
    ));
    lifecycle.advance(LifecycleState::Loading {
        bytes_done: 1,
        bytes_total: 1 << 40,
    });
    let requests = [
        client.chat(&chat(json!({"model": "unknown"}))).await,
        client.complete(&json!({})).await,
        client.get("/v1/models").await,
        client.get("/v1/models/unknown").await,
        client.get("/v1/nothing").await,
    ];
    for answer in requests {
        assert_eq!(answer.status, 503);
        assert_eq!(answer.error_code(), "model_loading");
        assert_eq!(answer.header("retry-after"), "60");
    }
    let health = client.get("/health").await;
    assert_eq!((health.status, health.header("retry-after")), (503, "60"));
    assert_eq!(health.json()["progress"]["bytes_total"], 1u64 << 40);
    // Ready without a model is not ready.
    lifecycle.advance(LifecycleState::Ready);
    assert_eq!(client.get("/ready").await.status, 503);
    assert_eq!(client.get("/health").await.status, 503);
    serving.abort();
}

#[tokio::test]
async fn ready_and_metrics_say_what_the_start_takes_its_time_for() {
    let fixture = Fixture::loading(Options::default()).await;
    let client = fixture.client();
    fixture.lifecycle.timeline().begin(StartPhase::Weights);
    let timeline = async || client.get("/ready").await.json()["timeline"].clone();
    let parts = timeline().await;
    assert_eq!(parts[0]["phase"], "settings");
    assert_eq!(parts[1]["phase"], "weights");
    assert_eq!(parts[2], json!(null));
    let metrics = client.get("/metrics").await.text;
    let metric = "backstop:startup_phase_seconds{phase=\"weights\"} ";
    assert!(metrics.contains(metric), "{metrics}");
    fixture.lifecycle.advance(LifecycleState::Ready);
    let parts = timeline().await;
    // It is over, so that nothing takes longer later.
    assert_eq!(timeline().await, parts);
    assert!(
        parts[1]["seconds"]
            .as_f64()
            .is_some_and(|seconds| seconds >= 0.0)
    );
}

#[tokio::test]
async fn a_stalled_engine_is_dead_and_a_busy_one_is_not() {
    let script = Script::repeats("a").slowly(1);
    let stalled = script.stalled.clone();
    let options =
        Options::script(script).config(|c| c.watchdog_timeout = Duration::from_millis(200));
    let fixture = Fixture::ready(options).await;
    let client = fixture.client();
    let body = chat(json!({"stream": true})).to_string();
    let open = client
        .open(Method::POST, "/v1/chat/completions", &body)
        .await;
    assert_eq!(client.get("/health").await.status, 200);
    stalled.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let health = client.get("/health").await;
    assert_eq!(
        (health.status, health.json()["status"].as_str()),
        (503, Some("stalled"))
    );
    stalled.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(client.get("/health").await.status, 200);
    drop(open);
}

#[tokio::test]
async fn keys_guard_everything_but_the_probes() {
    let options = Options::default()
        .config(|config| config.api_keys = Some(KeySet::new(["first-key-1", "second-key-2"])));
    let fixture = Fixture::ready(options).await;
    let client = fixture.client();
    for path in ["/health", "/ready", "/ping", "//health", "/health/"] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
    let guarded = [
        "/",
        "/version",
        "/metrics",
        "/backstop/status",
        "/v1/models",
        "/v1/models/north",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/nothing",
        "/admin",
        "//v1//models/",
        "//v1/chat/completions",
        "/v1/models//north/",
        "/health/x",
        "/v1/../health",
        "/health%2F",
        "/HEALTH",
    ];
    for path in guarded {
        for method in [Method::GET, Method::POST, Method::OPTIONS, Method::DELETE] {
            let answer = client.send(method, path, "").await;
            assert_eq!(answer.status, 401, "{path}");
            // The one word that errors of both shapes have.
            assert_eq!(answer.json()["error"]["type"], "authentication_error");
        }
    }
    let wrong = client.clone().with("authorization", "Bearer first-key-");
    assert_eq!(wrong.chat(&chat(json!({}))).await.status, 401);
    let bearer = client.clone().with("authorization", "Bearer first-key-1");
    assert_eq!(bearer.chat(&chat(json!({}))).await.status, 200);
    let header = client.clone().with("x-api-key", "second-key-2");
    assert_eq!(header.get("/v1/models").await.status, 200);
    assert_eq!(header.get("/v1/nothing").await.status, 404);
}

#[tokio::test]
async fn metrics_can_be_left_open() {
    let options = Options::default().config(|config| {
        config.api_keys = Some(KeySet::new(["first-key-1"]));
        config.public_metrics = true;
    });
    let fixture = Fixture::ready(options).await;
    assert_eq!(fixture.client().get("/metrics").await.status, 200);
    assert_eq!(fixture.client().get("/version").await.status, 401);
}

#[tokio::test]
async fn unknown_routes_and_methods_are_json_errors() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let missing = client.get("/nowhere").await;
    assert_eq!(
        (missing.status, missing.error_code().as_str()),
        (404, "route_not_found")
    );
    let wrong = client.get("/v1/chat/completions").await;
    assert_eq!(
        (wrong.status, wrong.error_code().as_str()),
        (405, "method_not_allowed")
    );
    assert_eq!(wrong.header("allow"), "POST");
    let wrong = client.send(Method::DELETE, "/v1/models", "").await;
    assert_eq!(wrong.status, 405);
}

#[tokio::test]
async fn small_answers() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    assert_eq!(client.get("/").await.json()["name"], "backstop");
    let head = client.send(Method::HEAD, "/", "").await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    let version = client.get("/version").await.json();
    assert!(
        version["version"].is_string() && version["device"].is_string(),
        "{version}"
    );
    assert!(version["batch_invariant"].is_boolean(), "{version}");
}

#[tokio::test]
async fn browsers_get_a_page_without_a_key_and_without_data() {
    let options = Options::named("secret-model")
        .config(|config| config.api_keys = Some(KeySet::new(["a-good-key"])));
    let fixture = Fixture::loading(options).await;
    let browser = fixture
        .client()
        .with("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let page = browser.get("/").await;
    assert_eq!((page.status, page.header("vary")), (200, "accept"));
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
    assert!(page.text.starts_with("<!doctype html>") && !page.text.contains("secret-model"));
    assert_eq!(browser.send(Method::HEAD, "/", "").await.status, 200);
    // Nothing else is given to browsers for being browsers.
    for path in ["/backstop/status", "/metrics", "/version"] {
        assert_eq!(browser.get(path).await.status, 401, "{path}");
    }
    assert_eq!(browser.send(Method::POST, "/", "").await.status, 405);
    let program = fixture.client().with("accept", "application/json, */*");
    assert_eq!(program.get("/").await.status, 401);
    let keyed = program.with("authorization", "Bearer a-good-key");
    assert_eq!(keyed.get("/").await.json()["status"], "loading");
}

#[tokio::test]
async fn models_are_listed_with_their_limits() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let list = client.get("/v1/models").await.json();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert_eq!(list["data"][0]["id"], "north");
    assert_eq!(list["data"][0]["root"], "test/model");
    assert_eq!(list["data"][0]["max_model_len"], MAX_MODEL_LEN);
    // The same list for readers of Anthropic's API.
    assert_eq!(list["data"][0]["type"], "model");
    assert_eq!(list["data"][0]["display_name"], "north");
    assert_eq!(list["data"][0]["created_at"], "1970-01-01T00:00:01Z");
    assert_eq!(
        (&list["first_id"], &list["last_id"]),
        (&json!("north"), &json!("north"))
    );
    assert_eq!(list["has_more"], false);
    assert_eq!(client.get("/v1/models/north").await.json()["id"], "north");
    // The star answers to any name.
    assert_eq!(
        client.get("/v1/models/some/other").await.json()["id"],
        "some/other"
    );
}

#[tokio::test]
async fn doubled_and_trailing_slashes_lead_to_the_same_route() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let body = chat(json!({}));
    for path in [
        "//v1/chat/completions",
        "/v1/chat/completions/",
        "/v1//chat///completions//",
    ] {
        assert_eq!(client.post(path, &body).await.status, 200, "{path}");
    }
    for path in ["/v1/models//some/other/", "//v1/models/some%2Fother"] {
        let card = client.get(path).await.json();
        assert_eq!(card["id"], "some/other", "{path}");
    }
    let list = client.get("/v1/models/").await.json();
    assert_eq!(list["object"], "list");
    let wrong = client.get("/v1/chat/completions/").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, "POST"));
    let missing = client.get("//nowhere/").await;
    assert_eq!(missing.error_code(), "route_not_found");
    let refused = client.post("//v1/messages/", &json!({})).await;
    assert_eq!(
        (refused.status, refused.json()["type"].as_str()),
        (400, Some("error"))
    );
    let metrics = client.get("//metrics/").await.text;
    let expected = [
        "{route=\"/v1/chat/completions\",status=\"200\"} 3",
        "{route=\"/v1/models/{id}\",status=\"200\"} 2",
        "{route=\"/v1/models\",status=\"200\"} 1",
    ];
    for line in expected {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn a_model_that_is_not_served_is_a_404() {
    let fixture = Fixture::ready(Options::named("north")).await;
    let client = fixture.client();
    let answer = client.chat(&chat(json!({"model": "private-name"}))).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (404, "model_not_found")
    );
    assert!(!answer.text.contains("private-name"));
    assert_eq!(client.get("/v1/models/other").await.status, 404);
    for model in [json!(null), json!(""), json!("north")] {
        let answer = client.chat(&chat(json!({"model": model}))).await;
        assert_eq!(answer.json()["model"], "north");
    }
}

#[tokio::test]
async fn request_ids_come_back() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let made = client.get("/nowhere").await;
    assert_eq!(made.header("x-request-id").len(), 32);
    let kept = client
        .with("x-request-id", "trace-7")
        .chat(&chat(json!({})))
        .await;
    assert_eq!(kept.header("x-request-id"), "trace-7");
}

#[tokio::test]
async fn every_answer_says_which_model_it_is_from() {
    let options = Options {
        provenance: Provenance::new("org/north", "0123456789abcdef", "fedcba987654"),
        ..Options::default()
    };
    let options = options.config(|config| config.api_keys = Some(KeySet::new(["a-good-key"])));
    let fixture = Fixture::loading(options).await;
    let stranger = fixture.client();
    let client = stranger.clone().with("authorization", "Bearer a-good-key");
    // Before there is a model to choose.
    let mut answers = vec![
        client.chat(&chat(json!({}))).await,
        stranger.get("/health").await,
    ];
    fixture.lifecycle.advance(LifecycleState::Ready);
    let whole = client.chat(&chat(json!({}))).await;
    let streamed = client.chat(&chat(json!({"stream": true}))).await;
    for completion in [whole.json(), streamed.chunks()[0].clone()] {
        let fingerprint = completion["system_fingerprint"].as_str().unwrap();
        assert!(fingerprint.starts_with("backstop-") && fingerprint.ends_with("-fedcba987654"));
    }
    let text = client
        .complete(&json!({"model": "north", "prompt": "Hi"}))
        .await;
    assert_eq!(
        text.json()["system_fingerprint"],
        whole.json()["system_fingerprint"]
    );
    answers.extend([whole, streamed, text]);
    answers.extend([
        stranger.get("/v1/models").await,
        client.get("/nowhere").await,
        client.get("/v1/chat/completions").await,
        client.post("/v1/messages", &json!({})).await,
        client.get("/metrics").await,
        client.clone().with("host", "second").get("/").await,
    ]);
    for answer in answers {
        let told = answer.header("x-backstop-model");
        assert_eq!(told, "org/north@0123456789abcdef", "{}", answer.text);
    }
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    assert_eq!(client.chat(&chat(json!({}))).await.status, 200);
    client.get("/nowhere").await;
    eventually("the engine is idle", || {
        fixture.engine.stats().scheduler.running == 0
    })
    .await;
    let metrics = client.get("/metrics").await;
    assert!(
        metrics
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    let expected = [
        "# TYPE vllm:prompt_tokens_total counter",
        "vllm:num_requests_running{model_name=\"north\"} 0",
        "vllm:num_requests_waiting{model_name=\"north\"} 0",
        "vllm:kv_cache_usage_perc{model_name=\"north\"}",
        "vllm:prefix_cache_queries_total{model_name=\"north\"}",
        "vllm:num_preemptions_total{model_name=\"north\"} 0",
        "vllm:generation_tokens_total{model_name=\"north\"} 14",
        "vllm:request_success_total{finished_reason=\"stop\",model_name=\"north\"} 1",
        "vllm:time_to_first_token_seconds_count{model_name=\"north\"} 1",
        "vllm:inter_token_latency_seconds_count{model_name=\"north\"} 13",
        "vllm:e2e_request_latency_seconds_bucket{le=\"+Inf\",model_name=\"north\"} 1",
        "vllm:iteration_tokens_total_count{model_name=\"north\"}",
        "vllm:num_requests_waiting_by_reason{reason=\"capacity\",model_name=\"north\"} 0",
        "vllm:lora_requests_info{max_lora=\"0\",running_lora_adapters=\"\",\
         waiting_lora_adapters=\"\",model_name=\"north\"} ",
        "vllm:request_prefill_time_seconds_count{model_name=\"north\"} 1",
        "vllm:request_decode_time_seconds_count{model_name=\"north\"} 1",
        "vllm:request_inference_time_seconds_count{model_name=\"north\"} 1",
        "backstop:admission_profile{profile=\"normal\"} 1",
        "backstop:queued_tokens 0",
        "vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"4096\",model_name=\"north\"} 1",
        "backstop:lifecycle_state{state=\"ready\"} 1",
        "backstop:lifecycle_state{state=\"loading\"} 0",
        "backstop:http_responses_total{route=\"other\",status=\"404\"} 1",
        "backstop:http_responses_total{route=\"/v1/chat/completions\",status=\"200\"} 1",
    ];
    let lines: Vec<String> = metrics.text.lines().map(sorted_labels).collect();
    for line in expected {
        let wanted = sorted_labels(line);
        assert!(
            lines.iter().any(|l| l.starts_with(&wanted)),
            "{line}\n{}",
            metrics.text
        );
    }
    assert!(!metrics.text.contains("# EOF") && !metrics.text.contains("} NaN"));
    let open = client.with("accept", "application/openmetrics-text;version=1.0.0");
    let metrics = open.get("/metrics").await;
    assert!(
        metrics
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    assert!(metrics.text.ends_with("# EOF\n"));
}

/// The order of labels means nothing.
fn sorted_labels(line: &str) -> String {
    let Some((name, rest)) = line.split_once('{') else {
        return line.to_owned();
    };
    let Some((labels, value)) = rest.split_once('}') else {
        return line.to_owned();
    };
    let mut labels: Vec<&str> = labels.split(',').collect();
    labels.sort_unstable();
    format!("{name}{{{}}}{value}", labels.join(","))
}
