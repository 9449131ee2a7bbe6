//! The answer of `GET /v1/models`, with the limits that gateways discover there.

use serde::Serialize;

/// All models that the server serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelList {
    object: &'static str,
    data: Vec<ModelCard>,
}

impl ModelList {
    /// A list of `models`.
    pub fn new(models: Vec<ModelCard>) -> Self {
        Self {
            object: "list",
            data: models,
        }
    }
}

/// One model under one of its served names; also the answer of `GET /v1/models/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelCard {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    root: String,
    parent: Option<String>,
    max_model_len: u32,
    context_length: u32,
    max_input_tokens: u32,
    max_output_tokens: u32,
}

impl ModelCard {
    /// The model `root` under the name `id`, served since `created_s` (seconds since 1970).
    /// Prompt and answer share `context_length`; `max_output_tokens` bounds the answer alone.
    pub fn new(
        id: String,
        root: String,
        created_s: u64,
        context_length: u32,
        max_output_tokens: u32,
    ) -> Self {
        Self {
            id,
            object: "model",
            created: created_s,
            owned_by: "backstop",
            root,
            parent: None,
            max_model_len: context_length,
            context_length,
            // The answer needs room for one token.
            max_input_tokens: context_length.saturating_sub(1),
            max_output_tokens: max_output_tokens.min(context_length),
        }
    }
}
