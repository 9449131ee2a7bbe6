//! Completions: batches, echo, log-probabilities and streams.

use serde_json::{Value, json};

use crate::support::executor::Script;
use crate::support::{Fixture, MAX_MODEL_LEN, Options, completion};

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
    let (last, earlier) = chunks.split_last().unwrap();
    for chunk in earlier {
        assert_eq!(chunk.get("usage"), Some(&Value::Null));
    }
    let usage = &last["usage"];
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
    // The token that ends the answer is in the lists, and not in the text.
    let end = "<|END_OF_TURN_TOKEN|>";
    assert_eq!(logprobs["tokens"], json!(["H", "e", "y", end]));
    assert_eq!(logprobs["token_logprobs"], json!([-0.5, -0.5, -0.5, -0.5]));
    assert_eq!(logprobs["text_offset"], json!([0, 1, 2, 3]));
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
    assert_eq!(offsets, [json!(0), json!(1), json!(2), json!(3)]);
}

/// The chunks of choice `index` put together: text, lists of log-probabilities, finish reason.
fn together(chunks: &[Value], index: usize) -> Value {
    let mut text = String::new();
    let mut lists = json!({"tokens": [], "token_logprobs": [], "top_logprobs": [],
                           "text_offset": []});
    let mut finish_reason = Value::Null;
    let choices = chunks.iter().map(|chunk| &chunk["choices"][0]);
    for choice in choices.filter(|choice| choice["index"] == index) {
        text += choice["text"].as_str().unwrap();
        for (name, list) in lists.as_object_mut().unwrap() {
            let new = choice["logprobs"][name].as_array().cloned();
            list.as_array_mut().unwrap().extend(new.unwrap_or_default());
        }
        finish_reason = choice["finish_reason"].clone();
    }
    json!({"index": index, "text": text, "logprobs": lists, "finish_reason": finish_reason,
           "stop_reason": null})
}

#[tokio::test]
async fn echoed_prompts_have_log_probabilities_too() {
    let fixture = Fixture::ready(Options::script(Script::says("Hey"))).await;
    let client = fixture.client();
    let asked = json!({"prompt": ["Hi\u{fc}!", "a"], "n": 2, "echo": true, "logprobs": 1,
                       "max_tokens": 2});
    let body = client.complete(&completion(asked.clone())).await.json();
    let first = &body["choices"][1];
    assert_eq!(first["text"], "Hi\u{fc}!He");
    let logprobs = &first["logprobs"];
    let broken = "\u{fffd}";
    assert_eq!(
        logprobs["tokens"],
        json!(["H", "i", broken, broken, "!", "H", "e"])
    );
    assert_eq!(
        logprobs["token_logprobs"],
        json!([null, -1.0, -2.0, -3.0, -4.0, -0.5, -0.5])
    );
    assert_eq!(logprobs["text_offset"], json!([0, 1, 2, 3, 3, 4, 5]));
    assert_eq!(logprobs["top_logprobs"][0], Value::Null);
    assert_eq!(logprobs["top_logprobs"][4], json!({"!": -4.0}));
    let second = &body["choices"][2]["logprobs"];
    assert_eq!(second["token_logprobs"], json!([null, -0.5, -0.5]));
    assert_eq!(body["usage"]["prompt_tokens"], 6);
    assert_eq!(body["usage"]["completion_tokens"], 8);
    let mut streamed = asked;
    streamed["stream"] = json!(true);
    let chunks = client.complete(&completion(streamed)).await.chunks();
    for index in 0..4 {
        assert_eq!(together(&chunks, index), body["choices"][index]);
    }
}

#[tokio::test]
async fn a_prompt_alone_can_be_asked_about() {
    let fixture = Fixture::ready(Options::script(Script::says("Hey"))).await;
    let client = fixture.client();
    // More tokens than a step has rows of logits.
    let prompt: Vec<u32> = (0..500).map(|index| 65 + index % 26).collect();
    let asked = json!({"prompt": [prompt, [66]], "echo": true, "logprobs": 0, "max_tokens": 0});
    let body = client.complete(&completion(asked.clone())).await.json();
    let choice = &body["choices"][0];
    assert_eq!(choice["text"].as_str().unwrap().len(), 500);
    assert_eq!(choice["finish_reason"], "length");
    let logprobs = choice["logprobs"]["token_logprobs"].as_array().unwrap();
    let expected = (1..500).map(|position| json!(-f64::from(position)));
    assert_eq!(logprobs[0], Value::Null);
    assert_eq!(logprobs[1..], expected.collect::<Vec<_>>());
    let alone = &body["choices"][1]["logprobs"];
    assert_eq!(alone["token_logprobs"], json!([null]));
    assert_eq!(body["usage"]["prompt_tokens"], 501);
    assert_eq!(body["usage"]["completion_tokens"], 0);
    let mut streamed = asked;
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true, "continuous_usage_stats": true});
    let answer = client.complete(&completion(streamed)).await;
    let chunks = answer.chunks();
    for index in 0..2 {
        assert_eq!(together(&chunks, index), body["choices"][index]);
    }
    for chunk in &chunks {
        assert_eq!(chunk["usage"]["completion_tokens"], 0);
    }
    let plain = json!({"prompt": "ab", "echo": true, "max_tokens": 0});
    let body = client.complete(&completion(plain)).await.json();
    assert_eq!(body["choices"][0]["text"], "ab");
    assert_eq!(body["choices"][0]["logprobs"], Value::Null);
    for wrong in [
        json!({"max_tokens": 0}),
        json!({"max_tokens": 0, "logprobs": 1}),
    ] {
        let answer = client.complete(&completion(wrong)).await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (400, "invalid_value")
        );
    }
}

#[tokio::test]
async fn echo_goes_with_stop_strings_and_best_of() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let asked = json!({"prompt": [[72, 105]], "echo": true, "stop": ["world"], "n": 2,
                       "best_of": 2, "logprobs": 1});
    let body = client.complete(&completion(asked)).await.json();
    assert_eq!(body["choices"].as_array().unwrap().len(), 2);
    assert_eq!(body["choices"][1]["text"], "HiHello, ");
    assert_eq!(body["choices"][1]["finish_reason"], "stop");
    assert_eq!(body["choices"][1]["logprobs"]["token_logprobs"][1], -1.0);
    for (field, value) in [
        ("suffix", json!("x")),
        ("best_of", json!(3)),
        ("prompt_logprobs", json!(1)),
    ] {
        let answer = client.complete(&completion(json!({field: value}))).await;
        assert_eq!(answer.status, 400, "{field}");
        assert_eq!(answer.json()["error"]["param"], field);
    }
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

#[tokio::test]
async fn sixteen_tokens_are_the_default_where_there_is_room() {
    let fixture = Fixture::ready(Options::script(Script::repeats("ab"))).await;
    let client = fixture.client();
    let body = client.complete(&completion(json!({}))).await.json();
    assert_eq!(body["choices"][0]["text"], "ab".repeat(8));
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    let prompt = "x".repeat(MAX_MODEL_LEN as usize - 5);
    let full = completion(json!({"prompt": prompt}));
    let body = client.complete(&full).await.json();
    assert_eq!(body["usage"]["completion_tokens"], 5);
    let echoed = json!({"echo": true, "max_tokens": 0, "logprobs": 1});
    let body = client.complete(&completion(echoed)).await.json();
    assert_eq!(body["usage"]["completion_tokens"], 0);
}
