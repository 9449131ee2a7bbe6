//! Clients with little patience: what they hear before their answer is there.

use std::sync::atomic::Ordering;
use std::time::Duration;

use backstop_server::{KeySet, KeySettings};
use hyper::Method;
use serde_json::{Value, json};

use crate::support::client::{Answer, Client, Open};
use crate::support::executor::Script;
use crate::support::{Fixture, Options, chat, completion, eventually};

const CHAT: &str = "/v1/chat/completions";
const INTERVAL: Duration = Duration::from_millis(10);
/// Longer than any test.
const NEVER: Duration = Duration::from_secs(1000);

/// A route that generates, and how its answers look.
struct Api {
    path: &'static str,
    /// A request.
    body: Value,
    /// The field that says how much is answered.
    length: &'static str,
    /// How a stream begins.
    begins: &'static str,
    /// How a stream shows that it is alive.
    sign: &'static str,
}

fn apis() -> [Api; 6] {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let of = |path, body, length| Api {
        path,
        body,
        length,
        begins: "data: {",
        sign: ": keep-alive\n\n",
    };
    let fim = json!({"model": "north", "prompt": "a", "suffix": "b"});
    let infill = json!({"input_prefix": "a", "input_suffix": "b"});
    let responses = json!({"model": "north", "input": "Hi"});
    let anthropic = json!({"model": "north", "max_tokens": 3, "messages": messages});
    [
        of(CHAT, chat(json!({})), "max_tokens"),
        of("/v1/completions", completion(json!({})), "max_tokens"),
        of("/v1/fim/completions", fim, "max_tokens"),
        of("/infill", infill, "n_predict"),
        Api {
            begins: "event: response.created",
            ..of("/v1/responses", responses, "max_output_tokens")
        },
        Api {
            begins: "event: message_start",
            sign: "event: ping\n",
            ..of("/v1/messages", anthropic, "max_tokens")
        },
    ]
}

fn with(body: &Value, field: &str, value: Value) -> String {
    let mut body = body.clone();
    body[field] = value;
    body.to_string()
}

/// A server whose answers, which end after three tokens, are held back until the script goes on.
fn held(script: &Script) -> Options {
    script.stalled.store(true, Ordering::Relaxed);
    let options = Options {
        fills_in: true,
        ..Options::script(script.clone())
    };
    options.config(|config| {
        config.keep_alive_interval = INTERVAL;
        config.response_keep_alive = Some(INTERVAL);
    })
}

/// What comes before `end`, of which there must be something.
async fn signs_until(open: &mut Open, end: impl Fn(&str) -> bool) -> (String, String) {
    let mut signs = String::new();
    loop {
        let piece = open.piece().await.unwrap();
        if end(&piece) {
            return (signs, piece);
        }
        signs += &piece;
    }
}

async fn some_signs(open: &mut Open, sign: &str) {
    for _ in 0..3 {
        assert!(open.piece().await.unwrap().starts_with(sign));
    }
}

#[tokio::test]
async fn whole_answers_are_announced_and_then_the_same_as_ever() {
    for api in apis() {
        let Api { path, length, .. } = api;
        let script = Script::repeats("abc");
        let fixture = Fixture::ready(held(&script)).await;
        let body = with(&api.body, length, json!(3));
        let mut open = fixture.client().open(Method::POST, path, &body).await;
        assert_eq!(open.response.status(), 200);
        assert!(!open.response.headers().contains_key("content-length"));
        some_signs(&mut open, " ").await;
        script.stalled.store(false, Ordering::Relaxed);
        let late = open.rest().await;
        assert_eq!(late.header("content-type"), "application/json");
        assert!(!late.header("x-request-id").is_empty());
        assert!(
            late.text.trim_start_matches(' ').starts_with('{'),
            "{}",
            late.text
        );
        let options = held(&script).config(|config| config.response_keep_alive = Some(NEVER));
        script.stalled.store(false, Ordering::Relaxed);
        let fixture = Fixture::ready(options).await;
        let at_once = fixture.client().send(Method::POST, path, &body).await;
        // Nothing has changed about an answer that is there in time.
        assert_eq!(
            at_once.header("content-length"),
            at_once.text.len().to_string()
        );
        assert_eq!(
            without_names(late.json()),
            without_names(at_once.json()),
            "{path}"
        );
    }
}

/// The same without ids and times.
fn without_names(mut answer: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(object) => {
                let varies = ["id", "created", "created_at", "timings"];
                object.retain(|name, _| !varies.contains(&name.as_str()));
                object.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut answer);
    answer
}

