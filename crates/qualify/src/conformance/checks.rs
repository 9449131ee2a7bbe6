//! Checks that one request each is enough for.

use serde_json::{Value, json};

use super::asking::{Asker, Response};
use super::{Check, CheckOutcome};

/// Longer prompts are not made to see them refused.
const CONTEXT_TOKENS_MAX: u64 = 1 << 20;

/// All of them, in order.
pub(super) async fn all(asker: &Asker, entry: Option<&Value>) -> Vec<Check> {
    vec![
        listed(entry),
        chat(asker).await,
        usage_and_length(asker).await,
        stream(asker).await,
        stream_usage(asker).await,
        no_json(asker).await,
        bad_field(asker).await,
        too_long(asker, entry).await,
        unknown_model(asker).await,
        unknown_path(asker).await,
    ]
}

/// A check whose answer came: `Err` says what was wrong with it.
fn judged(name: &str, expected: &str, found: Result<String, String>) -> Check {
    let (outcome, seen) = match found {
        Ok(seen) => (CheckOutcome::Passed, seen),
        Err(seen) => (CheckOutcome::Failed, seen),
    };
    Check {
        name: name.into(),
        expected: expected.into(),
        outcome,
        seen,
    }
}

pub(super) fn not_tried(name: &str, expected: &str, why: &str) -> Check {
    Check {
        outcome: CheckOutcome::NotTried,
        ..judged(name, expected, Ok(why.into()))
    }
}

/// Passed if `is_right`; what was seen is told either way.
pub(super) fn held(name: &str, expected: &str, is_right: bool, seen: String) -> Check {
    judged(name, expected, if is_right { Ok(seen) } else { Err(seen) })
}

fn looked_at(
    name: &str,
    expected: &str,
    answer: Result<Response, String>,
    is_right: impl Fn(&Response) -> bool,
) -> Check {
    match answer {
        Ok(response) => held(name, expected, is_right(&response), response.seen()),
        Err(error) => judged(name, expected, Err(error)),
    }
}

fn listed(entry: Option<&Value>) -> Check {
    let (name, expected) = (
        "model listed",
        "GET /v1/models has the model, with the length of its context",
    );
    let context = entry.and_then(context_of);
    match (entry, context) {
        (None, _) => judged(name, expected, Err("it is not in the list".into())),
        (Some(_), None) => judged(
            name,
            expected,
            Err("it is listed without a length of context".into()),
        ),
        (Some(_), Some(tokens)) => {
            judged(name, expected, Ok(format!("{tokens} tokens of context")))
        }
    }
}

fn context_of(entry: &Value) -> Option<u64> {
    let names = ["max_model_len", "context_length", "context_window"];
    names.iter().find_map(|name| entry[*name].as_u64())
}

async fn chat(asker: &Asker) -> Check {
    let (name, expected) = (
        "chat",
        "200 with one choice, its message and a finish_reason",
    );
    looked_at(
        name,
        expected,
        asker.post(&asker.chat(json!({}))).await,
        |response| {
            let json = response.json();
            let choice = &json["choices"][0];
            response.status == 200
                && choice["message"]["role"] == "assistant"
                && choice["finish_reason"].is_string()
        },
    )
}

async fn usage_and_length(asker: &Asker) -> Check {
    let (name, expected) = (
        "usage",
        "an answer cut at max_tokens says so, and counts its tokens",
    );
    let answer = asker.post(&asker.chat(json!({"max_tokens": 1}))).await;
    let found = answer.and_then(|response| {
        let json = response.json();
        let (usage, reason) = (&json["usage"], &json["choices"][0]["finish_reason"]);
        let (prompt, answer, total) = (
            &usage["prompt_tokens"],
            &usage["completion_tokens"],
            &usage["total_tokens"],
        );
        let seen = format!("finish_reason {reason}, {prompt} + {answer} = {total} tokens");
        let adds_up = match (prompt.as_u64(), answer.as_u64(), total.as_u64()) {
            (Some(prompt), Some(answer), Some(total)) => {
                prompt > 0 && answer <= 1 && prompt + answer == total
            }
            _ => false,
        };
        // A model may have nothing to say.
        let is_cut = reason == "length" || reason == "stop";
        if adds_up && is_cut {
            Ok(seen)
        } else {
            Err(seen)
        }
    });
    judged(name, expected, found)
}

