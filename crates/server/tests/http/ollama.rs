//! Ollama's API: whole answers, streams of lines, models and errors in Ollama's shape.

use std::time::Duration;

use backstop_engine::LifecycleState;
use backstop_server::KeySet;
use hyper::Method;
use serde_json::{Value, json};

use crate::support::client::{Answer, Client};
use crate::support::executor::Script;
use crate::support::vocabulary::EOS;
use crate::support::{Fixture, MAX_MODEL_LEN, Options};

const METRICS: [&str; 6] = [
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
];

fn with(mut base: Value, extra: Value) -> Value {
    let extra = extra.as_object().unwrap().clone();
    base.as_object_mut().unwrap().extend(extra);
    base
}

async fn chat(client: &Client, extra: Value) -> Answer {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let body = json!({"model": "north", "messages": messages, "stream": false});
    client.post("/api/chat", &with(body, extra)).await
}

async fn generate(client: &Client, extra: Value) -> Answer {
    let body = json!({"model": "north", "prompt": "Hi", "stream": false});
    client.post("/api/generate", &with(body, extra)).await
}

async fn reasoning(script: &str) -> Fixture {
    Fixture::ready(Options {
        reasoning: true,
        ..Options::script(Script::says(script))
    })
    .await
}

/// The lines of a stream, each of which must be one object.
fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    assert!(answer.text.ends_with('\n'), "{}", answer.text);
    let lines = answer.text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What a client makes of a stream of either form.
fn assembled(answer: &Answer) -> Value {
    let mut whole = Value::Null;
    let mut texts = [String::new(), String::new()];
    let (mut calls, mut logprobs) = (Vec::new(), Vec::new());
    for line in lines(answer) {
        let said = if line["message"].is_object() {
            &line["message"]
        } else {
            &line
        };
        for (text, names) in texts
            .iter_mut()
            .zip([["content", "response"], ["thinking"; 2]])
        {
            let more = names.iter().find_map(|name| said[name].as_str());
            *text += more.unwrap_or_default();
        }
        calls.extend(said["tool_calls"].as_array().cloned().unwrap_or_default());
        logprobs.extend(line["logprobs"].as_array().cloned().unwrap_or_default());
        assert_eq!(whole, Value::Null, "a line after the one that is done");
        if line["done"] == true {
            whole = line;
        }
    }
    let [content, thinking] = texts;
    let said = match whole["message"].is_object() {
        true => &mut whole["message"],
        false => &mut whole,
    };
    let name = if said["response"].is_string() {
        "response"
    } else {
        "content"
    };
    said[name] = Value::from(content);
    if !thinking.is_empty() {
        said["thinking"] = Value::from(thinking);
    }
    if !calls.is_empty() {
        said["tool_calls"] = Value::from(calls);
    }
    if !logprobs.is_empty() {
        whole["logprobs"] = Value::from(logprobs);
    }
    whole
}

/// An answer without what differs from one to the next.
fn steady(mut answer: Value) -> Value {
    for name in METRICS {
        assert!(answer[name].is_u64(), "{name}: {answer}");
        if name.ends_with("duration") {
            answer[name] = Value::Null;
        }
    }
    assert!(answer["created_at"].as_str().unwrap().ends_with('Z'));
    answer["created_at"] = Value::Null;
    let calls = answer.pointer_mut("/message/tool_calls");
    for call in calls.and_then(Value::as_array_mut).into_iter().flatten() {
        assert!(call["id"].as_str().unwrap().starts_with("call_"));
        call["id"] = Value::Null;
    }
    answer
}

