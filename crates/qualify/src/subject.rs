//! Whom is asked: what a server says of itself.

use std::time::Duration;

use backstop_client::{Answer, Endpoint, FailureKind, Limits, ask, get};
use serde_json::{Value, json};

use crate::QualifyError;
use crate::args::EndpointArgs;
use crate::record::Subject;

const KEY_BYTES_MAX: u64 = 64 << 10;
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
    let key = args.api_key_file.as_deref();
    let key = key
        .map(|path| {
            backstop_input::read_text_file(path, KEY_BYTES_MAX)
                .map_err(|error| QualifyError::at(path, error))
        })
        .transpose()?;
    let key = key.as_deref().map(str::trim);
    Ok(Endpoint::new(url, key, args.ca_file.as_deref())?)
}

/// Asks a server what it is. Whatever it does not say is left open; it must only be there and have the model.
///
/// # Errors
///
/// If it does not answer, or has a list of models without this one.
pub async fn meet(endpoint: &Endpoint, args: &EndpointArgs) -> Result<Subject, QualifyError> {
    let model = args.model.clone().ok_or_else(|| missing("--model"))?;
    let url = args.url.clone().unwrap_or_default();
    let listed = get(endpoint, "/v1/models", PATIENCE).await;
    let (status, _, body) =
        listed.map_err(|error| QualifyError::new(format!("{url} does not answer: {error}")))?;
    if status == 401 || status == 403 {
        return Err(QualifyError::new(format!(
            "{url} wants another key ({status}): --api-key-file"
        )));
    }
    let entry = entry_of(&body, &model).map_err(|served| {
        QualifyError::new(format!("{url} does not serve {model:?}, but {served}"))
    })?;
    let (version, mut backstop_model) = version(endpoint).await;
    let greeting = greet(endpoint, &model).await;
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

async fn version(endpoint: &Endpoint) -> (Option<Value>, Option<String>) {
    let Ok((200, head, body)) = get(endpoint, "/version", PATIENCE).await else {
        return (None, None);
    };
    let model = head.get(MODEL_HEADER).and_then(|value| value.to_str().ok());
    (serde_json::from_slice(&body).ok(), model.map(str::to_owned))
}

/// Answers say more than lists do: `system_fingerprint`, and Backstop's header. Base models have no chat.
async fn greet(endpoint: &Endpoint, model: &str) -> Answer {
    let chat =
        json!({"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]});
    let answer = ask(endpoint, "/v1/chat/completions", &chat, PATIENCE).await;
    let refused = answer
        .failure
        .as_ref()
        .is_some_and(|failure| failure.kind == FailureKind::Status);
    if !refused {
        return answer;
    }
    let completion = json!({"model": model, "max_tokens": 1, "prompt": "Hi"});
    ask(endpoint, "/v1/completions", &completion, PATIENCE).await
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
