//! What pages in browsers are told: preflights, and the headers of all other answers.

use backstop_server::{Cors, CorsSettings, KeySet, KeySettings};
use hyper::Method;
use serde_json::json;

use crate::support::client::{Answer, Client};
use crate::support::{Fixture, Options, chat};

const PAGE: &str = "https://chat.example";

fn listed(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// A server with one key, whose holder may send one request a minute.
async fn server(origins: &[&str], change: impl FnOnce(&mut CorsSettings)) -> Fixture {
    let mut settings = CorsSettings {
        allowed_origins: listed(origins),
        allowed_methods: listed(&["*"]),
        allowed_headers: listed(&["*"]),
        allow_credentials: false,
    };
    change(&mut settings);
    let limits = KeySettings {
        requests_per_minute: Some(1),
        ..KeySettings::default()
    };
    let options = Options::named("north").config(|config| {
        config.api_keys = Some(KeySet::with_settings([("a-good-key", limits)]));
        config.cors = Some(Cors::new(settings).unwrap());
    });
    Fixture::ready(options).await
}

fn page(fixture: &Fixture, origin: &str) -> Client {
    fixture.client().with("origin", origin)
}

/// A page's question whether it may send JSON with a key.
async fn ask(fixture: &Fixture, origin: &str, path: &str) -> Answer {
    let client = page(fixture, origin)
        .with("access-control-request-method", "POST")
        .with(
            "access-control-request-headers",
            "authorization,content-type,x-stainless-os",
        );
    client.send(Method::OPTIONS, path, "").await
}

#[tokio::test]
async fn preflights_are_answered_before_keys_are_asked_for() {
    let fixture = server(&[PAGE], |_| {}).await;
    for path in [
        "/v1/chat/completions",
        "/v1/messages",
        "/nowhere",
        "//v1/models/",
    ] {
        let answer = ask(&fixture, PAGE, path).await;
        assert_eq!((answer.status, answer.text.as_str()), (204, ""), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), PAGE);
        assert_eq!(answer.header("access-control-allow-methods"), "POST");
        assert_eq!(
            answer.header("access-control-allow-headers"),
            "authorization,content-type,x-stainless-os"
        );
        assert_eq!(answer.header("access-control-max-age"), "600");
        assert!(answer.header("vary").starts_with("Origin, "));
        assert_eq!(answer.header("access-control-allow-credentials"), "");
    }
    let refused = ask(&fixture, "https://other.example", "/v1/models").await;
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (400, "cross_origin_refused")
    );
    assert_eq!(refused.header("access-control-allow-origin"), "");
    assert!(!refused.text.contains("other.example"));
    // Without an origin it is no preflight.
    let plain = fixture
        .client()
        .send(Method::OPTIONS, "/v1/models", "")
        .await;
    assert_eq!(plain.status, 401);
    let key = fixture.client().with("authorization", "Bearer a-good-key");
    let metrics = key.get("/metrics").await.text;
    let counted = [
        "{route=\"preflight\",status=\"204\"} 4",
        "{route=\"preflight\",status=\"400\"} 1",
    ];
    for line in counted {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[tokio::test]
async fn errors_and_streams_can_be_read_by_the_page() {
    let fixture = server(&[PAGE], |settings| settings.allow_credentials = true).await;
    let stranger = page(&fixture, PAGE);
    let client = stranger.clone().with("authorization", "Bearer a-good-key");
    let answers = [
        (401, stranger.chat(&chat(json!({}))).await),
        (404, client.get("/nowhere").await),
        (200, client.chat(&chat(json!({"stream": true}))).await),
        (429, client.chat(&chat(json!({}))).await),
        (405, client.get("/v1/completions").await),
        (200, client.get("/health").await),
    ];
    for (status, answer) in answers {
        assert_eq!(answer.status, status, "{}", answer.text);
        assert_eq!(answer.header("access-control-allow-origin"), PAGE);
        assert_eq!(answer.header("access-control-allow-credentials"), "true");
        assert_eq!(answer.header("vary"), "Origin");
        let exposed = answer.header("access-control-expose-headers");
        for name in answer
            .headers
            .keys()
            .filter(|name| name.as_str().starts_with("x-r"))
        {
            assert!(exposed.contains(name.as_str()), "{name}");
        }
    }
}

#[tokio::test]
async fn other_pages_and_no_pages_are_told_nothing() {
    let fixture = server(&[PAGE, "null"], |_| {}).await;
    for origin in [
        "https://chat.example.evil",
        "https://chat.example:8443",
        "HTTPS://CHAT.EXAMPLE",
    ] {
        let answer = page(&fixture, origin).get("/health").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("access-control-allow-origin"), "", "{origin}");
        // A cache must not give this answer to the page that may read it.
        assert_eq!(answer.header("vary"), "Origin");
    }
    assert_eq!(
        fixture.client().get("/health").await.header("vary"),
        "Origin"
    );
    let file = page(&fixture, "null").get("/health").await;
    assert_eq!(file.header("access-control-allow-origin"), "null");
    let any = server(&["*"], |_| {}).await;
    let answer = page(&any, "https://whatever.example").get("/health").await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
}

#[tokio::test]
async fn methods_and_headers_can_be_limited() {
    let fixture = server(&[PAGE], |settings| {
        settings.allowed_methods = listed(&["GET"]);
        settings.allowed_headers = listed(&["Authorization"]);
    })
    .await;
    let refused = ask(&fixture, PAGE, "/v1/models").await;
    assert_eq!(refused.status, 400);
    // The page may read why.
    assert_eq!(refused.header("access-control-allow-origin"), PAGE);
    let asking = page(&fixture, PAGE).with("access-control-request-method", "GET");
    let headers = |names| asking.clone().with("access-control-request-headers", names);
    let good = headers("authorization, content-type");
    let good = good.send(Method::OPTIONS, "/v1/models", "").await;
    assert_eq!(
        (good.status, good.header("access-control-allow-methods")),
        (204, "GET")
    );
    assert!(
        good.header("access-control-allow-headers")
            .contains("authorization")
    );
    let other = headers("authorization, x-other");
    assert_eq!(
        other.send(Method::OPTIONS, "/v1/models", "").await.status,
        400
    );
}

#[tokio::test]
async fn without_the_setting_browsers_are_told_nothing() {
    let fixture = Fixture::ready(Options::default()).await;
    let answer = ask(&fixture, PAGE, "/v1/chat/completions").await;
    assert_eq!(answer.status, 405);
    let names = ["access-control-allow-origin", "vary"];
    assert!(names.iter().all(|name| answer.header(name).is_empty()));
}