#[tokio::test]
async fn without_the_setting_and_for_errors_in_time_nothing_changes() {
    let script = Script::repeats("abc");
    let options = held(&script).config(|config| config.response_keep_alive = None);
    let fixture = Fixture::ready(options).await;
    let client = fixture.client();
    let body = chat(json!({"max_tokens": 3})).to_string();
    let waiting = tokio::spawn(async move { client.send(Method::POST, CHAT, &body).await });
    eventually("it runs", || fixture.engine.stats().scheduler.running == 1).await;
    tokio::time::sleep(5 * INTERVAL).await;
    script.stalled.store(false, Ordering::Relaxed);
    let answer = waiting.await.unwrap();
    assert_eq!(
        answer.header("content-length"),
        answer.text.len().to_string()
    );
    let options = Options::default().config(|config| config.response_keep_alive = Some(NEVER));
    let fixture = Fixture::ready(options).await;
    for Api { path, .. } in apis() {
        let refused = fixture.client().post(path, &json!({"stream": 5})).await;
        assert_eq!(refused.status, 400, "{path}");
        assert_eq!(
            refused.header("content-length"),
            refused.text.len().to_string()
        );
    }
}

/// Lets one stream have the only place of a server; the next request waits in its queue.
async fn with_a_queue(change: impl FnOnce(Options) -> Options) -> (Fixture, Open) {
    let script = Script::repeats("abc ").slowly(2);
    let options = Options {
        max_num_seqs: 1,
        fills_in: true,
        ..Options::script(script)
    };
    let options = options.config(|config| {
        config.keep_alive_interval = INTERVAL;
        config.response_keep_alive = Some(INTERVAL);
    });
    let fixture = Fixture::ready(change(options)).await;
    let body = chat(json!({"stream": true})).to_string();
    let client = key(&fixture);
    let mut running = client.open(Method::POST, CHAT, &body).await;
    running.piece().await.unwrap();
    (fixture, running)
}

fn key(fixture: &Fixture) -> Client {
    fixture.client().with("authorization", "Bearer a-good-key")
}

#[tokio::test]
async fn who_waits_in_the_queue_hears_of_it() {
    for api in apis() {
        let Api { path, sign, .. } = api;
        let (fixture, running) = with_a_queue(|options| options).await;
        let whole = with(&api.body, api.length, json!(3));
        let streamed = with(
            &serde_json::from_str(&whole).unwrap(),
            "stream",
            json!(true),
        );
        let mut whole = fixture.client().open(Method::POST, path, &whole).await;
        let mut streamed = fixture.client().open(Method::POST, path, &streamed).await;
        assert_eq!(fixture.engine.stats().scheduler.running, 1);
        some_signs(&mut whole, " ").await;
        some_signs(&mut streamed, sign).await;
        drop(running);
        assert!(whole.rest().await.json().is_object());
        let (_, first) = signs_until(&mut streamed, |piece| !piece.starts_with(sign)).await;
        assert!(first.starts_with(api.begins), "{path}: {first}");
        let kind = streamed.response.headers()["content-type"].clone();
        assert_eq!(kind, "text/event-stream; charset=utf-8");
        let rest = streamed.rest().await;
        let failed = ["event: error", "data: {\"error\""];
        assert!(
            !failed.iter().any(|text| rest.text.contains(text)),
            "{}",
            rest.text
        );
    }
}

#[tokio::test]
async fn long_prompts_are_heard_of_while_they_are_prepared() {
    // Far more than an interval, and no end before the limit on a template's work.
    let template = "{% for a in range(10000) %}{% for b in range(10000) %}{{ b }}{% endfor %}\
                    {% endfor %}";
    let options = Options {
        template: Some(template),
        ..held(&Script::says("Hi"))
    };
    let fixture = Fixture::ready(options).await;
    let padding = " ".repeat(8 << 10);
    for (stream, sign) in [(true, ": keep-alive\n\n"), (false, " ")] {
        let body = chat(json!({"stream": stream})).to_string() + &padding;
        let mut open = fixture.client().open(Method::POST, CHAT, &body).await;
        assert_eq!(open.response.status(), 200);
        assert!(open.piece().await.unwrap().starts_with(sign));
        // Its refusal comes too late for a status.
        let answer = open.rest().await;
        assert!(
            answer.text.contains("invalid_request_error"),
            "{}",
            answer.text
        );
    }
}

