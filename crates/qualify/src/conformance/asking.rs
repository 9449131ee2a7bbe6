//! Requests whose answers are looked at as they are on the wire.

use std::time::Duration;

use backstop_client::{Endpoint, Exchange};
use http_body_util::BodyExt;
use hyper::Method;
use hyper::header::HeaderMap;
use serde_json::{Value, json};

const BODY_BYTES_MAX: usize = 4 << 20;

/// Asks one model of one server.
#[derive(Clone)]
pub(super) struct Asker {
    endpoint: Endpoint,
    model: String,
    patience: Duration,
}

/// An answer, as it came.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Response {
    /// Its JSON; null if it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The status, and what is said of an error.
    pub(super) fn seen(&self) -> String {
        const CHARACTERS_MAX: usize = 160;
        let json = self.json();
        let error = &json["error"];
        let part = |name: &str| error[name].as_str().map(|text| format!("{name} {text}"));
        let parts: Vec<String> = ["type", "code", "message"]
            .into_iter()
            .filter_map(part)
            .collect();
        let text = match parts.is_empty() {
            true => self.status.to_string(),
            false => format!("{}: {}", self.status, parts.join(", ")),
        };
        text.chars().take(CHARACTERS_MAX).collect()
    }

    /// Whether clients of OpenAI's API can read it as an error.
    pub(super) fn is_error(&self) -> bool {
        let json = self.json();
        json["error"]["message"].is_string() && json["error"]["type"].is_string()
    }
}

impl Asker {
    pub(super) fn new(endpoint: Endpoint, model: String, patience: Duration) -> Self {
        Self {
            endpoint,
            model,
            patience,
        }
    }

    /// What the list of models says of this one, if there is such a list.
    pub(super) async fn entry(&self) -> Result<Option<Value>, String> {
        let list = self
            .send(Method::GET, "/v1/models", Vec::new())
            .await?
            .json();
        let entries = list["data"].as_array().map_or(&[][..], Vec::as_slice);
        Ok(entries
            .iter()
            .find(|entry| entry["id"] == self.model.as_str())
            .cloned())
    }

    /// A short chat with these further fields.
    pub(super) fn chat(&self, more: Value) -> Value {
        let mut body = json!({
            "model": self.model,
            "messages": [{"role": "user", "content": "Say hello."}],
            "max_tokens": 8,
            "temperature": 0,
        });
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        body
    }

    pub(super) async fn post(&self, body: &Value) -> Result<Response, String> {
        self.post_text(body.to_string()).await
    }

    pub(super) async fn post_text(&self, body: String) -> Result<Response, String> {
        self.send(Method::POST, "/v1/chat/completions", body.into_bytes())
            .await
    }

    pub(super) async fn get(&self, path: &str) -> Result<Response, String> {
        self.send(Method::GET, path, Vec::new()).await
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Response, String> {
        let asking = async {
            let mut exchange = self.endpoint.send(method, path, body).await?;
            let text = read(&mut exchange).await?;
            let (head, _) = exchange.response.into_parts();
            Ok(Response {
                status: head.status.as_u16(),
                headers: head.headers,
                text,
            })
        };
        let answered = tokio::time::timeout(self.patience, asking).await;
        answered.unwrap_or_else(|_| Err(format!("no answer after {} s", self.patience.as_secs())))
    }

    /// Begins a long stream, and breaks it off after its first piece. True if there was one.
    pub(super) async fn break_off(&self) -> bool {
        let body = self.chat(json!({"stream": true, "max_tokens": 4096, "messages": [
            {"role": "user", "content": "Count from 1 to 10000, one number a line, without leaving any out."}
        ]}));
        let beginning = async {
            let path = "/v1/chat/completions";
            let sent = self
                .endpoint
                .send(Method::POST, path, body.to_string().into_bytes())
                .await;
            let mut exchange = sent.ok()?;
            exchange.response.body_mut().frame().await?.ok()
        };
        let began = tokio::time::timeout(self.patience, beginning).await;
        matches!(began, Ok(Some(_)))
    }
}

async fn read(exchange: &mut Exchange) -> Result<String, String> {
    let mut bytes = Vec::new();
    let body = exchange.response.body_mut();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the answer broke off: {error}"))?;
        bytes.extend_from_slice(&frame.into_data().unwrap_or_default());
        if bytes.len() > BODY_BYTES_MAX {
            return Err("the answer is too long".into());
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
