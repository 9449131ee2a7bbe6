//! Vectors of texts: shapes, limits, faults, and requests beside one another.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backstop_engine::LifecycleState;
use backstop_server::{KeySet, KeySettings};
use backstop_types::TokenId;
use hyper::Method;
use serde_json::{Value, json};

use crate::support::client::{Answer, Client};
use crate::support::encoder::{BEGIN, DIMENSIONS, END, FakeEncoder, MAX_TOKENS, VOCABULARY};
use crate::support::{Fixture, Options, chat, eventually};

const PATH: &str = "/v1/embeddings";

/// The tokens that a text has.
fn tokens(text: &str) -> Vec<TokenId> {
    let bytes = text.bytes().map(|byte| TokenId::from(byte) + 2);
    [BEGIN].into_iter().chain(bytes).chain([END]).collect()
}

fn options(encoder: &Arc<FakeEncoder>) -> Options {
    Options {
        encoders: vec![("vectors", Arc::clone(encoder))],
        ..Options::default()
    }
}

async fn embed(client: &Client, input: Value) -> Answer {
    let body = json!({"model": "vectors", "input": input});
    client.post(PATH, &body).await
}

fn vectors(answer: &Answer) -> Vec<Vec<f32>> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = answer.json();
    let data = answer["data"].as_array().unwrap().iter().enumerate();
    let vectors = data.map(|(index, embedding)| {
        assert_eq!(embedding["index"], index);
        assert_eq!(embedding["object"], "embedding");
        serde_json::from_value(embedding["embedding"].clone()).unwrap()
    });
    vectors.collect()
}

#[tokio::test]
async fn every_form_of_input_has_its_vectors() {
    let fixture = Fixture::ready(options(&FakeEncoder::of_vectors(false))).await;
    let client = fixture.client();
    let one = embed(&client, json!("abc")).await;
    let expected = FakeEncoder::vector(&tokens("abc"));
    assert_eq!(vectors(&one), std::slice::from_ref(&expected));
    let body = one.json();
    assert_eq!(
        (&body["object"], &body["model"]),
        (&json!("list"), &json!("vectors"))
    );
    assert_eq!(
        body["usage"],
        json!({"prompt_tokens": 5, "total_tokens": 5})
    );
    assert_eq!(one.header("x-backstop-model"), "vectors@0123");
    let several = embed(&client, json!(["xyz", "abc", "a"])).await;
    let all: Vec<_> = ["xyz", "abc", "a"]
        .map(|text| FakeEncoder::vector(&tokens(text)))
        .into();
    assert_eq!(vectors(&several), all);
    assert_eq!(several.json()["usage"]["prompt_tokens"], 13);
    let ids = embed(&client, json!(tokens("abc"))).await;
    assert_eq!(vectors(&ids), [expected]);
    let lists = embed(&client, json!([tokens("xyz"), tokens("abc"), tokens("a")])).await;
    assert_eq!(vectors(&lists), all);
    // Token ids are taken as they are.
    let bare = json!({"input": [99, 100], "user": "somebody", "input_type": "query"});
    let bare = client.post(PATH, &bare).await;
    assert_eq!(vectors(&bare), [FakeEncoder::vector(&[99, 100])]);
    let plain = json!({"input": "ab", "add_special_tokens": false});
    let plain = client.post(PATH, &plain).await;
    assert_eq!(vectors(&plain), [FakeEncoder::vector(&[99, 100])]);
}

#[tokio::test]
async fn vectors_can_be_written_as_base64_text() {
    let fixture = Fixture::ready(options(&FakeEncoder::of_vectors(false))).await;
    let body = json!({"input": [99, 100], "encoding_format": "base64"});
    let answer = fixture.client().post(PATH, &body).await.json();
    let text = answer["data"][0]["embedding"].as_str().unwrap();
    // Eight numbers of four bytes.
    assert_eq!((text.len(), text.ends_with('=')), (44, true));
}