#[tokio::test]
async fn a_call_that_is_held_back_is_heard_of() {
    // Tokens come all the time, and there is nothing to show for them.
    let opening = "<|END_THINKING|><|START_ACTION|>[";
    let text = opening.to_owned() + &" ".repeat(1500);
    let parameters = json!({"type": "object"});
    let tools = |path| match path {
        CHAT => {
            Some(json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}]))
        }
        "/v1/responses" => {
            Some(json!([{"type": "function", "name": "f", "parameters": parameters}]))
        }
        "/v1/messages" => Some(json!([{"name": "f", "input_schema": parameters}])),
        _ => None,
    };
    for api in apis() {
        let Api {
            path,
            mut body,
            sign,
            ..
        } = api;
        let Some(tools) = tools(path) else { continue };
        let options = Options {
            reasoning: true,
            ..Options::script(Script::says(&text).slowly(1))
        };
        let options = options.config(|config| config.keep_alive_interval = INTERVAL);
        let fixture = Fixture::ready(options).await;
        body["stream"] = json!(true);
        body["tools"] = tools;
        if path == "/v1/messages" {
            body["max_tokens"] = json!(1600);
        }
        let client = fixture.client();
        let mut open = client.open(Method::POST, path, body.to_string()).await;
        let mut signs = 0;
        while signs < 3 {
            signs += usize::from(open.piece().await.unwrap().starts_with(sign));
        }
    }
}

/// What a request hears whose engine breaks while it waits.
async fn failing_late(path: &str, body: &str) -> Answer {
    let script = Script::repeats("abc");
    let fixture = Fixture::ready(held(&script)).await;
    let mut open = fixture.client().open(Method::POST, path, body).await;
    open.piece().await.unwrap();
    script.broken.store(true, Ordering::Relaxed);
    script.stalled.store(false, Ordering::Relaxed);
    open.rest().await
}

#[tokio::test]
async fn what_fails_late_is_an_error_in_the_body() {
    for Api { path, body, .. } in apis() {
        let answer = failing_late(path, &body.to_string()).await;
        let error = answer.json();
        assert_eq!(answer.status, 200, "{path}");
        assert!(error["error"]["message"].is_string(), "{path}: {error}");
        match path {
            "/v1/messages" => assert_eq!(
                (&error["type"], &error["error"]["type"]),
                (&json!("error"), &json!("overloaded_error"))
            ),
            _ => assert_eq!(error["error"]["code"], "engine_unavailable"),
        }
    }
}

#[tokio::test]
async fn a_stream_that_fails_in_the_queue_says_so_in_its_apis_shape() {
    for Api { path, body, .. } in apis() {
        let impatient = |options: Options| {
            options.config(|config| config.normal.timeout = Duration::from_millis(100))
        };
        let (fixture, _running) = with_a_queue(impatient).await;
        let streamed = with(&body, "stream", json!(true));
        let answer = fixture.client().send(Method::POST, path, streamed).await;
        let last = answer
            .text
            .trim_end()
            .rsplit("\n\n")
            .next()
            .unwrap()
            .to_owned();
        let expected = match path {
            "/v1/responses" => "event: error\ndata: {\"type\":\"error\",\"sequence_number\":0,",
            "/v1/messages" => "event: error\ndata: {\"type\": \"error\",",
            _ => "data: {\"error\": {",
        };
        assert_eq!(answer.status, 200);
        assert!(last.starts_with(expected), "{path}: {last}");
        assert!(
            last.contains("was not started before its deadline"),
            "{last}"
        );
    }
}

#[tokio::test]
async fn a_late_failure_gives_its_request_back() {
    let settings = KeySettings {
        requests_per_minute: Some(2),
        ..KeySettings::default()
    };
    let (fixture, _running) = with_a_queue(|options| {
        options.config(|config| {
            config.normal.timeout = Duration::from_millis(100);
            config.api_keys = Some(KeySet::with_settings([("a-good-key", settings)]));
        })
    })
    .await;
    for _ in 0..4 {
        let answer = key(&fixture).chat(&chat(json!({}))).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["error"]["code"], "deadline_exceeded");
    }
    let metrics = key(&fixture).get("/metrics").await.text;
    let late = "late_failures_total{route=\"/v1/chat/completions\",status=\"503\"} 4";
    assert!(metrics.contains(late), "{metrics}");
    let status = key(&fixture).get("/backstop/status").await.json();
    let error = &status["errors"][0];
    assert_eq!((&error["late"], &error["count"]), (&json!(true), &json!(4)));
    assert_eq!(error["code"], "deadline_exceeded");
}

#[tokio::test]
async fn who_goes_away_while_it_waits_is_forgotten() {
    let (fixture, _running) = with_a_queue(|options| options).await;
    let body = chat(json!({})).to_string();
    let mut open = fixture.client().open(Method::POST, CHAT, &body).await;
    some_signs(&mut open, " ").await;
    assert_eq!(fixture.engine.stats().scheduler.waiting, 1);
    drop(open);
    eventually("nobody waits", || {
        fixture.engine.stats().scheduler.waiting == 0
    })
    .await;
    eventually("one request is left", || {
        fixture.server.requests_in_flight() == 1
    })
    .await;
}