/// The message of an error, whose shape is checked on the way.
fn error(answer: &Answer) -> String {
    let body = answer.json();
    assert_eq!(body.as_object().unwrap().len(), 1, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/json");
    body["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_stream_adds_up_to_the_whole() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let logprobs = json!({"logprobs": true, "top_logprobs": 2});
    let whole = chat(&client, logprobs.clone()).await;
    assert_eq!(whole.header("content-type"), "application/json");
    let whole = steady(whole.json());
    assert_eq!(
        whole["message"],
        json!({"role": "assistant", "content": "Hello, world!"})
    );
    assert_eq!(
        (&whole["done"], &whole["done_reason"]),
        (&json!(true), &json!("stop"))
    );
    assert_eq!(
        (&whole["prompt_eval_count"], &whole["eval_count"]),
        (&json!(24), &json!(14))
    );
    assert_eq!(whole["logprobs"].as_array().unwrap().len(), 13);
    assert_eq!(whole["logprobs"][0]["token"], "H");
    assert_eq!(
        whole["logprobs"][0]["top_logprobs"][1]["bytes"],
        json!([73])
    );
    let streamed = chat(&client, with(logprobs, json!({"stream": null}))).await;
    assert_eq!(steady(assembled(&streamed)), whole);
    assert!(lines(&streamed).iter().all(|line| line["model"] == "north"));

    let whole = steady(generate(&client, json!({})).await.json());
    assert_eq!(whole["response"], "Hello, world!");
    let tokens = whole["context"].as_array().unwrap();
    assert_eq!((tokens.len(), &tokens[37]), (24 + 14, &json!(EOS)));
    let streamed = generate(&client, json!({"stream": true})).await;
    assert_eq!(steady(assembled(&streamed)), whole);
    fixture.engine_idle().await;
}

#[tokio::test]
async fn calls_come_whole_and_reasoning_apart() {
    let script = "I think<|END_THINKING|><|START_TEXT|>Fine<|END_TEXT|><|START_ACTION|>[\n    \
                  {\"tool_call_id\": \"0\", \"tool_name\": \"look\", \"parameters\": {\"at\": \"x\"}},\n    \
                  {\"tool_call_id\": \"1\", \"tool_name\": \"listen\", \"parameters\": {}}\n]<|END_ACTION|>";
    let fixture = reasoning(script).await;
    let client = fixture.client();
    let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
    let tools = json!({"tools": [tool("look"), tool("listen")], "think": true});
    let whole = steady(chat(&client, tools.clone()).await.json());
    let call = |index: usize, name: &str, arguments: Value| {
        let function = json!({"index": index, "name": name, "arguments": arguments});
        json!({"id": null, "function": function})
    };
    let calls = [
        call(0, "look", json!({"at": "x"})),
        call(1, "listen", json!({})),
    ];
    let message = json!({"role": "assistant", "content": "Fine", "thinking": "I think",
                         "tool_calls": calls});
    assert_eq!(
        (&whole["message"], &whole["done_reason"]),
        (&message, &json!("stop"))
    );
    let streamed = chat(&client, with(tools.clone(), json!({"stream": true}))).await;
    assert_eq!(steady(assembled(&streamed)), whole);
    // Cut off within the first call, which nobody is told of: clients run what they are told.
    let cut = chat(
        &client,
        with(tools, json!({"options": {"num_predict": 75}})),
    )
    .await
    .json();
    assert_eq!(cut["done_reason"], "length");
    assert_eq!(
        cut["message"],
        json!({"role": "assistant", "content": "Fine", "thinking": "I think"})
    );
}

#[tokio::test]
async fn reasoning_can_be_turned_off_where_there_is_any() {
    let fixture = reasoning("<|START_TEXT|>Fine<|END_TEXT|>").await;
    let client = fixture.client();
    let answer = generate(&client, json!({"think": false})).await.json();
    assert_eq!(answer["response"], "Fine");
    assert!(answer.get("thinking").is_none());
    // "[user]Hi", and the two marks around no reasoning.
    assert_eq!(answer["prompt_eval_count"], 10);
    // A model that reasons all the same does so unseen.
    let fixture = reasoning("Hm<|END_THINKING|><|START_TEXT|>Fine<|END_TEXT|>").await;
    let answer = generate(&fixture.client(), json!({})).await.json();
    assert_eq!(
        (&answer["response"], &answer["thinking"]),
        (&json!("Fine"), &json!("Hm"))
    );
    let plain = Fixture::ready(Options::default()).await;
    let refused = generate(&plain.client(), json!({"think": "high"})).await;
    assert_eq!(refused.status, 400);
    assert!(error(&refused).contains("'think'"), "{}", refused.text);
    assert_eq!(
        generate(&plain.client(), json!({"think": false}))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn every_way_to_end_has_its_name() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let end = async |options: Value| {
        let answer = chat(&client, json!({"options": options})).await.json();
        (
            answer["done_reason"].clone(),
            answer["message"]["content"].clone(),
        )
    };
    assert_eq!(
        end(json!({"num_predict": 3})).await,
        (json!("length"), json!("Hel"))
    );
    assert_eq!(
        end(json!({"stop": [", w"]})).await,
        (json!("stop"), json!("Hello"))
    );
    // More than the context leaves is no error, as it is not at Ollama's.
    assert_eq!(end(json!({"num_predict": 64_000})).await.0, "stop");
    let endless = Fixture::ready(Options::script(Script::repeats("a"))).await;
    let answer = chat(
        &endless.client(),
        json!({"options": {"num_predict": 64_000}}),
    )
    .await
    .json();
    assert_eq!(answer["done_reason"], "length");
    assert_eq!(answer["eval_count"], MAX_MODEL_LEN - 24);
}

#[tokio::test]
async fn without_a_prompt_the_model_is_there_already() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    for (keep_alive, reason) in [(json!("5m"), "load"), (json!(0), "unload")] {
        let fields =
            json!({"prompt": "", "messages": [], "keep_alive": keep_alive, "stream": true});
        for answer in [
            chat(&client, fields.clone()).await,
            generate(&client, fields.clone()).await,
        ] {
            assert_eq!(answer.header("content-type"), "application/json");
            let answer = answer.json();
            assert_eq!(
                (&answer["done"], &answer["done_reason"]),
                (&json!(true), &json!(reason))
            );
            assert!(answer.get("eval_count").is_none());
        }
    }
}

#[tokio::test]
async fn prompts_are_rendered_raw_or_follow_a_context() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let prompt = async |fields: Value| {
        let answer = generate(&client, fields).await.json();
        let tokens = answer["context"].as_array();
        let bytes = tokens.map(|tokens| {
            let bytes = tokens
                .iter()
                .filter_map(|token| u8::try_from(token.as_u64()?).ok());
            String::from_utf8(bytes.collect()).unwrap()
        });
        (answer["prompt_eval_count"].as_u64().unwrap(), bytes)
    };
    let rendered = "[system]Be brief[end][user]Hi[end][assistant]Hello, world!".to_owned();
    assert_eq!(
        prompt(json!({"system": "Be brief"})).await,
        (45, Some(rendered))
    );
    assert_eq!(prompt(json!({"raw": true})).await, (2, None));
    let followed = "Yes[user]Hi[end][assistant]Hello, world!".to_owned();
    assert_eq!(
        prompt(json!({"context": [89, 101, 115]})).await,
        (27, Some(followed))
    );
    let unknown = generate(&client, json!({"context": [100_000]})).await;
    assert_eq!(unknown.status, 400);
    assert!(error(&unknown).contains("'context'"), "{}", unknown.text);
    let begun =
        json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello "}]);
    let answer = chat(&client, json!({"messages": begun})).await.json();
    assert_eq!(answer["prompt_eval_count"], 30);
}

#[tokio::test]
async fn the_middle_is_filled_in_where_the_model_can() {
    let plain = Fixture::ready(Options::default()).await;
    let refused = generate(&plain.client(), json!({"suffix": "de"})).await;
    assert_eq!(refused.status, 400);
    assert!(error(&refused).contains("'suffix'"), "{}", refused.text);
    let fixture = Fixture::ready(Options {
        fills_in: true,
        ..Options::script(Script::says("mid<|fim_pad|>"))
    })
    .await;
    let client = fixture.client();
    // The texts, and three control tokens.
    for (prompt, tokens) in [("abc", 8), ("", 5)] {
        let answer = generate(&client, json!({"prompt": prompt, "suffix": "de"}))
            .await
            .json();
        assert_eq!(
            (&answer["response"], &answer["done_reason"]),
            (&json!("mid"), &json!("stop"))
        );
        assert_eq!(answer["prompt_eval_count"], tokens);
    }
    let shown = client
        .post("/api/show", &json!({"model": "north"}))
        .await
        .json();
    assert_eq!(shown["capabilities"], json!(["completion", "insert"]));
    assert!(shown["template"].as_str().unwrap().contains(".Suffix"));
}

#[tokio::test]
async fn formats_are_followed() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}},
                        "required": ["a"], "additionalProperties": false});
    let fixture = reasoning("<|START_TEXT|>{\"a\": 1}<|END_TEXT|>").await;
    for format in [json!("json"), schema.clone()] {
        let fields = json!({"format": format, "think": false});
        let answer = generate(&fixture.client(), fields).await;
        assert_eq!(answer.json()["response"], "{\"a\": 1}", "{}", answer.text);
    }
    let fixture = reasoning("<|START_TEXT|>Anything<|END_TEXT|>").await;
    let left = chat(&fixture.client(), json!({"format": schema, "think": false})).await;
    assert_eq!(left.status, 400, "{}", left.text);
    let never = json!({"type": "object", "patternProperties": {"(": {}}});
    let refused = chat(&fixture.client(), json!({"format": never})).await;
    assert_eq!(refused.status, 400);
    assert!(error(&refused).contains("'format"), "{}", refused.text);
}

