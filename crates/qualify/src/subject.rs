//! Whom is asked: what a server says of itself.

use std::time::Duration;

use backstop_client::{Answer, Endpoint, FailureKind, HeaderMap, Limits, get, read_key};
use serde_json::{Value, json};

use crate::QualifyError;
use crate::args::EndpointArgs;
use crate::record::Subject;
use crate::runner::{ask_again, pause};

const PATIENCE: Limits = Limits {
    patience: Duration::from_secs(60),
    bytes_max: 4 << 20,
};
const MODEL_HEADER: &str = "x-backstop-model";

/// The endpoint that the command line names.
///
/// # Errors
///
/// If the address, the key or the authorities are none.
pub fn endpoint(args: &EndpointArgs) -> Result<Endpoint, QualifyError> {
    let url = args.url.as_deref().ok_or_else(|| missing("--url"))?;
    let key = args.api_key_file.as_deref().map(read_key).transpose()?;
    Ok(Endpoint::new(url, key.as_deref(), args.ca_file.as_deref())?)
}

/// Asks a server what it is. Whatever it does not say is left open; it must only be there and have the model.
///
/// # Errors
///
/// If it does not answer, or has a list of models without this one.
pub async fn meet(endpoint: &Endpoint, args: &EndpointArgs) -> Result<Subject, QualifyError> {
    let model = args.model.clone().ok_or_else(|| missing("--model"))?;
    let url = args.url.clone().unwrap_or_default();
    let (status, _, body) = get_again(endpoint, "/v1/models", args).await?;
    if status == 401 || status == 403 {
        return Err(QualifyError::new(format!(
            "{url} wants another key ({status}): --api-key-file"
        )));
    }
    let entry = entry_of(&body, &model).map_err(|served| {
        QualifyError::new(format!("{url} does not serve {model:?}, but {served}"))
    })?;
    let (version, mut backstop_model) = version(endpoint, args).await?;
    let greeting = greet(endpoint, &model, args).await?;
    if let Some(of_answer) = greeting.backstop_model {
        backstop_model = Some(of_answer);
    }
    Ok(Subject {
        url,
        model,
        backstop_model,
        fingerprint: greeting.fingerprint,
        version,
        entry,
    })
}

/// The entry of a list of models; no entry where there is no such list. An error is what is served instead.
fn entry_of(body: &[u8], model: &str) -> Result<Option<Value>, String> {
    let list: Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(entries) = list["data"].as_array() else {
        return Ok(None);
    };
    let entry = entries.iter().find(|entry| entry["id"] == model);
    if entry.is_some() || entries.is_empty() {
        return Ok(entry.cloned());
    }
    let ids: Vec<&str> = entries
        .iter()
        .filter_map(|entry| entry["id"].as_str())
        .collect();
    Err(ids.join(", "))
}

/// Backstop's version, and its model.
async fn version(
    endpoint: &Endpoint,
    args: &EndpointArgs,
) -> Result<(Option<Value>, Option<String>), QualifyError> {
    let (status, head, body) = get_again(endpoint, "/version", args).await?;
    if status != 200 {
        return Ok((None, None));
    }
    let model = head.get(MODEL_HEADER).and_then(|value| value.to_str().ok());
    Ok((serde_json::from_slice(&body).ok(), model.map(str::to_owned)))
}

/// Answers say more than lists do: `system_fingerprint`, and Backstop's header. Base models have no chat. What a server says
/// must not depend on how busy it is, for a run goes on only against the same.
async fn greet(
    endpoint: &Endpoint,
    model: &str,
    args: &EndpointArgs,
) -> Result<Answer, QualifyError> {
    let limits = Limits {
        patience: args.request_timeout,
        ..PATIENCE
    };
    let chat =
        json!({"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]});
    let completion = json!({"model": model, "max_tokens": 1, "prompt": "Hi"});
    for (path, body) in [
        ("/v1/chat/completions", chat),
        ("/v1/completions", completion),
    ] {
        let (answer, _) = ask_again(endpoint, path, &body, limits, args.retries).await;
        match &answer.failure {
            None => return Ok(answer),
            Some(failure) if failure.kind == FailureKind::Status && answer.status < Some(429) => {}
            Some(failure) => {
                let reason = &failure.message;
                return Err(QualifyError::new(format!(
                    "{model:?} does not answer: {reason}"
                )));
            }
        }
    }
    // It answers tasks, perhaps, and not this.
    Ok(Answer::default())
}

/// As often as that can help.
async fn get_again(
    endpoint: &Endpoint,
    path: &str,
    args: &EndpointArgs,
) -> Result<(u16, HeaderMap, Vec<u8>), QualifyError> {
    let mut again = 0;
    loop {
        let got = get(endpoint, path, PATIENCE).await;
        let may_pass = got
            .as_ref()
            .map_or(true, |(status, ..)| matches!(status, 429 | 503));
        if again == args.retries || !may_pass {
            let url = args.url.as_deref().unwrap_or_default();
            return got
                .map_err(|error| QualifyError::new(format!("{url} does not answer: {error}")));
        }
        tokio::time::sleep(pause(None, again)).await;
        again += 1;
    }
}

fn missing(option: &str) -> QualifyError {
    QualifyError::new(format!("{option} is needed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_is_that_of_the_model_and_others_are_named() {
        let list = br#"{"data": [{"id": "a", "max_model_len": 8}, {"id": "b"}]}"#;
        assert_eq!(entry_of(list, "a").unwrap().unwrap()["max_model_len"], 8);
        assert_eq!(entry_of(list, "c").unwrap_err(), "a, b");
        assert_eq!(entry_of(b"not found", "a"), Ok(None));
        assert_eq!(entry_of(br#"{"data": []}"#, "a"), Ok(None));
    }
}
