//! The bodies of `POST /api/chat`, `/api/generate` and `/api/show`, parsed once.

use serde_json::{Value, json};

use super::conversation::parse_conversation;
use super::options::{Options, parse_options};
use super::settings::{
    Think, image_notes, parse_format, parse_logprobs, parse_stream, parse_think, parse_unload,
    with_notes,
};
use crate::chat::{ConstraintPaths, ValidChatRequest};
use crate::completions::{CompletionPrompt, ValidCompletionRequest};
use crate::error::ApiError;
use crate::fields::{Fields, parse_body, parse_chat_body};
use crate::foreign::UnsupportedContent;
use crate::limits::{MAX_LABEL_BYTES, MAX_MESSAGES, MAX_PROMPT_TOKENS};
use crate::output_format::OutputFormat;
use crate::sampling::parse_token_ids;
use crate::tools::parse_offered_tools;
use crate::unsupported::is_set;

/// What a request to a generating endpoint asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum OllamaTask {
    /// No answer: to bring the model into memory, or to let go of it.
    Load(OllamaLoad),
    /// The answer to a conversation.
    Chat(Box<OllamaChat>),
    /// The continuation of a text, or what stands between two.
    Text(Box<OllamaText>),
}

/// A request without a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OllamaLoad {
    /// The model that was asked for, if any.
    pub model: Option<String>,
    /// It asks to let go of the model.
    pub unload: bool,
}

/// A conversation, or a prompt that becomes one.
#[derive(Clone, Debug, PartialEq)]
pub struct OllamaChat {
    /// The request as a chat. Its `max_tokens` is open: see the field of this name.
    pub chat: ValidChatRequest,
    /// Tokens to generate at most, at least 1. It may be more than the context leaves.
    pub max_tokens: Option<u32>,
    /// The request wants a model that reasons.
    pub must_think: bool,
    /// Tokens before those of the conversation, unchecked against the vocabulary.
    pub context: Vec<u32>,
}

/// A text that no template renders.
#[derive(Clone, Debug, PartialEq)]
pub struct OllamaText {
    /// The request as a completion of one text. Its `max_tokens` is open: see the field of this name.
    pub completion: ValidCompletionRequest,
    /// As in [`OllamaChat`].
    pub max_tokens: Option<u32>,
}

/// A request for what is known of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidShowRequest {
    /// The model that was asked for, if any.
    pub model: Option<String>,
}

impl OllamaTask {
    /// Parses the body of `POST /api/chat`; every error is a 400 that names the field. `unsupported`
    /// says what becomes of images in the latest user message.
    pub fn of_chat(body: &[u8], unsupported: UnsupportedContent) -> Result<Self, ApiError> {
        let value = parse_chat_body(body)?;
        let body = &Fields::of_body(&value)?;
        let unload = parse_unload(body)?;
        refuse_rendering(body)?;
        let elements = body.array("messages", MAX_MESSAGES)?.unwrap_or_default();
        let conversation = parse_conversation(elements, unsupported)?;
        let offer = parse_offered_tools(body)?;
        let mut asked = parse_answer(body, conversation.messages)?;
        if elements.is_empty() {
            let model = asked.chat.model;
            return Ok(Self::Load(OllamaLoad { model, unload }));
        }
        asked.chat = ValidChatRequest {
            tools: offer.tools,
            strict_tools: offer.strict,
            add_generation_prompt: !conversation.is_prefill,
            continue_final_message: conversation.is_prefill,
            ..asked.chat
        };
        Ok(Self::Chat(Box::new(asked)))
    }

