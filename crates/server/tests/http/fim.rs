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

fn infill(extra: Value) -> Value {
    let mut body = json!({"input_prefix": "ab\n", "input_suffix": "de"});
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn an_editor_gets_the_middle_of_a_file() {
    let fixture = filling(Script::says("mid\nmore<|fim_pad|>")).await;
    let client = fixture.client();
    let asked = infill(json!({
        "prompt": "c",
        "input_extra": [{"filename": "x.py", "text": "one"}, {"text": "two"}],
        // What llama.vim sends and what need not be followed.
        "id_slot": 0, "cache_prompt": true, "samplers": ["top_k", "top_p", "infill"],
        "top_k": 40, "top_p": 0.99, "n_predict": 64, "t_max_prompt_ms": 500,
        "t_max_predict_ms": 100_000, "stop": ["never"],
    }));
    let body = client.post("/infill", &asked).await.json();
    assert_eq!(body["content"], "mid\nmore");
    assert_eq!(
        body["prompt"],
        "<|repo_name|>myproject\n<|file_sep|>x.py\none<|file_sep|>tmp\ntwo<|file_sep|>filename\n\
         <|fim_prefix|>ab\nc<|fim_suffix|>de<|fim_middle|>"
    );
    assert_eq!(body["stop"], true);
    assert_eq!(body["stop_type"], "eos");
    assert_eq!(
        (&body["truncated"], &body["has_new_line"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(body["tokens_predicted"], 9);
    let timings = &body["timings"];
    assert_eq!(timings["predicted_n"], 9);
    assert_eq!(timings["prompt_n"], body["tokens_evaluated"]);
    assert!(timings["prompt_ms"].as_f64().unwrap() >= 0.0);
    let settings = &body["generation_settings"];
    assert_eq!(
        (&settings["n_ctx"], &settings["n_predict"]),
        (&json!(MAX_MODEL_LEN), &json!(64))
    );
    assert_eq!(
        (&settings["top_k"], &settings["seed"]),
        (&json!(40), &json!(-1))
    );
    let mut some = asked.clone();
    some["response_fields"] = json!(["content", "timings/predicted_n", "nothing/of/that"]);
    let body = client.post("/infill", &some).await.json();
    assert_eq!(
        body,
        json!({"content": "mid\nmore", "timings/predicted_n": 9})
    );
    let mut several = asked.clone();
    several["n_cmpl"] = json!(2);
    let body = client.post("/infill", &several).await.json();
    assert_eq!(body[1]["content"], "mid\nmore");
    assert_eq!(body[1]["index"], 1);
    let stream = infill(json!({"stream": true, "stop": ["or"], "return_tokens": true}));
    let answer = client.post("/infill", &stream).await;
    let chunks = answer.chunks();
    let (last, parts) = chunks.split_last().unwrap();
    let text: String = parts
        .iter()
        .map(|part| part["content"].as_str().unwrap())
        .collect();
    assert_eq!(text, "mid\nm");
    assert!(parts.iter().all(|part| part["stop"] == false));
    assert_eq!(last["content"], "");
    assert_eq!(
        (&last["stop_type"], &last["stopping_word"]),
        (&json!("word"), &json!("or"))
    );
    assert!(!answer.text.contains("[DONE]"));
}

#[tokio::test]
async fn a_middle_ends_with_its_block() {
    let fixture = filling(Script::repeats("  a\n    b\nc\n")).await;
    let client = fixture.client();
    let asked = infill(json!({"n_indent": 2, "n_predict": 1000}));
    let body = client.post("/infill", &asked).await.json();
    assert_eq!(body["content"], "  a\n    b\n");
    assert_eq!(body["stop_type"], "limit");
    let mut streamed = asked.clone();
    streamed["stream"] = json!(true);
    let answer = client.post("/infill", &streamed).await;
    let content = |chunk: &Value| chunk["content"].as_str().unwrap().to_owned();
    let text: String = answer.chunks().iter().map(content).collect();
    assert_eq!(text, "  a\n    b\n");
    assert_eq!(answer.chunks().last().unwrap()["stop"], true);
    // What nobody reads is not generated.
    fixture.engine_idle().await;
    let warm = infill(json!({"n_predict": 0, "samplers": [], "response_fields": [""]}));
    assert_eq!(client.post("/infill", &warm).await.json(), json!({}));
    let warm = infill(json!({"n_predict": 0}));
    let body = client.post("/infill", &warm).await.json();
    assert_eq!(
        (&body["content"], &body["tokens_predicted"]),
        (&json!(""), &json!(0))
    );
}

#[tokio::test]
async fn long_files_are_cut_to_what_fits() {
    let fixture = filling(Script::says("mid")).await;
    let client = fixture.client();
    let (before, behind) = (
        format!("{}|", "p".repeat(5000)),
        format!("|{}", "s".repeat(5000)),
    );
    let asked = json!({"input_prefix": before, "input_suffix": behind, "n_predict": 45,
                       "input_extra": [{"text": "x".repeat(5000)}]});
    let body = client.post("/infill", &asked).await.json();
    assert_eq!(body["truncated"], true);
    // 2048 less 45 and three control tokens, three quarters of it before the middle.
    let prompt = body["prompt"].as_str().unwrap();
    let prefix = format!("<|fim_prefix|>{}|<|fim_suffix|>", "p".repeat(1499));
    assert!(prompt.starts_with(&prefix), "{prompt}");
    assert!(prompt.ends_with(&format!("|{}<|fim_middle|>", "s".repeat(499))));
    assert_eq!(body["tokens_evaluated"], 2048 - 45);
    let short = json!({"input_prefix": "a", "input_suffix": "b", "n_predict": 45,
                       "input_extra": [{"text": "y".repeat(1900)}, {"text": "x".repeat(1900)}]});
    let body = client.post("/infill", &short).await.json();
    assert_eq!(body["truncated"], false);
    assert_eq!(body["tokens_evaluated"], 2048 - 45);
    let prompt = body["prompt"].as_str().unwrap();
    assert!(
        prompt.starts_with("<|repo_name|>myproject\n<|file_sep|>tmp\nyyy"),
        "{prompt}"
    );
    let too_much = infill(json!({"n_predict": 2047}));
    let answer = client.post("/infill", &too_much).await;
    assert_eq!(answer.error_code(), "context_length_exceeded");
    assert_eq!(answer.json()["error"]["param"], "input_prefix");
}

#[tokio::test]
async fn what_infill_does_not_do_is_refused() {
    let fixture = filling(Script::says("mid")).await;
    let client = fixture.client();
    for (field, value) in [
        ("input_suffix", json!(null)),
        ("input_prefix", json!(["a"])),
        ("input_extra", json!([{"filename": "a"}])),
        ("n_predict", json!(-2)),
        ("mirostat", json!(1)),
        ("typical_p", json!(0.5)),
        ("n_probs", json!(3)),
        ("grammar", json!("root ::= \"a\"")),
        ("lora", json!([{"id": 0, "scale": 0.5}])),
        ("response_fields", json!([1])),
    ] {
        let answer = client.post("/infill", &infill(json!({field: value}))).await;
        assert_eq!(answer.status, 400, "{field}");
        let param = answer.json()["error"]["param"].clone();
        assert!(param.as_str().unwrap().starts_with(field), "{param}");
    }
    let penalised = infill(json!({"repeat_penalty": 1.1, "repeat_last_n": 64}));
    assert_eq!(client.post("/infill", &penalised).await.status, 400);
    let off = infill(json!({"repeat_last_n": 64, "mirostat": 0, "typical_p": 1.0, "lora": []}));
    assert_eq!(client.post("/infill", &off).await.status, 200);
    let without = Fixture::ready(Options::default()).await;
    let answer = without.client().post("/infill", &infill(json!({}))).await;
    assert_eq!(answer.error_code(), "unsupported_parameter");
}

#[tokio::test]
async fn mistrals_clients_get_a_message() {
    let fixture = filling(Script::says("mid<|fim_pad|>")).await;
    let client = fixture.client();
    let asked = json!({"model": "north", "prompt": "ab", "suffix": "de", "max_tokens": 64,
                       "random_seed": 3, "min_tokens": 1, "metadata": {"a": 1}});
    let body = client.post("/v1/fim/completions", &asked).await.json();
    assert_eq!(body["object"], "chat.completion");
    let message = &body["choices"][0]["message"];
    assert_eq!(
        (&message["role"], &message["content"]),
        (&json!("assistant"), &json!("mid"))
    );
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    assert_eq!(body["usage"]["prompt_tokens"], 7);
    let mut streamed = asked.clone();
    streamed["stream"] = json!(true);
    let answer = client.post("/v1/fim/completions", &streamed).await;
    assert_eq!(answer.events().last(), Some(&"[DONE]"));
    let chunks = answer.chunks();
    let texts = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"]["content"]);
    let text: String = texts.filter_map(Value::as_str).collect();
    assert_eq!(text, "mid");
    let last = chunks.last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert_eq!(last["usage"]["completion_tokens"], 4);
    let mut plain = asked.clone();
    plain["suffix"] = json!("");
    let body = client.post("/v1/fim/completions", &plain).await.json();
    assert_eq!(body["choices"][0]["message"]["content"], "mid<|fim_pad|>");
    for (field, value) in [
        ("prompt", json!(null)),
        ("n", json!(2)),
        ("suffix", json!(1)),
    ] {
        let mut wrong = asked.clone();
        wrong[field] = value;
        let answer = client.post("/v1/fim/completions", &wrong).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["param"]),
            (400, &json!(field))
        );
    }
}