#[tokio::test]
async fn errors_have_ollamas_shape() {
    let fixture = Fixture::ready(Options::named("north").config(|config| {
        config.max_body_bytes = 100_000;
        config.api_keys = Some(KeySet::new(["a-good-key"]));
    }))
    .await;
    let without = fixture.client();
    for path in ["/api/chat", "/api/tags", "/api/version", "/api/pull"] {
        let answer = without.get(path).await;
        assert_eq!(
            (answer.status, answer.header("www-authenticate")),
            (401, "Bearer"),
            "{path}"
        );
        error(&answer);
    }
    let client = without.with("authorization", "Bearer a-good-key");
    let missing = chat(&client, json!({"model": "llama3"})).await;
    assert_eq!(missing.status, 404);
    assert!(
        error(&missing).starts_with("model not found"),
        "{}",
        missing.text
    );
    assert!(!missing.text.contains("llama3"));
    let tagged = chat(&client, json!({"model": "north:latest"})).await;
    assert_eq!(
        (tagged.status, &tagged.json()["model"]),
        (200, &json!("north:latest"))
    );
    assert_eq!(
        chat(&client, json!({"model": "north:8b"})).await.status,
        404
    );
    let long =
        json!({"options": {}, "messages": [{"role": "user", "content": "x".repeat(200_000)}]});
    assert_eq!(chat(&client, long).await.status, 413);
    let long = "x".repeat(MAX_MODEL_LEN as usize);
    let long = generate(&client, json!({"prompt": long})).await;
    assert_eq!(long.status, 400);
    assert!(
        error(&long).contains("maximum context length"),
        "{}",
        long.text
    );
    let wrong = client.get("/api/chat").await;
    assert_eq!((wrong.status, error(&wrong).is_empty()), (405, false));
    let unknown = client.get("/api/nowhere").await;
    assert_eq!((unknown.status, error(&unknown).is_empty()), (404, false));
    fixture.lifecycle.advance(LifecycleState::Draining);
    let draining = chat(&client, json!({})).await;
    assert_eq!(
        (draining.status, draining.header("retry-after")),
        (503, "15")
    );
    error(&draining);
    assert_eq!(client.get("/api/version").await.status, 200);
}