/// The events of a stream.
fn events(response: &Response) -> Result<Vec<Value>, String> {
    if response.status != 200 {
        return Err(response.seen());
    }
    let kind = response.header("content-type").unwrap_or_default();
    if !kind.starts_with("text/event-stream") {
        return Err(format!("the content type is {kind:?}"));
    }
    let data = response
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("data:"));
    let data: Vec<&str> = data.map(str::trim).collect();
    let Some((&"[DONE]", chunks)) = data.split_last() else {
        return Err("it does not end with [DONE]".into());
    };
    let parsed: Result<Vec<Value>, _> = chunks
        .iter()
        .map(|chunk| serde_json::from_str(chunk))
        .collect();
    parsed.map_err(|_| "an event is no JSON".to_owned())
}

async fn stream(asker: &Asker) -> Check {
    let (name, expected) = (
        "stream",
        "text/event-stream with chunks of text, one finish_reason, and [DONE] at the end",
    );
    let answer = asker.post(&asker.chat(json!({"stream": true}))).await;
    let found = answer.and_then(|response| {
        let events = events(&response)?;
        let ends = |event: &&Value| event["choices"][0]["finish_reason"].is_string();
        let ends = events.iter().filter(ends).count();
        let seen = format!("{} events, {ends} with a finish_reason", events.len());
        if ends == 1 { Ok(seen) } else { Err(seen) }
    });
    judged(name, expected, found)
}

async fn stream_usage(asker: &Asker) -> Check {
    let (name, expected) = (
        "stream with usage",
        "with include_usage, the last event has usage and no choices",
    );
    let body = asker.chat(json!({"stream": true, "stream_options": {"include_usage": true}}));
    let found = asker.post(&body).await.and_then(|response| {
        let events = events(&response)?;
        let last = events.last().cloned().unwrap_or_default();
        let has_no_choices = last["choices"].as_array().is_some_and(Vec::is_empty);
        let tokens = last["usage"]["completion_tokens"].as_u64();
        match (has_no_choices, tokens) {
            (true, Some(tokens)) => Ok(format!("{tokens} tokens of the answer")),
            (false, Some(_)) => Err("usage is in an event with choices".into()),
            (_, None) => Err("the last event has no usage".into()),
        }
    });
    judged(name, expected, found)
}

async fn no_json(asker: &Asker) -> Check {
    let expected = "400 with an error of type and message for a body that is no JSON";
    looked_at(
        "broken body",
        expected,
        asker.post_text("{\"model\": ".into()).await,
        |response| response.status == 400 && response.is_error(),
    )
}

async fn bad_field(asker: &Asker) -> Check {
    let expected = "400 (or 422) with an error for a temperature that is no number";
    let body = asker.chat(json!({"temperature": "hot"}));
    looked_at("bad field", expected, asker.post(&body).await, |response| {
        [400, 422].contains(&response.status) && response.is_error()
    })
}

/// By it, gateways send long prompts to a model with a larger context.
async fn too_long(asker: &Asker, entry: Option<&Value>) -> Check {
    let (name, expected) = (
        "too long",
        "400 with the code context_length_exceeded for a prompt longer than the context",
    );
    let Some(tokens) = entry.and_then(context_of) else {
        return not_tried(
            name,
            expected,
            "the server does not say how long its context is",
        );
    };
    if tokens > CONTEXT_TOKENS_MAX {
        return not_tried(name, expected, "the context is too long to fill");
    }
    // A word is a token at least.
    let text = "word ".repeat(tokens as usize + 64);
    let body = asker.chat(json!({"messages": [{"role": "user", "content": text}]}));
    looked_at(name, expected, asker.post(&body).await, |response| {
        response.status == 400 && response.json()["error"]["code"] == "context_length_exceeded"
    })
}

async fn unknown_model(asker: &Asker) -> Check {
    let expected = "404 with an error for a model that is not served";
    let body = asker.chat(json!({"model": "no-such-model-7f3a"}));
    looked_at(
        "unknown model",
        expected,
        asker.post(&body).await,
        |response| response.status == 404 && response.is_error(),
    )
}

async fn unknown_path(asker: &Asker) -> Check {
    let expected = "404 with an error in JSON for a path that is not served";
    looked_at(
        "unknown path",
        expected,
        asker.get("/v1/no-such-path-7f3a").await,
        |response| response.status == 404 && response.is_error(),
    )
}

const WRONG_KEY: (&str, &str) = ("wrong key", "401 with an error for a key that is none");

pub(super) async fn wrong_key(stranger: &Asker) -> Check {
    let answer = stranger.post(&stranger.chat(json!({}))).await;
    looked_at(WRONG_KEY.0, WRONG_KEY.1, answer, |response| {
        response.status == 401 && response.is_error()
    })
}

pub(super) fn no_key() -> Check {
    not_tried(
        WRONG_KEY.0,
        WRONG_KEY.1,
        "no key was given, so that it is not known whether one is needed",
    )
}
