//! The fallback, asked directly: what it is, and what it answers by itself.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::DrillError;
use crate::judgement::Identity;
use crate::nonces::Nonces;
use crate::transcript::{Question, ask};
use backstop_client::Endpoint;

const LIST_BYTES_MAX: usize = 1 << 20;
/// Of two texts that begin alike, so much is the same.
const SAME_CHARACTERS: usize = 24;

/// Backstop, without a gateway in front of it.
pub(crate) struct Fallback {
    endpoint: Endpoint,
    model: String,
    pub(crate) identity: Identity,
}

impl Fallback {
    /// Asks a server what it is.
    pub(crate) async fn meet(endpoint: Endpoint, patience: Duration) -> Result<Self, DrillError> {
        let asking = first_model(&endpoint);
        let model = tokio::time::timeout(patience, asking)
            .await
            .unwrap_or_else(|_| Err("it does not answer".into()))
            .map_err(|error| {
                DrillError::new(format!("the fallback does not say what it serves: {error}"))
            })?;
        let question = Question {
            model: model.clone(),
            nonce: Nonces::default().issue()?,
            is_stream: false,
            max_tokens: 1,
        };
        let answer = ask(&endpoint, &question, patience).await;
        if let Some(failure) = answer.failure {
            return Err(DrillError::new(format!(
                "the fallback does not answer: {failure}"
            )));
        }
        let identity = Identity {
            model: answer.backstop_model,
            fingerprint: answer.fingerprints.into_iter().next(),
        };
        if identity.model.is_none() && identity.fingerprint.is_none() {
            let reason = "the fallback has neither x-backstop-model nor a system_fingerprint, so that its answers \
                          cannot be told from others";
            return Err(DrillError::new(reason));
        }
        Ok(Self {
            endpoint,
            model,
            identity,
        })
    }

    /// Whether a text is how the fallback begins an answer to this question, when it does not know of another beginning.
    pub(crate) async fn would_begin_with(
        &self,
        text: &str,
        question: &Question,
        patience: Duration,
    ) -> bool {
        let direct = Question {
            model: self.model.clone(),
            is_stream: false,
            ..question.clone()
        };
        let direct = ask(&self.endpoint, &direct, patience).await.text;
        let begin = |text: &str| {
            text.trim_start()
                .chars()
                .take(SAME_CHARACTERS)
                .collect::<String>()
        };
        !direct.trim().is_empty() && begin(text) == begin(&direct)
    }
}

async fn first_model(endpoint: &Endpoint) -> Result<String, String> {
    let mut exchange = endpoint.send(Method::GET, "/v1/models", Vec::new()).await?;
    let status = exchange.response.status();
    if status != StatusCode::OK {
        return Err(format!(
            "GET /v1/models is answered with {}",
            status.as_u16()
        ));
    }
    let body = Limited::new(exchange.response.body_mut(), LIST_BYTES_MAX)
        .collect()
        .await;
    let body = body
        .map_err(|_| "its list of models broke off, or is too long")?
        .to_bytes();
    let list: Value = serde_json::from_slice(&body).map_err(|_| "its list of models is no JSON")?;
    let model = list["data"][0]["id"].as_str();
    model
        .map(str::to_owned)
        .ok_or_else(|| "it serves no model".into())
}
