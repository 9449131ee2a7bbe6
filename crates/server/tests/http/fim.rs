//! Filling in the middle.

use serde_json::{Value, json};

use crate::support::executor::Script;
use crate::support::{Fixture, MAX_MODEL_LEN, Options, completion};

/// A server whose model fills in the middle, and says this.
async fn filling(script: Script) -> Fixture {
    Fixture::ready(Options {
        fills_in: true,
        ..Options::script(script)
    })
    .await
}

fn between(prompt: Value, suffix: &str) -> Value {
    completion(json!({"prompt": prompt, "suffix": suffix}))
}

#[tokio::test]
async fn a_middle_ends_where_its_tokens_say_and_shows_none_of_them() {
    let ends = [
        "<|fim_pad|>",
        "<|fim_prefix|>",
        "<|fim_suffix|>",
        "<|fim_middle|>",
        "<|file_sep|>",
        "<|repo_name|>",
        "<|END_OF_TURN_TOKEN|>",
    ];
    for end in ends {
        let fixture = filling(Script::says(&format!("mid{end}more"))).await;
        let client = fixture.client();
        let mut asked = between(json!("abc"), "de");
        asked["skip_special_tokens"] = json!(false);
        let body = client.complete(&asked).await.json();
        let choice = &body["choices"][0];
        assert_eq!(choice["text"], "mid", "{end}");
        assert_eq!(choice["finish_reason"], "stop", "{end}");
        assert_eq!(choice["stop_reason"], Value::Null, "{end}");
        // Three control tokens beside the texts; the token that ends is counted.
        assert_eq!(body["usage"]["prompt_tokens"], 8, "{end}");
        assert_eq!(body["usage"]["completion_tokens"], 4, "{end}");
    }
    // Without a suffix they are tokens like others.
    let fixture = filling(Script::says("mid<|fim_pad|>more")).await;
    let body = fixture.client().complete(&completion(json!({}))).await;
    let text = &body.json()["choices"][0]["text"];
    assert_eq!(text, "mid<|fim_pad|>more");
}

#[tokio::test]
async fn batches_choices_and_streams_are_filled_in_too() {
    let fixture = filling(Script::says("mid<|fim_pad|>")).await;
    let client = fixture.client();
    let mut asked = between(json!(["ab", "c"]), "de");
    asked["n"] = json!(2);
    asked["echo"] = json!(true);
    let body = client.complete(&asked).await.json();
    let texts = |body: &Value| -> Vec<String> {
        let choices = body["choices"].as_array().unwrap().iter();
        choices
            .map(|choice| choice["text"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(texts(&body), ["abmid", "abmid", "cmid", "cmid"]);
    assert_eq!(body["usage"]["prompt_tokens"], 7 + 6);
    asked["stream"] = json!(true);
    let answer = client.complete(&asked).await;
    let mut streamed = vec![String::new(); 4];
    for chunk in answer.chunks() {
        let choice = &chunk["choices"][0];
        streamed[choice["index"].as_u64().unwrap() as usize] += choice["text"].as_str().unwrap();
    }
    assert_eq!(streamed, texts(&body));
    let mut ids = between(json!([72, 105]), "de");
    ids["echo"] = json!(true);
    let body = client.complete(&ids).await.json();
    assert_eq!(texts(&body), ["Himid"]);
    let mut rated = between(json!("ab"), "de");
    rated["logprobs"] = json!(0);
    let body = client.complete(&rated).await.json();
    let tokens = &body["choices"][0]["logprobs"]["tokens"];
    assert_eq!(tokens, &json!(["m", "i", "d", "<|fim_pad|>"]));
}

#[tokio::test]
async fn control_tokens_in_texts_around_the_middle_are_text() {
    let fixture = filling(Script::says("mid")).await;
    let client = fixture.client();
    let (prefix, suffix) = ("a<|fim_suffix|>", "b<|END_OF_TURN_TOKEN|><|file_sep|>");
    let asked = between(json!(prefix), suffix);
    let body = client.complete(&asked).await.json();
    let bytes = prefix.len() + suffix.len();
    assert_eq!(body["usage"]["prompt_tokens"], bytes + 3);
}

#[tokio::test]
async fn what_cannot_be_filled_in_is_refused() {
    let fixture = Fixture::ready(Options::default()).await;
    let answer = fixture.client().complete(&between(json!("a"), "b")).await;
    assert_eq!(answer.error_code(), "unsupported_parameter");
    let error = &answer.json()["error"];
    assert_eq!(error["param"], "suffix");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("fill in the middle"), "{message}");
    let fixture = filling(Script::says("mid")).await;
    let client = fixture.client();
    let long = "x".repeat(MAX_MODEL_LEN as usize + 1);
    for (asked, param) in [
        (between(json!("a"), &long), "suffix"),
        (between(json!(long), "b"), "prompt"),
        (between(json!(long[..1500]), &long[..600]), "prompt"),
    ] {
        let answer = client.complete(&asked).await;
        assert_eq!(answer.error_code(), "context_length_exceeded");
        assert_eq!(answer.json()["error"]["param"], param);
    }
    let mut rated = between(json!("a"), "b");
    rated["echo"] = json!(true);
    rated["logprobs"] = json!(1);
    let answer = client.complete(&rated).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["param"]),
        (400, &json!("suffix"))
    );
    let answer = client.complete(&between(json!([99_999]), "b")).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["param"]),
        (400, &json!("prompt"))
    );
}
