//! Budgets of reasoning under all their names, and messages that are continued within reasoning.
//! The scripted model loses its constraint where its script leaves it, so that an answer is proof
//! that it is allowed, and that it had to be so where a token more is refused.

use crate::support::client::Answer;
use crate::support::executor::Script;
use crate::support::{Fixture, Options, chat};
use serde_json::{Value, json};

const START_THINKING: u32 = 257;
const END_THINKING: u32 = 258;
/// Five tokens of reasoning.
const FIVE: &str = "think<|END_THINKING|><|START_TEXT|>Hi<|END_TEXT|>";

async fn saying(script: &str) -> Fixture {
    Fixture::ready(Options {
        reasoning: true,
        ..Options::script(Script::says(script))
    })
    .await
}

fn messages_body(extra: Value) -> Value {
    let mut body = json!({"model": "north", "max_tokens": 500,
                          "messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    body
}

fn responses_body(extra: Value) -> Value {
    let mut body = json!({"model": "north", "input": "Hi"});
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    body
}

/// The field with this budget, for each of its names in chats.
fn chat_fields(budget: i64) -> Vec<Value> {
    let google = json!({"google": {"thinking_config": {"thinking_budget": budget}}});
    vec![
        json!({"thinking_token_budget": budget}),
        json!({"thinking_budget": budget}),
        json!({"reasoning": {"max_tokens": budget}}),
        json!({"thinking": {"type": "enabled", "budget_tokens": budget}}),
        json!({"chat_template_kwargs": {"thinking_budget": budget}}),
        json!({"extra_body": google}),
        google,
        json!({"thinking_token_budget": 100, "thinking_budget": budget}),
    ]
}

async fn chat_outcome(extra: &Value) -> Answer {
    saying(FIVE).await.client().chat(&chat(extra.clone())).await
}

#[tokio::test]
async fn a_chat_keeps_to_its_budget_under_every_name() {
    for extra in chat_fields(5)
        .into_iter()
        .chain(chat_fields(6))
        .chain(chat_fields(-1))
    {
        let answer = chat_outcome(&extra).await;
        assert_eq!(answer.status, 200, "{extra}: {}", answer.text);
        let answer = answer.json();
        let message = &answer["choices"][0]["message"];
        assert_eq!(
            (&message["reasoning"], &message["content"]),
            (&json!("think"), &json!("Hi"))
        );
        let details = &answer["usage"]["completion_tokens_details"];
        assert_eq!(details["reasoning_tokens"], 5, "{extra}");
    }
    for extra in chat_fields(4) {
        let answer = chat_outcome(&extra).await;
        assert_eq!(answer.error_code(), "constraint_failed", "{extra}");
    }
}

#[tokio::test]
async fn so_do_messages_and_responses() {
    for (budget, is_kept) in [(4, false), (5, true), (2000, true)] {
        let thinking = json!({"thinking": {"type": "enabled", "budget_tokens": budget}});
        let fixture = saying(FIVE).await;
        let answer = fixture
            .client()
            .post("/v1/messages", &messages_body(thinking))
            .await;
        assert_eq!(answer.status == 200, is_kept, "{budget}: {}", answer.text);
        if is_kept {
            let content = answer.json()["content"].clone();
            assert_eq!(content[0]["thinking"], "think");
            assert_eq!(content[1]["text"], "Hi");
        }
        for field in [
            json!({"reasoning": {"max_tokens": budget}}),
            json!({"thinking_token_budget": budget}),
        ] {
            let fixture = saying(FIVE).await;
            let answer = fixture
                .client()
                .post("/v1/responses", &responses_body(field))
                .await;
            assert_eq!(answer.status == 200, is_kept, "{budget}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn a_budget_and_a_grammar_hold_together() {
    let script = "think<|END_THINKING|><|START_TEXT|>{\"a\": 1}<|END_TEXT|>";
    for (budget, expected) in [(4, 400), (5, 200)] {
        let fixture = saying(script).await;
        let extra = json!({"thinking_budget": budget, "response_format": {"type": "json_object"}});
        let answer = fixture.client().chat(&chat(extra)).await;
        assert_eq!(answer.status, expected, "{}", answer.text);
    }
}

#[tokio::test]
async fn without_a_budget_the_model_is_asked_not_to_reason() {
    let fixture = saying("<|START_TEXT|>Hi<|END_TEXT|>").await;
    let client = fixture.client();
    let ends_with = async |extra: Value| {
        let mut body = chat(extra);
        body["return_token_ids"] = json!(true);
        let answer = client.chat(&body).await.json();
        answer["prompt_token_ids"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone()
    };
    for extra in chat_fields(0) {
        assert_eq!(
            ends_with(extra.clone()).await,
            json!(END_THINKING),
            "{extra}"
        );
    }
    for extra in [
        json!({"thinking": {"type": "disabled"}}),
        json!({"reasoning": {"enabled": false}}),
        json!({"reasoning": {"effort": "none"}}),
    ] {
        assert_eq!(
            ends_with(extra.clone()).await,
            json!(END_THINKING),
            "{extra}"
        );
    }
    let fixture = saying(FIVE).await;
    let mut body = chat(json!({"reasoning": {"exclude": true}, "return_token_ids": true}));
    let answer = fixture.client().chat(&body).await.json();
    assert_eq!(
        *answer["prompt_token_ids"]
            .as_array()
            .unwrap()
            .last()
            .unwrap(),
        json!(START_THINKING)
    );
    assert!(
        answer["choices"][0]["message"]
            .get("reasoning")
            .is_none_or(Value::is_null)
    );
    // What was asked for by its own name counts more.
    body["thinking_budget"] = json!(0);
    body["reasoning_effort"] = json!("high");
    let fixture = saying("<|END_THINKING|><|START_TEXT|>Hi<|END_TEXT|>").await;
    assert_eq!(fixture.client().chat(&body).await.status, 200);
}

#[tokio::test]
async fn budgets_out_of_range_are_refused_and_other_things_of_their_names_are_not() {
    let fixture = saying(FIVE).await;
    let client = fixture.client();
    let cases = [
        (
            json!({"thinking_token_budget": -2}),
            "thinking_token_budget",
        ),
        (json!({"thinking_budget": 1.5}), "thinking_budget"),
        (json!({"thinking_budget": "5"}), "thinking_budget"),
        (
            json!({"reasoning": {"max_tokens": 4_294_967_296_u64}}),
            "reasoning.max_tokens",
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": []}}),
            "thinking.budget_tokens",
        ),
        (
            json!({"google": {"thinking_config": {"thinking_budget": -7}}}),
            "google.thinking_config.thinking_budget",
        ),
        (
            json!({"chat_template_kwargs": {"thinking_budget": -7}}),
            "chat_template_kwargs.thinking_budget",
        ),
    ];
    for (extra, param) in cases {
        let answer = client.chat(&chat(extra.clone())).await;
        assert_eq!(answer.status, 400, "{extra}");
        assert_eq!(answer.json()["error"]["param"], param, "{extra}");
    }
    for extra in [
        json!({"thinking": true, "reasoning": "low", "google": 1, "extra_body": []}),
        json!({"chat_template_kwargs": {"thinking_budget": "auto"}}),
    ] {
        assert_eq!(
            client.chat(&chat(extra.clone())).await.status,
            200,
            "{extra}"
        );
    }
}

/// Goes on from "so": one word more of reasoning, and the answer.
const REST: &str = " warm<|END_THINKING|><|START_TEXT|>Yes<|END_TEXT|>";

#[tokio::test]
async fn reasoning_that_had_begun_goes_on_in_every_api() {
    let user = json!({"role": "user", "content": "Hi"});
    let tool = json!({"name": "now", "parameters": {"type": "object"}});
    let message = json!({"role": "assistant", "content": "", "reasoning": "so", "prefix": true});
    for tools in [json!(null), json!([{"type": "function", "function": tool}])] {
        let fixture = saying(REST).await;
        let body =
            chat(json!({"messages": [user, message], "tools": tools, "return_token_ids": true}));
        let answer = fixture.client().chat(&body).await.json();
        let choice = &answer["choices"][0]["message"];
        assert_eq!(
            (&choice["reasoning"], &choice["content"]),
            (&json!(" warm"), &json!("Yes")),
            "{answer}"
        );
        let ids = answer["prompt_token_ids"].as_array().unwrap();
        let end = [u32::from(b's'), u32::from(b'o')];
        assert_eq!(
            ids[ids.len() - 3..],
            [json!(START_THINKING), json!(end[0]), json!(end[1])]
        );
    }
    let fixture = saying(REST).await;
    let prefill = json!([user, {"role": "assistant", "content": [{"type": "thinking", "thinking": "so", "signature": ""}]}]);
    let body = messages_body(json!({"messages": prefill, "thinking": {"type": "adaptive"}}));
    let content = fixture.client().post("/v1/messages", &body).await.json()["content"].clone();
    assert_eq!(
        (&content[0]["thinking"], &content[1]["text"]),
        (&json!(" warm"), &json!("Yes"))
    );

    let fixture = saying(REST).await;
    let reasoning = json!({"type": "reasoning", "status": "incomplete", "summary": [],
        "content": [{"type": "reasoning_text", "text": "so"}]});
    let body = responses_body(json!({"input": [user, reasoning]}));
    let output = fixture.client().post("/v1/responses", &body).await.json()["output"].clone();
    assert_eq!(output[0]["content"][0]["text"], " warm", "{output}");
    assert_eq!(output[1]["content"][0]["text"], "Yes", "{output}");
}

#[tokio::test]
async fn a_grammar_holds_behind_reasoning_that_goes_on() {
    let messages = json!([{"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "", "reasoning": "so", "prefix": true}]);
    let script = " it is<|END_THINKING|><|START_TEXT|>{\"a\": 1}<|END_TEXT|>";
    for (script, status) in [(script, 200), (REST, 400)] {
        let fixture = saying(script).await;
        let body = chat(json!({"messages": messages, "response_format": {"type": "json_object"}}));
        let answer = fixture.client().chat(&body).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
}

#[tokio::test]
async fn a_response_goes_on_with_its_last_item_where_that_is_not_complete() {
    let user = json!({"role": "user", "content": "Hi"});
    let begun = |field: &str, value: Value| {
        let mut item = json!({"type": "message", "role": "assistant", "content": "Hello "});
        item[field] = value;
        item
    };
    let fixture = Fixture::ready(Options::script(Script::says("there"))).await;
    let client = fixture.client();
    let tokens = async |items: Value, extra: Value| {
        let mut body = responses_body(json!({"input": items}));
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let answer = client.post("/v1/responses", &body).await.json();
        answer["usage"]["input_tokens"].as_u64().unwrap_or(0)
    };
    let whole = "[user]Hi[end][assistant]Hello ".len() as u64;
    let turn = whole + "[end][assistant]".len() as u64;
    let none = json!({});
    let cases = [
        (begun("status", json!("completed")), none.clone(), turn),
        (begun("status", json!("incomplete")), none.clone(), whole),
        (begun("status", json!("in_progress")), none.clone(), whole),
        (begun("prefix", json!(true)), none.clone(), whole),
        (
            begun("prefix", json!(false)),
            json!({"continue_final_message": true}),
            whole,
        ),
    ];
    for (item, extra, expected) in cases {
        assert_eq!(tokens(json!([user, item]), extra).await, expected, "{item}");
    }
    let refused = [
        (
            json!({"input": "Hi", "continue_final_message": true}),
            "continue_final_message",
        ),
        (
            json!({"input": [user], "continue_final_message": true}),
            "continue_final_message",
        ),
        (
            json!({"input": [{"role": "user", "content": "Hi", "prefix": true}]}),
            "input.0.prefix",
        ),
    ];
    for (extra, param) in refused {
        let answer = client
            .post("/v1/responses", &responses_body(extra.clone()))
            .await;
        assert_eq!(answer.json()["error"]["param"], param, "{extra}");
    }
}

#[tokio::test]
async fn a_template_says_in_its_own_words_why_it_refuses() {
    let fixture = Fixture::ready(Options::default()).await;
    let client = fixture.client();
    let messages = json!([{"role": "user", "content": "secret refusals"}]);
    for (path, field) in [
        ("/v1/chat/completions", "messages"),
        ("/v1/responses", "input"),
    ] {
        let body = json!({"model": "north", field: messages});
        let answer = client.post(path, &body).await;
        assert_eq!(answer.status, 400);
        let message = answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(message.contains("No words like … here"), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
}