#[tokio::test]
async fn bad_bodies_are_named() {
    let fixture = Fixture::ready(options(&FakeEncoder::of_vectors(false))).await;
    let client = fixture.client();
    let long = "x".repeat(MAX_TOKENS as usize);
    let cases = [
        (json!({}), "input"),
        (json!({"input": null}), "input"),
        (json!({"input": ""}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": {}}), "input"),
        (json!({"input": ["a", ""]}), "input.1"),
        (json!({"input": ["a", 1]}), "input.1"),
        (json!({"input": [[1], []]}), "input.1"),
        (json!({"input": [1, "a"]}), "input.1"),
        (json!({"input": [VOCABULARY]}), "input"),
        (json!({"input": [[1], [VOCABULARY]]}), "input.1"),
        (json!({"input": vec!["a"; 2049]}), "input"),
        (json!({"input": "a", "dimensions": 0}), "dimensions"),
        (json!({"input": "a", "dimensions": 4}), "dimensions"),
        (
            json!({"input": "a", "dimensions": DIMENSIONS + 1}),
            "dimensions",
        ),
        (
            json!({"input": "a", "encoding_format": "int8"}),
            "encoding_format",
        ),
        (
            json!({"input": "a", "truncate_prompt_tokens": 0}),
            "truncate_prompt_tokens",
        ),
        (
            json!({"input": "a", "truncate_prompt_tokens": -2}),
            "truncate_prompt_tokens",
        ),
        (
            json!({"input": "a", "truncation_side": "left"}),
            "truncation_side",
        ),
        (
            json!({"input": "a", "embed_dtype": "float16"}),
            "embed_dtype",
        ),
        (json!({"input": "a", "endianness": "big"}), "endianness"),
        (json!({"input": "a", "normalize": false}), "normalize"),
        (json!({"input": "", "add_special_tokens": false}), "input"),
        (json!({"input": "a", "model": 7}), "model"),
    ];
    for (body, param) in cases {
        let answer = client.post(PATH, &body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
        assert_eq!(answer.json()["error"]["param"], param, "{body}");
    }
    for input in [json!(long), json!(["a", long]), json!(vec![99; 65])] {
        let answer = embed(&client, input).await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (400, "context_length_exceeded")
        );
        assert!(!answer.text.contains("xxx"));
    }
    let all = json!({"input": "a", "dimensions": DIMENSIONS, "encoding_format": null,
                     "endianness": "little", "truncation_side": "right", "normalize": true});
    assert_eq!(client.post(PATH, &all).await.status, 200);
}

#[tokio::test]
async fn longer_inputs_are_cut_if_that_is_asked_for() {
    let fixture = Fixture::ready(options(&FakeEncoder::of_vectors(false))).await;
    let client = fixture.client();
    let long = "x".repeat(100);
    let cut = |to: i64| json!({"input": long, "truncate_prompt_tokens": to});
    let expected = |tokens_left: usize| FakeEncoder::vector(&tokens(&long[..tokens_left - 2]));
    for (to, left) in [(-1, 64), (1000, 64), (64, 64), (10, 10), (3, 3)] {
        let answer = client.post(PATH, &cut(to)).await;
        assert_eq!(vectors(&answer), [expected(left)], "{to}");
        assert_eq!(answer.json()["usage"]["prompt_tokens"], left);
    }
    let ids = json!({"input": vec![99; 100], "truncate_prompt_tokens": 5});
    assert_eq!(
        vectors(&client.post(PATH, &ids).await),
        [FakeEncoder::vector(&[99; 5])]
    );
}

#[tokio::test]
async fn vectors_are_shortened_where_the_model_was_trained_for_it() {
    let fixture = Fixture::ready(options(&FakeEncoder::of_vectors(true))).await;
    let body = json!({"input": "abc", "dimensions": 3});
    let vectors = vectors(&fixture.client().post(PATH, &body).await);
    let whole = FakeEncoder::vector(&tokens("abc"));
    let length = whole[..3].iter().map(|x| x * x).sum::<f32>().sqrt();
    assert_eq!(vectors[0].len(), 3);
    for (short, number) in vectors[0].iter().zip(&whole) {
        assert!((short - number / length).abs() < 1e-6);
    }
}

#[tokio::test]
async fn models_are_asked_for_by_their_names() {
    let encoders = (FakeEncoder::of_vectors(false), FakeEncoder::of_scores());
    let options = Options {
        names: vec!["north"],
        ..Options::encoding(&encoders.0, &encoders.1)
    };
    let fixture = Fixture::ready(options).await;
    let client = fixture.client();
    for model in ["north", "scores", "unheard-of"] {
        let answer = client
            .post(PATH, &json!({"model": model, "input": "a"}))
            .await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (404, "model_not_found")
        );
        assert!(answer.text.contains("'vectors'"), "{}", answer.text);
    }
    let unknown = client.chat(&chat(json!({"model": "vectors"}))).await;
    assert_eq!(
        (unknown.status, unknown.error_code().as_str()),
        (404, "model_not_found")
    );
    let models = client.get("/v1/models").await.json();
    let told = |field: &str| {
        let models = models["data"].as_array().unwrap().iter();
        models.map(|model| model[field].clone()).collect::<Vec<_>>()
    };
    assert_eq!(told("id"), ["north", "vectors", "scores"]);
    assert_eq!(told("task"), ["generate", "embed", "rerank"]);
    assert_eq!(
        told("dimensions"),
        [Value::Null, json!(DIMENSIONS), Value::Null]
    );
    assert_eq!(told("max_input_tokens"), [2047, 64, 64]);
    assert_eq!(
        client.get("/v1/models/scores").await.json(),
        models["data"][2]
    );
    let unknown = client.get("/v1/models/unheard-of").await;
    assert_eq!(unknown.error_code(), "model_not_found");
    assert!(
        unknown.text.contains("'north', 'vectors', 'scores'"),
        "{}",
        unknown.text
    );
}

#[tokio::test]
async fn encoders_are_served_without_a_model_that_generates() {
    let vectors = FakeEncoder::of_vectors(false);
    let options = Options {
        only_encoders: true,
        ..options(&vectors)
    };
    let fixture = Fixture::loading(options).await;
    let client = fixture.client();
    assert_eq!(
        embed(&client, json!("a")).await.error_code(),
        "model_loading"
    );
    fixture.lifecycle.advance(LifecycleState::Ready);
    for probe in ["/health", "/ready"] {
        let answer = client.get(probe).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["encoders"][0]["task"], "embed");
    }
    assert_eq!(embed(&client, json!("a")).await.status, 200);
    let refused = [
        client.chat(&chat(json!({}))).await,
        client.complete(&json!({"prompt": "a"})).await,
        client.post("/v1/responses", &json!({"input": "a"})).await,
        client.get("/tokenizer_info").await,
        client
            .post("/v1/rerank", &json!({"query": "a", "documents": ["b"]}))
            .await,
    ];
    for answer in refused {
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (404, "model_not_found")
        );
        assert!(answer.text.contains("'vectors'"), "{}", answer.text);
    }
    assert_eq!(
        client.get("/v1/models").await.json()["data"][0]["id"],
        "vectors"
    );
    let tokenized = client
        .post("/tokenize", &json!({"prompt": "ab"}))
        .await
        .json();
    assert_eq!(tokenized["tokens"], json!([0, 99, 100, 1]));
}

