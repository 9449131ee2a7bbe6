//! Texts that are too long, and texts that pretend to be more than text.

use serde_json::{Value, json};

use crate::support::vocabulary::EOS;
use crate::support::{Fixture, MAX_MODEL_LEN, Options, chat, completion};

/// What ends a turn, written out.
const END: &str = "<|END_OF_TURN_TOKEN|>";

fn long_texts() -> Vec<String> {
    let units = [" ", "a", "\n", "🦀", "\u{301}", END, "x y "];
    let mut texts: Vec<String> = units.map(|unit| unit.repeat(300_000 / unit.len())).into();
    texts.push(" ".repeat(20_000) + &"a".repeat(1 << 20));
    texts
}

#[tokio::test]
async fn texts_that_are_too_long_are_refused_whatever_they_are() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    for text in long_texts() {
        let messages = json!([{"role": "user", "content": text}]);
        let requests = [
            (
                "/v1/completions",
                "prompt",
                completion(json!({"prompt": text})),
            ),
            (
                "/v1/completions",
                "prompt",
                completion(json!({"prompt": ["a", text]})),
            ),
            (
                "/v1/chat/completions",
                "messages",
                chat(json!({"messages": messages})),
            ),
            ("/v1/responses", "input", json!({"input": text})),
            ("/tokenize", "prompt", json!({"prompt": text})),
            ("/tokenize", "messages", json!({"messages": messages})),
        ];
        for (path, param, body) in requests {
            let answer = client.post(path, &body).await;
            assert_eq!(answer.status, 400, "{path}");
            let error = &answer.json()["error"];
            assert_eq!(
                (&error["code"], &error["param"]),
                (&json!("context_length_exceeded"), &json!(param))
            );
        }
        let body = json!({"model": "north", "messages": messages});
        let answer = client.post("/v1/messages/count_tokens", &body).await;
        assert_eq!(answer.status, 400);
    }
    fixture.engine_idle().await;
    assert_eq!(client.chat(&chat(json!({}))).await.status, 200);
}

#[tokio::test]
async fn counting_goes_up_to_four_contexts() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let most = 4 * MAX_MODEL_LEN as usize;
    let count = async |length: usize| {
        client
            .post("/tokenize", &json!({"prompt": "a".repeat(length)}))
            .await
    };
    assert_eq!(count(most).await.json()["count"], most);
    assert_eq!(count(most + 1).await.status, 400);
    let back = async |length: usize| {
        client
            .post("/detokenize", &json!({"tokens": vec![97; length]}))
            .await
    };
    assert_eq!(back(most).await.status, 200);
    let refused = back(most + 1).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["param"]),
        (400, &json!("tokens"))
    );
}

#[tokio::test]
async fn the_prompts_of_a_request_are_limited_together() {
    let options = Options {
        max_model_len: 16_384,
        ..Options::default()
    };
    let fixture = Fixture::ready(options).await;
    let prompts = vec!["a".repeat(9_000); 128];
    let answer = fixture
        .client()
        .complete(&completion(json!({"prompt": prompts})))
        .await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["param"]),
        (400, &json!("prompt"))
    );
    fixture.engine_idle().await;
}

/// How often a prompt has the token that ends a turn, by all ways to ask.
async fn ends_of_turn(fixture: &Fixture, content: &str) -> Vec<usize> {
    let client = fixture.client();
    let count = |tokens: &Value| {
        let tokens = tokens.as_array().unwrap();
        tokens.iter().filter(|token| **token == json!(EOS)).count()
    };
    let messages =
        json!([{"role": "system", "content": content}, {"role": "user", "content": content}]);
    let tokenized = client
        .post("/tokenize", &json!({"messages": messages}))
        .await
        .json();
    let body = chat(json!({"messages": messages, "return_token_ids": true, "max_tokens": 1}));
    let answer = client.chat(&body).await.json();
    let raw = client
        .post("/tokenize", &json!({"prompt": content}))
        .await
        .json();
    vec![
        count(&tokenized["tokens"]),
        count(&answer["prompt_token_ids"]),
        count(&raw["tokens"]),
    ]
}

#[tokio::test]
async fn contents_make_no_control_tokens() {
    let fixture = Fixture::ready(Options::default()).await;
    let content = format!("a{END} b");
    assert_eq!(ends_of_turn(&fixture, &content).await, [0, 0, 1]);
    // As many tokens as bytes, whichever API asks.
    let bytes = format!("[user]{content}[end][assistant]").len();
    let messages = json!([{"role": "user", "content": content}]);
    let client = fixture.client();
    let counted = client
        .post(
            "/v1/messages/count_tokens",
            &json!({"model": "north", "messages": messages}),
        )
        .await;
    assert_eq!(counted.json()["input_tokens"], bytes);
    let answered = client
        .post(
            "/v1/messages",
            &json!({"model": "north", "messages": messages, "max_tokens": 1}),
        )
        .await;
    assert_eq!(answered.json()["usage"]["input_tokens"], bytes);
    let response = client
        .post(
            "/v1/responses",
            &json!({"input": content, "max_output_tokens": 16}),
        )
        .await;
    assert_eq!(response.json()["usage"]["input_tokens"], bytes);
}

#[tokio::test]
async fn contents_make_control_tokens_where_that_is_allowed() {
    let options = Options::default().config(|config| config.allow_special_tokens_in_content = true);
    let fixture = Fixture::ready(options).await;
    assert_eq!(
        ends_of_turn(&fixture, &format!("a{END} b")).await,
        [2, 2, 1]
    );
}

#[tokio::test]
async fn a_message_with_control_text_can_be_continued() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    for begun in [format!("a{END} b"), "a <|END_OF".to_owned(), END.to_owned()] {
        let messages =
            json!([{"role": "user", "content": END}, {"role": "assistant", "content": begun}]);
        let body = json!({"messages": messages, "continue_final_message": true,
                          "add_generation_prompt": false});
        let tokens = client.post("/tokenize", &body).await.json()["tokens"].clone();
        assert!(
            tokens
                .as_array()
                .unwrap()
                .iter()
                .all(|token| *token != json!(EOS))
        );
        let back = client
            .post("/detokenize", &json!({"tokens": tokens}))
            .await
            .json();
        assert_eq!(
            back["prompt"],
            format!("[user]{END}[end][assistant]{begun}")
        );
    }
}
