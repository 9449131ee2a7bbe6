//! Completions: batches, echo, log-probabilities and streams.

use serde_json::{Value, json};

use crate::support::executor::Script;
use crate::support::{Fixture, Options, completion};

#[tokio::test]
async fn a_whole_answer() {
    let fixture = Fixture::ready(Options::default()).await;
    let body = fixture
        .client()
        .complete(&completion(json!({})))
        .await
        .json();
    assert!(body["id"].as_str().unwrap().starts_with("cmpl-"));
    assert_eq!(body["object"], "text_completion");
    assert_eq!(body["choices"][0]["text"], "Hello, world!");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    assert_eq!(body["usage"]["prompt_tokens"], 4);
    assert_eq!(body["usage"]["completion_tokens"], 14);
}

#[tokio::test]
async fn batches_number_their_choices_by_prompt() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let batch = json!({"prompt": ["a", "bcd"], "n": 2, "echo": true});
    let body = client.complete(&completion(batch)).await.json();
    let texts: Vec<&str> = body["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice["text"].as_str().unwrap())
        .collect();
    let (first, second) = ("aHello, world!", "bcdHello, world!");
    assert_eq!(texts, [first, first, second, second]);
    assert_eq!(body["choices"][3]["index"], 3);
    assert_eq!(body["usage"]["prompt_tokens"], 4);
    assert_eq!(body["usage"]["completion_tokens"], 56);
    let ids = json!({"prompt": [[72, 105], [33]], "echo": true});
    let body = client.complete(&completion(ids)).await.json();
    assert_eq!(body["choices"][0]["text"], "HiHello, world!");
    assert_eq!(body["choices"][1]["text"], "!Hello, world!");
}

#[tokio::test]
async fn streams_add_up_to_the_whole() {
    let fixture = Fixture::ready(Options::default()).await;
    let extra = json!({"prompt": ["a", "b"], "echo": true, "stream": true,
                       "stream_options": {"include_usage": true}});
    let answer = fixture.client().complete(&completion(extra)).await;
    assert_eq!(answer.events().last(), Some(&"[DONE]"));
    let chunks = answer.chunks();
    for (index, expected) in [(0, "aHello, world!"), (1, "bHello, world!")] {
        let own = chunks
            .iter()
            .filter(|chunk| chunk["choices"][0]["index"] == index);
        let own: Vec<&Value> = own.map(|chunk| &chunk["choices"][0]).collect();
        let text: String = own
            .iter()
            .map(|choice| choice["text"].as_str().unwrap())
            .collect();
        assert_eq!(text, expected);
        assert_eq!(own.last().unwrap()["finish_reason"], "stop");
    }
    let usage = &chunks.last().unwrap()["usage"];
    assert_eq!(
        (&usage["prompt_tokens"], &usage["completion_tokens"]),
        (&json!(2), &json!(28))
    );
}

#[tokio::test]
async fn log_probabilities_are_parallel_lists() {
    let fixture = Fixture::ready(Options::script(Script::says("Hey"))).await;
    let client = fixture.client();
    let body = client
        .complete(&completion(json!({"logprobs": 2})))
        .await
        .json();
    let logprobs = &body["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["H", "e", "y"]));
    assert_eq!(logprobs["token_logprobs"], json!([-0.5, -0.5, -0.5]));
    assert_eq!(logprobs["text_offset"], json!([0, 1, 2]));
    assert_eq!(logprobs["top_logprobs"][0], json!({"H": -0.5, "I": -0.5}));
    let streamed = client
        .complete(&completion(json!({"logprobs": 2, "stream": true})))
        .await;
    let offsets: Vec<Value> = streamed
        .chunks()
        .iter()
        .filter_map(|chunk| {
            chunk["choices"][0]["logprobs"]["text_offset"]
                .as_array()
                .cloned()
        })
        .flatten()
        .collect();
    assert_eq!(offsets, [json!(0), json!(1), json!(2)]);
}

#[tokio::test]
async fn prompts_that_are_no_prompts_are_400s() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    for prompt in [
        json!(""),
        json!([]),
        json!([99_999]),
        json!([[300]]),
        json!({}),
        json!([["a"]]),
    ] {
        let answer = client
            .complete(&completion(json!({"prompt": prompt})))
            .await;
        assert_eq!(answer.status, 400, "{prompt}");
        answer.error_code();
    }
    let long = completion(json!({"prompt": "x".repeat(3000)}));
    assert_eq!(
        client.complete(&long).await.error_code(),
        "context_length_exceeded"
    );
}
