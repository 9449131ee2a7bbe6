//! The bodies of `POST /v1/messages` and `/v1/messages/count_tokens`, parsed once.

use serde_json::Value;

use super::conversation::parse_conversation;
use super::thinking::{Thinking, ThinkingDisplay, parse_effort, parse_thinking};
use super::tools::{Offer, parse_parallel, parse_tool_choice, parse_tools};
use crate::chat::{ConstraintPaths, ValidChatRequest};
use crate::error::ApiError;
use crate::fields::{Fields, element, parse_chat_body};
use crate::foreign::UnsupportedContent;
use crate::limits::{MAX_LABEL_BYTES, MAX_STOP_STRING_BYTES, MAX_STOP_STRINGS};
use crate::output_format::{self, AskedFormat, OutputFormat};
use crate::sampling::{SamplingFields, StreamOptions, parse_cache_salt};
use crate::unsupported::{self, is_set};

/// Fields that change the answer, and why they cannot be served.
const UNSUPPORTED: [(&str, &str); 5] = [
    ("container", "code is not executed here"),
    ("mcp_servers", "this server makes no outbound connection"),
    ("thread", "conversations are not stored here"),
    (
        "compaction",
        "conversations are not summarised by the server",
    ),
    ("fallbacks", "this server serves one model"),
];

/// A Messages request that holds nothing the server would have to refuse, apart from what depends
/// on the model.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidMessagesRequest {
    /// The request as a chat. Its `max_tokens` is open: see the field of this name.
    pub chat: ValidChatRequest,
    /// Tokens to generate at most, at least 1. Unlike the chat endpoint's it may be more than the
    /// context leaves: the answer then ends with the context.
    pub max_tokens: u32,
    /// How much of the reasoning the answer shows, if it has any.
    pub thinking_display: ThinkingDisplay,
}

/// A request to count the tokens of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidTokenCountRequest {
    /// What to count, as a chat.
    pub chat: ValidChatRequest,
}

impl ValidMessagesRequest {
    /// Parses a body; every error is a 400 that names the field. `unsupported` says what becomes of
    /// images and the like in the latest user message.
    pub fn from_bytes(body: &[u8], unsupported: UnsupportedContent) -> Result<Self, ApiError> {
        let value = parse_chat_body(body)?;
        let body = &Fields::of_body(&value)?;
        let thinking = parse_thinking(body)?;
        let chat = parse_chat(body, thinking, unsupported)?;
        let max_tokens = body
            .unsigned("max_tokens", 1..=i32::MAX as u32)?
            .ok_or_else(|| body.missing("max_tokens"))?;
        Ok(Self {
            chat,
            max_tokens,
            thinking_display: thinking.display,
        })
    }
}

impl ValidTokenCountRequest {
    /// Parses a body; every error is a 400 that names the field. `unsupported` says what becomes of
    /// images and the like in the latest user message.
    pub fn from_bytes(body: &[u8], unsupported: UnsupportedContent) -> Result<Self, ApiError> {
        let value = parse_chat_body(body)?;
        let body = &Fields::of_body(&value)?;
        let chat = parse_chat(body, parse_thinking(body)?, unsupported)?;
        Ok(Self { chat })
    }
}

/// Everything but `max_tokens`.
fn parse_chat(
    body: &Fields<'_>,
    thinking: Thinking,
    unsupported: UnsupportedContent,
) -> Result<ValidChatRequest, ApiError> {
    let conversation = parse_conversation(body, unsupported)?;
    unsupported::check(body)?;
    for (name, explanation) in UNSUPPORTED {
        if body.get(name).is_some_and(is_set) {
            return Err(body.unsupported(name, explanation));
        }
    }
    let asked = parse_output_format(body)?;
    let Offer { tools, strict } = parse_tools(body)?;
    let mut chat = ValidChatRequest {
        model: body.label("model", MAX_LABEL_BYTES)?.map(str::to_owned),
        tool_choice: parse_tool_choice(body, &tools)?,
        parallel_tool_calls: parse_parallel(body)?,
        tools,
        strict_tools: strict,
        output_format: asked.format,
        constraint_paths: ConstraintPaths {
            tool_schema: "input_schema",
            output_format: asked.path,
            ..ConstraintPaths::default()
        },
        sampling: parse_sampling(body)?,
        stream: body.flag("stream", false)?.then(StreamOptions::default),
        add_generation_prompt: !conversation.is_prefill,
        continue_final_message: conversation.is_prefill,
        user: parse_user(body)?,
        ..ValidChatRequest::new(conversation.messages)
    };
    thinking.apply(parse_effort(body)?, &mut chat);
    Ok(chat)
}

fn parse_sampling(body: &Fields<'_>) -> Result<SamplingFields, ApiError> {
    Ok(SamplingFields {
        temperature: body.number("temperature", 0.0..=2.0)?,
        top_p: body
            .number("top_p", 0.0..=1.0)?
            .map(|top_p| top_p.max(f32::MIN_POSITIVE)),
        top_k: body.unsigned("top_k", 0..=i32::MAX as u32)?,
        stop: parse_stop_sequences(body)?,
        cache_salt: parse_cache_salt(body)?,
        ..SamplingFields::default()
    })
}

fn parse_stop_sequences(body: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let elements = body
        .array("stop_sequences", MAX_STOP_STRINGS)?
        .unwrap_or_default();
    let texts = elements
        .iter()
        .enumerate()
        .map(|(index, value)| match value.as_str() {
            Some(text) if (1..=MAX_STOP_STRING_BYTES).contains(&text.len()) => Ok(text.to_owned()),
            _ => {
                let requirement = format!("must be a string of 1 to {MAX_STOP_STRING_BYTES} bytes");
                let path = element("stop_sequences", index);
                Err(ApiError::invalid_field(path, &requirement))
            }
        });
    texts.collect()
}

fn parse_user(body: &Fields<'_>) -> Result<Option<String>, ApiError> {
    let Some(metadata) = body.object("metadata")? else {
        return Ok(None);
    };
    Ok(metadata
        .label("user_id", MAX_LABEL_BYTES)?
        .map(str::to_owned))
}

/// The format of the answer's text, in its present place or in that of its beta, or as other
/// servers have it.
fn parse_output_format(body: &Fields<'_>) -> Result<AskedFormat, ApiError> {
    let config = body.object("output_config")?;
    let present = match &config {
        Some(config) => config.object("format")?,
        None => None,
    };
    let (format, path) = match (present, body.object("output_format")?) {
        (Some(format), _) => (format, "output_config.format.schema"),
        (None, Some(format)) => (format, "output_format.schema"),
        (None, None) => return output_format::parse_output_format(body),
    };
    match format.string("type")? {
        None => Err(format.missing("type")),
        Some("json_schema") => {
            let schema = format
                .object("schema")?
                .ok_or_else(|| format.missing("schema"))?;
            Ok(AskedFormat {
                format: OutputFormat::JsonSchema(Value::Object(schema.entries().clone())),
                path,
            })
        }
        Some(_) => Err(format.invalid("type", "must be 'json_schema'")),
    }
}