#[tokio::test]
async fn tokens_of_encoders_are_told() {
    let encoders = (FakeEncoder::of_vectors(false), FakeEncoder::of_scores());
    let fixture = Fixture::ready(Options::encoding(&encoders.0, &encoders.1)).await;
    let client = fixture.client();
    let body = json!({"model": "vectors", "prompt": "ab", "return_token_strs": true});
    let answer = client.post("/tokenize", &body).await.json();
    let expected = json!({"count": 4, "max_model_len": 64, "tokens": [0, 99, 100, 1],
                          "token_strs": ["", "a", "b", ""]});
    assert_eq!(answer, expected);
    let plain = json!({"model": "scores", "prompt": "ab", "add_special_tokens": false});
    let plain = client.post("/tokenize", &plain).await.json();
    assert_eq!(plain["tokens"], json!([99, 100]));
    let body = json!({"model": "vectors", "tokens": [0, 99, 100, 1]});
    let text = client.post("/detokenize", &body).await.json();
    assert_eq!(text, json!({"prompt": "ab"}));
    let unknown = json!({"model": "vectors", "tokens": [VOCABULARY]});
    assert_eq!(
        client.post("/detokenize", &unknown).await.json()["error"]["param"],
        "tokens"
    );
    let chat = json!({"model": "vectors", "messages": [{"role": "user", "content": "a"}]});
    assert_eq!(
        client.post("/tokenize", &chat).await.json()["error"]["param"],
        "messages"
    );
    let long = json!({"model": "vectors", "prompt": "x".repeat(80)});
    assert_eq!(
        client.post("/tokenize", &long).await.error_code(),
        "context_length_exceeded"
    );
    // The others are those of the model that generates.
    let usual = client
        .post("/tokenize", &json!({"prompt": "ab"}))
        .await
        .json();
    assert_eq!(usual["tokens"], json!([97, 98]));
}

