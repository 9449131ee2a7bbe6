//! Documents by how well they answer a query.

use serde_json::{Value, json};

use crate::support::client::{Answer, Client};
use crate::support::encoder::FakeEncoder;
use crate::support::{Fixture, Options};

const PATH: &str = "/v1/rerank";

async fn fixture() -> Fixture {
    let encoders = (FakeEncoder::of_vectors(false), FakeEncoder::of_scores());
    Fixture::ready(Options::encoding(&encoders.0, &encoders.1)).await
}

async fn rank(client: &Client, extra: Value) -> Answer {
    let mut body =
        json!({"model": "scores", "query": "abc", "documents": ["xyz", "cab", {"text": "aa"}, ""]});
    let extra = extra.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(extra);
    client.post(PATH, &body).await
}

fn order(answer: &Answer) -> Vec<u64> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = answer.json();
    let results = answer["results"].as_array().unwrap().iter();
    results
        .map(|result| result["index"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn the_most_relevant_comes_first() {
    let fixture = fixture().await;
    let client = fixture.client();
    let answer = rank(&client, json!({})).await;
    assert_eq!(order(&answer), [1, 2, 0, 3]);
    let body = answer.json();
    assert_eq!(
        body["results"][0],
        json!({"index": 1, "document": {"text": "cab"}, "relevance_score": 3.0})
    );
    assert_eq!(body["results"][1]["document"]["text"], "aa");
    assert_eq!(body["model"], "scores");
    assert!(body["id"].as_str().unwrap().starts_with("rerank-"));
    // Each pair has three special tokens and the query.
    let tokens = 4 * 6 + 8;
    assert_eq!(
        body["usage"],
        json!({"prompt_tokens": tokens, "total_tokens": tokens})
    );
    assert_eq!(answer.header("x-backstop-model"), "scores@0123");
    for path in ["/rerank", "/v2/rerank"] {
        let same = client
            .post(path, &json!({"query": "abc", "documents": ["x", "a"]}))
            .await;
        assert_eq!(order(&same), [1, 0]);
    }
}

#[tokio::test]
async fn less_is_told_if_less_is_wanted() {
    let fixture = fixture().await;
    let client = fixture.client();
    let best = rank(&client, json!({"top_n": 2, "return_documents": false})).await;
    assert_eq!(order(&best), [1, 2]);
    assert_eq!(
        best.json()["results"][0],
        json!({"index": 1, "relevance_score": 3.0})
    );
    assert_eq!(order(&rank(&client, json!({"top_n": 0})).await).len(), 4);
    assert_eq!(order(&rank(&client, json!({"top_n": 99})).await).len(), 4);
}

#[tokio::test]
async fn bad_bodies_are_named() {
    let fixture = fixture().await;
    let client = fixture.client();
    let cases = [
        (json!({"query": null}), "query"),
        (json!({"query": ""}), "query"),
        (json!({"query": ["a"]}), "query"),
        (json!({"documents": null}), "documents"),
        (json!({"documents": []}), "documents"),
        (json!({"documents": "a"}), "documents"),
        (json!({"documents": ["a", 5]}), "documents.1"),
        (json!({"documents": [{}]}), "documents.0.text"),
        (json!({"documents": [{"text": 5}]}), "documents.0.text"),
        (json!({"documents": vec!["a"; 2049]}), "documents"),
        (json!({"top_n": -1}), "top_n"),
        (json!({"return_documents": 1}), "return_documents"),
        (json!({"max_tokens_per_doc": 0}), "max_tokens_per_doc"),
        (json!({"use_activation": false}), "use_activation"),
        (json!({"instruction": "Be strict."}), "instruction"),
        (json!({"max_tokens_per_query": 5}), "max_tokens_per_query"),
    ];
    for (extra, param) in cases {
        let answer = rank(&client, extra.clone()).await;
        assert_eq!(answer.status, 400, "{extra}: {}", answer.text);
        assert_eq!(answer.json()["error"]["param"], param, "{extra}");
    }
    let long = "x".repeat(64);
    for (extra, param) in [
        (json!({"query": long}), "query"),
        (json!({"documents": ["a", long]}), "documents.1"),
        (json!({"truncate_prompt_tokens": 6}), "query"),
    ] {
        let answer = rank(&client, extra).await;
        assert_eq!(answer.error_code(), "context_length_exceeded");
        assert_eq!(answer.json()["error"]["param"], param);
    }
    let missing = client
        .post(
            PATH,
            &json!({"model": "vectors", "query": "a", "documents": ["a"]}),
        )
        .await;
    assert_eq!(
        (missing.status, missing.error_code().as_str()),
        (404, "model_not_found")
    );
    assert!(missing.text.contains("'scores'"));
}

#[tokio::test]
async fn long_documents_are_cut_if_that_is_asked_for() {
    let fixture = fixture().await;
    let client = fixture.client();
    let documents = json!([
        format!("{}aaa", "x".repeat(100)),
        format!("aaa{}", "x".repeat(100))
    ]);
    for extra in [
        json!({"truncate_prompt_tokens": -1}),
        json!({"max_tokens_per_doc": 4096}),
        json!({"max_tokens_per_doc": 4}),
        json!({"truncate_prompt_tokens": 9}),
    ] {
        let mut extra = extra;
        extra["documents"] = documents.clone();
        let answer = rank(&client, extra).await;
        assert_eq!(order(&answer), [1, 0]);
        assert_eq!(answer.json()["results"][0]["relevance_score"], 3.0);
    }
    let short = json!({"documents": documents, "max_tokens_per_doc": 2});
    let answer = rank(&client, short).await.json();
    assert_eq!(answer["results"][0]["relevance_score"], 2.0);
    assert_eq!(answer["usage"]["total_tokens"], 2 * 8);
}