    /// Parses the body of `POST /api/generate`; every error is a 400 that names the field.
    /// `unsupported` says what becomes of images.
    pub fn of_generation(body: &[u8], unsupported: UnsupportedContent) -> Result<Self, ApiError> {
        let value = parse_body(body)?;
        let body = &Fields::of_body(&value)?;
        let unload = parse_unload(body)?;
        refuse_rendering(body)?;
        let notes = image_notes(body, unsupported)?;
        let prompt = body.string("prompt")?.unwrap_or_default();
        let suffix = body.string("suffix")?.filter(|text| !text.is_empty());
        let system = body.string("system")?.filter(|text| !text.is_empty());
        let mut messages = Vec::with_capacity(2);
        messages.extend(system.map(|text| json!({"role": "system", "content": text})));
        messages.push(json!({"role": "user", "content": with_notes(prompt, &notes)}));
        let asked = OllamaChat {
            context: parse_context(body)?,
            ..parse_answer(body, messages)?
        };
        let is_raw = body.flag("raw", false)?;
        match suffix {
            Some(_) => check_unrendered(body, &asked, "suffix")?,
            None if is_raw => check_unrendered(body, &asked, "raw")?,
            None => {}
        }
        if prompt.is_empty() && suffix.is_none() {
            let model = asked.chat.model;
            return Ok(Self::Load(OllamaLoad { model, unload }));
        }
        if !is_raw && suffix.is_none() {
            return Ok(Self::Chat(Box::new(asked)));
        }
        Ok(Self::Text(Box::new(OllamaText {
            completion: ValidCompletionRequest {
                model: asked.chat.model,
                prompts: vec![CompletionPrompt::Text(prompt.to_owned())],
                suffix: suffix.map(str::to_owned),
                sampling: asked.chat.sampling,
                stream: asked.chat.stream,
                echo: false,
                add_special_tokens: true,
                priority: 0,
                user: None,
            },
            max_tokens: asked.max_tokens,
        })))
    }
}

/// What both endpoints say of an answer to `messages`.
fn parse_answer(body: &Fields<'_>, messages: Vec<Value>) -> Result<OllamaChat, ApiError> {
    let Options {
        sampling,
        max_tokens,
    } = parse_options(body, parse_logprobs(body)?)?;
    let think = parse_think(body)?;
    let mut chat = ValidChatRequest {
        model: body.label("model", MAX_LABEL_BYTES)?.map(str::to_owned),
        output_format: parse_format(body)?,
        constraint_paths: ConstraintPaths {
            output_format: "format",
            ..ConstraintPaths::default()
        },
        sampling,
        stream: parse_stream(body)?,
        ..ValidChatRequest::new(messages)
    };
    think.apply(&mut chat);
    Ok(OllamaChat {
        chat,
        max_tokens,
        must_think: matches!(think, Think::On(_)),
        context: Vec::new(),
    })
}

/// Fields that ask for another template, or to see what it renders.
fn refuse_rendering(body: &Fields<'_>) -> Result<(), ApiError> {
    if body.get("template").is_some_and(is_set) {
        return Err(body.unsupported("template", "the model's own template is used"));
    }
    if body.flag("_debug_render_only", false)? {
        let explanation = "rendered prompts are not shown";
        return Err(body.unsupported("_debug_render_only", explanation));
    }
    Ok(())
}

/// The tokens of an earlier prompt and its answer.
fn parse_context(body: &Fields<'_>) -> Result<Vec<u32>, ApiError> {
    let elements = body
        .array("context", MAX_PROMPT_TOKENS)?
        .unwrap_or_default();
    parse_token_ids(elements, "context")
}

/// A prompt that no template renders, because of field `cause`, is all that the model reads, and its
/// answer is all text.
fn check_unrendered(body: &Fields<'_>, asked: &OllamaChat, cause: &str) -> Result<(), ApiError> {
    let is_formatted = asked.chat.output_format != OutputFormat::Text;
    let excluded = [
        ("system", body.get("system").is_some_and(is_set)),
        ("context", !asked.context.is_empty()),
        ("think", asked.must_think),
        ("format", is_formatted),
    ];
    match excluded.into_iter().find(|(_, is_set)| *is_set) {
        Some((name, _)) => {
            Err(body.invalid(name, &format!("must not be set together with {cause}")))
        }
        None => Ok(()),
    }
}

impl ValidShowRequest {
    /// Parses a body; every error is a 400 that names the field.
    pub fn from_bytes(body: &[u8]) -> Result<Self, ApiError> {
        let value = parse_chat_body(body)?;
        let body = &Fields::of_body(&value)?;
        // `name` is what older clients say.
        let model = body.label("model", MAX_LABEL_BYTES)?;
        let name = body.label("name", MAX_LABEL_BYTES)?;
        Ok(Self {
            model: model.or(name).map(str::to_owned),
        })
    }
}