#[tokio::test]
async fn requests_that_come_together_are_computed_together() {
    let encoder = FakeEncoder::of_vectors(false);
    let fixture = Fixture::ready(options(&encoder)).await;
    let client = fixture.client();
    encoder.stalled.store(true, Ordering::Relaxed);
    let ask = |text: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { embed(&client, json!(text)).await })
    };
    let first = ask("first");
    eventually("the first is computed", || encoder.computed().len() == 1).await;
    let others: Vec<_> = ["second", "third", "fourth"].map(ask).into();
    wait_for_waiting(&fixture, 3).await;
    encoder.stalled.store(false, Ordering::Relaxed);
    assert_eq!(
        vectors(&first.await.unwrap()),
        [FakeEncoder::vector(&tokens("first"))]
    );
    for (text, answer) in ["second", "third", "fourth"].iter().zip(others) {
        assert_eq!(
            vectors(&answer.await.unwrap()),
            [FakeEncoder::vector(&tokens(text))]
        );
    }
    let batches = encoder.computed();
    assert_eq!(batches.len(), 2);
    assert_eq!(batches[1].len(), 3);
}

/// Waits until so many requests wait for the encoder.
async fn wait_for_waiting(fixture: &Fixture, count: u64) {
    let client = fixture.client();
    for _ in 0..1000 {
        let health = client.get("/health").await.json();
        if health["encoders"][0]["waiting"] == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("there were never {count} requests in the queue");
}

#[tokio::test]
async fn a_fault_costs_nobody_else_an_answer() {
    let encoder = FakeEncoder::of_vectors(false);
    let fixture = Fixture::ready(options(&encoder)).await;
    let client = fixture.client();
    encoder.stalled.store(true, Ordering::Relaxed);
    let ask = |text: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { embed(&client, json!(text)).await })
    };
    let first = ask("first");
    eventually("the first is computed", || encoder.computed().len() == 1).await;
    let texts = ["good", "please fail", "please panic", "infinite", "fine"];
    let answers: Vec<_> = texts.map(ask).into();
    wait_for_waiting(&fixture, 5).await;
    encoder.stalled.store(false, Ordering::Relaxed);
    assert_eq!(first.await.unwrap().status, 200);
    for (text, answer) in texts.iter().zip(answers) {
        let answer = answer.await.unwrap();
        match *text {
            "good" | "fine" => assert_eq!(vectors(&answer), [FakeEncoder::vector(&tokens(text))]),
            _ => assert_eq!(
                (answer.status, answer.error_code().as_str()),
                (500, "engine_failure"),
                "{text}"
            ),
        }
    }
    assert_eq!(embed(&client, json!("more")).await.status, 200);
    let metrics = client.get("/metrics").await.text;
    for line in [
        "vllm:request_success_total{model_name=\"vectors\",finished_reason=\"error\"} 3",
        "vllm:request_success_total{model_name=\"vectors\",finished_reason=\"stop\"} 4",
        "vllm:num_requests_waiting{model_name=\"vectors\"} 0",
        "vllm:num_requests_waiting{model_name=\"north\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let families = metrics.matches("# TYPE vllm:num_requests_waiting gauge");
    assert_eq!(families.count(), 1);
}

#[tokio::test]
async fn what_clients_give_up_is_not_computed() {
    let encoder = FakeEncoder::of_vectors(false);
    let fixture = Fixture::ready(options(&encoder)).await;
    let client = fixture.client();
    encoder.stalled.store(true, Ordering::Relaxed);
    let first = tokio::spawn({
        let client = client.clone();
        async move { embed(&client, json!("first")).await }
    });
    eventually("the first is computed", || encoder.computed().len() == 1).await;
    let gone = tokio::spawn({
        let client = client.clone();
        async move {
            let body = json!({"input": "gone"}).to_string();
            client.open(Method::POST, PATH, body).await;
        }
    });
    wait_for_waiting(&fixture, 1).await;
    gone.abort();
    eventually("it is no longer in flight", || {
        fixture.server.requests_in_flight() == 1
    })
    .await;
    encoder.stalled.store(false, Ordering::Relaxed);
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(embed(&client, json!("next")).await.status, 200);
    let computed: Vec<String> = encoder.computed().concat();
    assert_eq!(computed, ["first", "next"]);
}

