//! Tokens for clients that count and cut prompts themselves.

use backstop_server::KeySet;
use serde_json::{Value, json};

use crate::support::{Fixture, MAX_MODEL_LEN, Options};

#[tokio::test]
async fn texts_become_tokens_and_tokens_texts() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let body = json!({"prompt": "é <|END_OF_TURN_TOKEN|>", "return_token_strs": true});
    let answer = client.post("/tokenize", &body).await.json();
    let expected = json!({"count": 4, "max_model_len": MAX_MODEL_LEN, "tokens": [195, 169, 32, 256],
                          "token_strs": ["Ã", "©", "Ġ", "<|END_OF_TURN_TOKEN|>"]});
    assert_eq!(answer, expected);
    let plain = client
        .post(
            "/tokenize",
            &json!({"prompt": "", "add_special_tokens": false}),
        )
        .await;
    assert_eq!(plain.json()["tokens"], json!([]));
    assert_eq!(plain.json()["token_strs"], Value::Null);
    let back = client
        .post("/detokenize", &json!({"tokens": answer["tokens"]}))
        .await;
    assert_eq!(back.json(), json!({"prompt": "é <|END_OF_TURN_TOKEN|>"}));
    let nothing = client
        .post("/detokenize", &json!({"model": "north", "tokens": []}))
        .await;
    assert_eq!(nothing.json(), json!({"prompt": ""}));
    fixture.engine_idle().await;
}

#[tokio::test]
async fn conversations_are_tokenised_as_they_would_be_answered() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let text = async |body: Value| {
        let tokens = client.post("/tokenize", &body).await.json()["tokens"].clone();
        let back = client.post("/detokenize", &json!({"tokens": tokens})).await;
        back.json()["prompt"].as_str().unwrap().to_owned()
    };
    let user = json!({"role": "user", "content": "Hi"});
    assert_eq!(
        text(json!({"messages": [user]})).await,
        "[user]Hi[end][assistant]"
    );
    let open = json!({"messages": [user], "add_generation_prompt": false});
    assert_eq!(text(open).await, "[user]Hi[end]");
    let begun = json!([user, {"role": "assistant", "content": "Hello"}]);
    let continued = json!({"messages": begun, "continue_final_message": true,
                           "add_generation_prompt": false});
    assert_eq!(text(continued).await, "[user]Hi[end][assistant]Hello");
}

#[tokio::test]
async fn bad_bodies_are_named() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let cases = [
        ("/tokenize", json!({}), "prompt"),
        ("/tokenize", json!({"prompt": 1}), "prompt"),
        (
            "/tokenize",
            json!({"prompt": "a", "add_special_tokens": 1}),
            "add_special_tokens",
        ),
        ("/tokenize", json!({"messages": []}), "messages"),
        (
            "/tokenize",
            json!({"prompt": "x".repeat(1 << 20)}),
            "prompt",
        ),
        ("/detokenize", json!({}), "tokens"),
        ("/detokenize", json!({"tokens": [1, "a"]}), "tokens.1"),
        ("/detokenize", json!({"tokens": [99_999]}), "tokens"),
    ];
    for (path, body, param) in cases {
        let answer = client.post(path, &body).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["param"]),
            (400, &json!(param))
        );
    }
}

#[tokio::test]
async fn clients_learn_how_to_write_prompts() {
    let options =
        Options::default().config(|config| config.api_keys = Some(KeySet::new(["a-good-key"])));
    let fixture = Fixture::ready(options).await;
    let client = fixture.client();
    assert_eq!(client.get("/tokenizer_info").await.status, 401);
    assert_eq!(
        client
            .post("/tokenize", &json!({"prompt": "a"}))
            .await
            .status,
        401
    );
    assert_eq!(
        client
            .post("/detokenize", &json!({"tokens": [1]}))
            .await
            .status,
        401
    );
    let info = client
        .with("x-api-key", "a-good-key")
        .get("/tokenizer_info")
        .await
        .json();
    assert_eq!(info["eos_token"], "<|END_OF_TURN_TOKEN|>");
    assert_eq!(
        (&info["bos_token"], &info["pad_token"]),
        (&Value::Null, &Value::Null)
    );
    assert!(
        info["chat_template"]
            .as_str()
            .unwrap()
            .contains("for m in messages")
    );
    assert_eq!(info["model_max_length"], MAX_MODEL_LEN);
}
