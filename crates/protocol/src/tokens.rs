//! The bodies of `POST /tokenize` and `POST /detokenize`, and their answers, as vLLM has them.

use serde::Serialize;
use serde_json::Value;

use crate::chat::ValidChatRequest;
use crate::error::ApiError;
use crate::fields::{Fields, parse_body, parse_chat_body};
use crate::foreign::UnsupportedContent;
use crate::limits::{MAX_LABEL_BYTES, MAX_PROMPT_TOKENS};
use crate::sampling::parse_token_ids;

/// A request to turn a text or a conversation into tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidTokenizeRequest {
    /// The model that was asked for, if any.
    pub model: Option<String>,
    /// What to tokenise.
    pub input: TokenizeInput,
    /// Let the tokenizer add its own tokens, such as a beginning of the sequence.
    pub add_special_tokens: bool,
    /// Say how the vocabulary writes each token.
    pub return_token_strs: bool,
}

/// What to tokenise.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenizeInput {
    /// A text as it is.
    Text(String),
    /// A conversation, by way of the chat template.
    Chat(Box<ValidChatRequest>),
}

/// A request to turn tokens into a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidDetokenizeRequest {
    /// The model that was asked for, if any.
    pub model: Option<String>,
    /// Token ids, unchecked against the vocabulary.
    pub tokens: Vec<u32>,
}

/// The answer to a [`ValidTokenizeRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tokenized {
    /// The number of tokens.
    pub count: usize,
    /// Prompt and answer together.
    pub max_model_len: u32,
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Each as the vocabulary writes it, if that was asked for.
    pub token_strs: Option<Vec<String>>,
}

/// The answer to a [`ValidDetokenizeRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Detokenized {
    /// The text.
    pub prompt: String,
}

/// The answer of `GET /tokenizer_info`: what a client needs to render prompts itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenizerInfo<'a> {
    /// The class of transformers that reads any `tokenizer.json`.
    pub tokenizer_class: &'static str,
    /// Begins a sequence.
    pub bos_token: Option<&'a str>,
    /// Ends a sequence.
    pub eos_token: Option<&'a str>,
    /// Fills unused positions.
    pub pad_token: Option<&'a str>,
    /// Prompt and answer together.
    pub model_max_length: u32,
    /// The chat template.
    pub chat_template: Option<&'a str>,
}

impl ValidTokenizeRequest {
    /// Parses a body; every error is a 400 that names the field. `unsupported` says what becomes of
    /// images and the like in the latest user message.
    pub fn from_bytes(body: &[u8], unsupported: UnsupportedContent) -> Result<Self, ApiError> {
        let value = parse_chat_body(body)?;
        let fields = &Fields::of_body(&value)?;
        let input = parse_input(fields, &value, unsupported)?;
        let is_text = matches!(input, TokenizeInput::Text(_));
        Ok(Self {
            model: parse_model(fields)?,
            // A chat template writes them itself.
            add_special_tokens: fields.flag("add_special_tokens", is_text)?,
            return_token_strs: fields.flag("return_token_strs", false)?,
            input,
        })
    }
}

fn parse_input(
    fields: &Fields<'_>,
    body: &Value,
    unsupported: UnsupportedContent,
) -> Result<TokenizeInput, ApiError> {
    if let Some(text) = fields.string("prompt")? {
        return Ok(TokenizeInput::Text(text.to_owned()));
    }
    if fields.get("messages").is_none() {
        return Err(fields.missing("prompt"));
    }
    let chat = ValidChatRequest::from_value(body, unsupported)?;
    Ok(TokenizeInput::Chat(Box::new(chat)))
}

impl ValidDetokenizeRequest {
    /// Parses a body; every error is a 400 that names the field.
    pub fn from_bytes(body: &[u8]) -> Result<Self, ApiError> {
        let value = parse_body(body)?;
        let fields = &Fields::of_body(&value)?;
        let elements = fields
            .array("tokens", MAX_PROMPT_TOKENS)?
            .ok_or_else(|| fields.missing("tokens"))?;
        Ok(Self {
            model: parse_model(fields)?,
            tokens: parse_token_ids(elements, "tokens")?,
        })
    }
}

fn parse_model(fields: &Fields<'_>) -> Result<Option<String>, ApiError> {
    Ok(fields.label("model", MAX_LABEL_BYTES)?.map(str::to_owned))
}