#[tokio::test]
async fn one_keys_crowd_costs_another_key_no_more_than_a_batch() {
    let encoder = FakeEncoder::of_vectors(false);
    let key = |name: &str| KeySettings {
        name: Some(name.to_owned()),
        ..KeySettings::default()
    };
    let keys =
        KeySet::with_settings([("greedy-key", key("greedy")), ("modest-key", key("modest"))]);
    let options = options(&encoder).config(|config| {
        config.api_keys = Some(keys);
        config.normal.max_requests = 8;
    });
    let fixture = Fixture::ready(options).await;
    let with_key = |key: &str| fixture.client().with("x-api-key", key);
    let (greedy, modest) = (with_key("greedy-key"), with_key("modest-key"));
    encoder.stalled.store(true, Ordering::Relaxed);
    let texts: Vec<String> = (0..600).map(|number| format!("crowd {number}")).collect();
    let ask = || {
        let (client, texts) = (greedy.clone(), texts.clone());
        tokio::spawn(async move { embed(&client, json!(texts)).await })
    };
    let crowd: Vec<_> = (0..12).map(|_| ask()).collect();
    eventually("its queue is full", || {
        crowd.iter().filter(|asked| asked.is_finished()).count() == 4
    })
    .await;
    let small = tokio::spawn(async move { embed(&modest, json!("modest")).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    encoder.stalled.store(false, Ordering::Relaxed);
    assert_eq!(small.await.unwrap().status, 200);
    let batches = encoder.computed();
    let place = batches
        .iter()
        .position(|batch| batch.contains(&"modest".to_owned()));
    assert!(place.is_some_and(|place| place <= 2), "{place:?}");
    let mut statuses = Vec::new();
    for asked in crowd {
        let answer = asked.await.unwrap();
        if answer.status == 429 {
            assert_eq!(answer.error_code(), "queue_full");
        }
        statuses.push(answer.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![200; 8], vec![429; 4]].concat());
}

#[tokio::test]
async fn waits_have_an_end() {
    let encoder = FakeEncoder::of_vectors(false);
    let options = options(&encoder).config(|config| {
        config.normal.timeout = Duration::from_millis(200);
        config.request_timeout = Duration::from_millis(800);
        config.watchdog_timeout = Duration::from_millis(100);
    });
    let fixture = Fixture::ready(options).await;
    let client = fixture.client();
    encoder.stalled.store(true, Ordering::Relaxed);
    let first = tokio::spawn({
        let client = client.clone();
        async move { embed(&client, json!("first")).await }
    });
    eventually("the first is computed", || encoder.computed().len() == 1).await;
    let second = embed(&client, json!("second")).await;
    assert_eq!(
        (second.status, second.error_code().as_str()),
        (503, "deadline_exceeded")
    );
    let health = client.get("/health").await;
    assert_eq!(
        (health.status, health.json()["status"].as_str()),
        (503, Some("stalled"))
    );
    let first = first.await.unwrap();
    assert_eq!(
        (first.status, first.error_code().as_str()),
        (503, "deadline_exceeded")
    );
    encoder.stalled.store(false, Ordering::Relaxed);
    assert_eq!(embed(&client, json!("third")).await.status, 200);
    assert_eq!(client.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_shutdown_lets_what_runs_finish() {
    let encoder = FakeEncoder::of_vectors(false);
    let mut fixture = Fixture::ready(options(&encoder)).await;
    let client = fixture.client();
    encoder.stalled.store(true, Ordering::Relaxed);
    let ask = |text: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { embed(&client, json!(text)).await })
    };
    let (first, second) = (ask("first"), ask("second"));
    eventually("both are there", || {
        fixture.server.requests_in_flight() == 2
    })
    .await;
    fixture.shut_down();
    eventually("it drains", || {
        fixture.lifecycle.state() == LifecycleState::Draining
    })
    .await;
    encoder.stalled.store(false, Ordering::Relaxed);
    assert_eq!(
        (first.await.unwrap().status, second.await.unwrap().status),
        (200, 200)
    );
    (&mut fixture.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn limits_of_keys_count_tokens() {
    let settings = KeySettings {
        tokens_per_minute: Some(20),
        ..KeySettings::default()
    };
    let options = options(&FakeEncoder::of_vectors(false)).config(|config| {
        config.api_keys = Some(KeySet::with_settings([("a-good-key", settings)]));
    });
    let fixture = Fixture::ready(options).await;
    assert_eq!(embed(&fixture.client(), json!("a")).await.status, 401);
    let client = fixture.client().with("x-api-key", "a-good-key");
    assert_eq!(embed(&client, json!("0123456789")).await.status, 200);
    let refused = embed(&client, json!("0123456789")).await;
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (429, "rate_limit_exceeded")
    );
}

#[tokio::test]
async fn long_lists_are_answered_in_order() {
    let fixture = Fixture::ready(options(&FakeEncoder::of_vectors(false))).await;
    let text = |number: usize| "x".repeat(number % 60 + 1);
    let texts: Vec<String> = (0..2048).map(text).collect();
    let answer = embed(&fixture.client(), json!(texts)).await;
    let expected: Vec<_> = texts
        .iter()
        .map(|text| FakeEncoder::vector(&tokens(text)))
        .collect();
    assert_eq!(vectors(&answer), expected);
}
