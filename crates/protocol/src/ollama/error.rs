//! The error table in Ollama's shape.

use serde::Serialize;

use crate::error::ApiError;
use crate::spaced_json;

#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
}

impl ApiError {
    /// The response body in Ollama's shape: `{"error": "…"}`. A model that is not served is "not
    /// found" in so many words: clients look for them.
    pub fn to_ollama_json_string(&self) -> String {
        let missing = format!("model not found: {}", self.message);
        let error = match self.code {
            Some("model_not_found") => missing.as_str(),
            _ => self.message.as_str(),
        };
        spaced_json::to_string(&Body { error }).unwrap_or_default()
    }
}
