//! What Ollama's clients ask of models: which there are, and what they can do.

use std::fmt::Write;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use backstop_protocol::ApiError;
use backstop_protocol::ollama::{
    ModelDetails, ModelEntry, ModelEntryList, Never, RunningModel, ShownModel, ValidShowRequest,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::endpoint::{Found, Inquiry};
use crate::model::ServedModel;
use crate::prepare;
use crate::probes::VERSION;
use crate::reply::{self, ErrorReply};
use crate::server::Server;

/// The release of Ollama whose API this is: clients ask for a least one.
const OLLAMA_VERSION: &str = "0.32.0";
/// The tag that a name without one has.
const DEFAULT_TAG: &str = ":latest";

/// `GET /api/version`.
pub(crate) async fn version() -> Response {
    let body = json!({"version": OLLAMA_VERSION, "backstop": VERSION});
    reply::json(StatusCode::OK, &body)
}

/// `GET /api/tags`: one entry for each served name.
pub(crate) async fn tags(State(server): State<Server>) -> Result<Response, ErrorReply> {
    let model = &server.ready_model()?.served;
    let entry = |name: String| ModelEntry {
        model: name.clone(),
        name,
        created_s: model.created_s,
        size: model.facts.file_bytes,
        digest: digest(model),
        details: details(model),
        capabilities: capabilities(model),
    };
    let models = tagged_names(model).map(entry).collect();
    Ok(reply::json(StatusCode::OK, &ModelEntryList { models }))
}

/// `GET /api/ps`: the same names, for the model is always in memory.
pub(crate) async fn running(State(server): State<Server>) -> Result<Response, ErrorReply> {
    let model = &server.ready_model()?.served;
    let facts = &model.facts;
    let entry = |name: String| RunningModel {
        model: name.clone(),
        name,
        size: facts.memory_bytes,
        size_vram: if facts.on_gpu { facts.memory_bytes } else { 0 },
        digest: digest(model),
        details: details(model),
        context_length: model.max_model_len,
        expires_at: Never,
    };
    let models = tagged_names(model).map(entry).collect();
    Ok(reply::json(StatusCode::OK, &ModelEntryList { models }))
}

/// `POST /api/show`.
pub(crate) struct Show;

impl Inquiry for Show {
    type Reply = ShownModel;
    const COUNTS_TOKENS: bool = false;

    fn inquire(server: &Server, body: &[u8]) -> Result<Found<ShownModel>, ApiError> {
        let model = &server.generating_model()?.served;
        let name = resolve_name(model, ValidShowRequest::from_bytes(body)?.model)?;
        let reply = ShownModel {
            modelfile: "",
            parameters: parameters(model),
            template: template(model),
            details: details(model),
            model_info: model_info(model, &name),
            capabilities: capabilities(model),
            created_s: model.created_s,
        };
        Ok(Found { reply, tokens: 0 })
    }
}

/// The name that answers carry, if the model that was asked for is served: under that name, or
/// under what is left of it without the tag that clients add.
pub(super) fn resolve_name(model: &ServedModel, asked: Option<String>) -> Result<String, ApiError> {
    let untagged = asked
        .as_deref()
        .and_then(|name| name.strip_suffix(DEFAULT_TAG));
    let served = untagged.map(|name| prepare::resolve_model_name(model, Some(name.to_owned())));
    match (served, asked) {
        (Some(Ok(_)), Some(asked)) => Ok(asked),
        (_, asked) => prepare::resolve_model_name(model, asked),
    }
}

/// Whether answers have reasoning that is marked as such.
pub(super) fn thinks(model: &ServedModel) -> bool {
    let format = model.chat_format;
    let templates = model.templates.as_ref();
    templates.is_some_and(|templates| format.marks_reasoning(templates.for_tools().source()))
}

/// The served names, each with a tag.
fn tagged_names(model: &ServedModel) -> impl Iterator<Item = String> {
    let names = model.names().shown(&model.root);
    let tagged = |name: &str| {
        let last = name.rsplit('/').next().unwrap_or(name);
        match last.contains(':') {
            true => name.to_owned(),
            false => format!("{name}{DEFAULT_TAG}"),
        }
    };
    let names: Vec<String> = names.into_iter().map(tagged).collect();
    names.into_iter()
}

fn capabilities(model: &ServedModel) -> Vec<&'static str> {
    let can_chat = model.templates.is_some();
    let mut capabilities = vec!["completion"];
    if can_chat && model.chat_format.calls_tools() {
        capabilities.push("tools");
    }
    if thinks(model) {
        capabilities.push("thinking");
    }
    if model.fim.is_some() {
        capabilities.push("insert");
    }
    capabilities
}

fn details(model: &ServedModel) -> ModelDetails {
    let facts = &model.facts;
    ModelDetails {
        format: facts.format.clone(),
        family: facts.architecture.clone(),
        families: vec![facts.architecture.clone()],
        quantization_level: facts.number_format.clone(),
        ..ModelDetails::default()
    }
}

/// The chat template's source. Where the model fills in the middle it says so first, in a comment
/// with the names that Ollama's own templates have: clients look for `.Suffix`.
fn template(model: &ServedModel) -> String {
    let mark = match model.fim {
        Some(_) => "{#- What stands between .Prompt and .Suffix is filled in. -#}",
        None => "",
    };
    format!(
        "{mark}{}",
        model.default_template_source().unwrap_or_default()
    )
}

/// The options that requests get which do not say.
fn parameters(model: &ServedModel) -> String {
    let defaults = &model.defaults;
    let number = |value: Option<f32>| value.map(|value| value.to_string());
    let parameters = [
        ("num_ctx", Some(model.max_model_len.to_string())),
        ("temperature", number(defaults.temperature)),
        ("top_p", number(defaults.top_p)),
        ("top_k", defaults.top_k.map(|value| value.to_string())),
        ("min_p", number(defaults.min_p)),
        ("repeat_penalty", number(defaults.repetition_penalty)),
    ];
    let lines = parameters
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name:<30} {}", value?)));
    lines.collect::<Vec<_>>().join("\n")
}

/// What clients look up to know how long a conversation may get.
fn model_info(model: &ServedModel, name: &str) -> Map<String, Value> {
    let architecture = &model.facts.architecture;
    let entries = [
        ("general.architecture".to_owned(), json!(architecture)),
        ("general.basename".to_owned(), json!(name)),
        (
            format!("{architecture}.context_length"),
            json!(model.max_model_len),
        ),
        (
            format!("{architecture}.vocab_size"),
            json!(model.vocab_size),
        ),
    ];
    entries.into_iter().collect()
}

/// Identifies the model and all that its answers depend on. It is no digest of its files.
fn digest(model: &ServedModel) -> String {
    let fingerprint = model.provenance.fingerprint();
    let known = json!([model.root, fingerprint, model.max_model_len]);
    let digest = Sha256::digest(known.to_string());
    let mut text = String::with_capacity(64);
    for byte in digest {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}