#[tokio::test]
async fn what_would_write_go_online_or_embed_says_so() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let body = json!({"model": "north", "input": "Hi"}).to_string();
    for (method, path, words) in [
        (Method::POST, "/api/pull", "connection"),
        (Method::POST, "/api/push", "connection"),
        (Method::POST, "/api/create", "started with"),
        (Method::POST, "/api/copy", "started with"),
        (Method::DELETE, "/api/delete", "started with"),
        (Method::POST, "/api/blobs/sha256:00", "started with"),
        (Method::POST, "/api/embed", "does not support embeddings"),
        (
            Method::POST,
            "/api/embeddings",
            "does not support embeddings",
        ),
    ] {
        let answer = client.send(method, path, &body).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(error(&answer).contains(words), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_failure_after_the_start_is_an_error_line() {
    let script = Script::says("Hello, world!").faulty_from(5);
    let fixture = Fixture::ready(Options::script(script)).await;
    let client = fixture.client();
    let streamed = chat(&client, json!({"stream": true})).await;
    assert_eq!(streamed.status, 200);
    let mut lines = lines(&streamed);
    let last = lines.pop().unwrap();
    assert_eq!(
        last,
        json!({"error": "The engine failed while it ran this request."})
    );
    assert!(lines.iter().all(|line| line["done"] == false));
    let whole = chat(&client, json!({})).await;
    assert_eq!((whole.status, error(&whole).is_empty()), (500, false));
}

#[tokio::test]
async fn lines_that_add_nothing_fill_the_pauses() {
    let options = Options::script(Script::says("Fine").slowly(100));
    let interval = Duration::from_millis(30);
    let fixture = Fixture::ready(options.config(|c| c.keep_alive_interval = interval)).await;
    let streamed = chat(&fixture.client(), json!({"stream": true})).await;
    let empty = json!({"role": "assistant", "content": ""});
    let empty = |line: &&Value| line["message"] == empty && line["done"] == false;
    assert!(
        lines(&streamed).iter().filter(empty).count() >= 2,
        "{}",
        streamed.text
    );
    assert_eq!(assembled(&streamed)["message"]["content"], "Fine");
}

#[tokio::test]
async fn clients_hear_of_an_answer_before_it_begins() {
    let options = Options {
        max_num_seqs: 1,
        ..Options::script(Script::repeats("a").slowly(5))
    };
    let interval = Duration::from_millis(30);
    let fixture = Fixture::ready(options.config(|config| {
        config.keep_alive_interval = interval;
        config.response_keep_alive = Some(interval);
    }))
    .await;
    let client = fixture.client();
    let body = json!({"model": "north", "prompt": "Hi"}).to_string();
    let mut first = client.open(Method::POST, "/api/generate", &body).await;
    first.piece().await.unwrap();
    // They wait for the only place.
    let few = json!({"options": {"num_predict": 3}});
    let leave = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(first);
    };
    let (streamed, whole, ()) = tokio::join!(
        chat(&client, with(few.clone(), json!({"stream": true}))),
        generate(&client, few.clone()),
        leave,
    );
    let empty = json!({"role": "assistant", "content": ""});
    assert_eq!(lines(&streamed)[0]["message"], empty);
    assert_eq!(assembled(&streamed)["message"]["content"], "aaa");
    assert!(whole.text.starts_with(' '), "{}", whole.text);
    assert_eq!(whole.json()["response"], "aaa");
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place() {
    let fixture = Fixture::ready(Options::script(Script::repeats("a").slowly(1))).await;
    let body = json!({"model": "north", "prompt": "Hi"}).to_string();
    let client = fixture.client();
    let mut open = client.open(Method::POST, "/api/generate", &body).await;
    assert!(
        open.piece()
            .await
            .unwrap()
            .starts_with("{\"model\":\"north\"")
    );
    drop(open);
    fixture.engine_idle().await;
}

#[tokio::test]
async fn durations_are_those_of_the_phases() {
    let fixture = Fixture::ready(Options::script(Script::says("Hello").slowly(20))).await;
    let answer = chat(&fixture.client(), json!({})).await.json();
    let [total, load, _, prompt, tokens, decoding] =
        METRICS.map(|name| answer[name].as_u64().unwrap());
    // A step takes 20 ms: one for the prompt, and one for each further token.
    assert_eq!(tokens, 6);
    assert!(prompt > 0 && decoding > 0, "{answer}");
    assert!(load + prompt + decoding >= 6 * 20_000_000, "{answer}");
    assert!(load + prompt + decoding <= total, "{answer}");
}

#[tokio::test]
async fn models_are_listed_with_a_tag_and_shown_with_what_they_can_do() {
    let options = Options {
        names: vec!["north", "lab/south:8b"],
        reasoning: true,
        ..Options::default()
    };
    let fixture = Fixture::ready(options).await;
    let client = fixture.client();
    for path in ["/api/tags", "/api/ps"] {
        let list = client.get(path).await.json();
        let models = list["models"].as_array().unwrap();
        let names: Vec<&str> = models
            .iter()
            .map(|model| model["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["north:latest", "lab/south:8b"], "{path}");
        assert_eq!(models[0]["digest"].as_str().unwrap().len(), 64);
        assert_eq!(models[0]["model"], "north:latest");
    }
    let running = client.get("/api/ps").await.json()["models"][0].clone();
    assert_eq!(running["context_length"], MAX_MODEL_LEN);
    let shown = client
        .post("/api/show", &json!({"model": "lab/south:8b"}))
        .await
        .json();
    assert_eq!(
        shown["capabilities"],
        json!(["completion", "tools", "thinking"])
    );
    assert!(shown["template"].as_str().unwrap().contains("messages"));
    let parameters = shown["parameters"].as_str().unwrap();
    let limit = MAX_MODEL_LEN.to_string();
    assert_eq!(
        parameters.split_whitespace().collect::<Vec<_>>(),
        ["num_ctx", limit.as_str()]
    );
    let architecture = shown["model_info"]["general.architecture"]
        .as_str()
        .unwrap();
    let length = &shown["model_info"][format!("{architecture}.context_length")];
    assert_eq!(length, MAX_MODEL_LEN);
    assert_eq!(
        client
            .post("/api/show", &json!({"name": "north:latest"}))
            .await
            .status,
        200
    );
    assert_eq!(
        client
            .post("/api/show", &json!({"model": "west"}))
            .await
            .status,
        404
    );
    let version = client.get("/api/version").await.json();
    let minor = version["version"].as_str().unwrap().split('.').nth(1);
    // What editors ask for at least.
    assert!(minor.unwrap().parse::<u32>().unwrap() >= 6);
    // The root is ours: clients look at its status alone.
    assert_eq!(client.send(Method::HEAD, "/", "").await.status, 200);
}
