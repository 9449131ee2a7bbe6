//! The fields that both generating endpoints have beside their prompts and `options`.

use serde_json::Value;

use crate::chat::ValidChatRequest;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::foreign::{self, UnsupportedContent};
use crate::limits::{MAX_CONTENT_PARTS, MAX_LABEL_BYTES, MAX_TOP_LOGPROBS};
use crate::output_format::OutputFormat;
use crate::sampling::StreamOptions;

/// The efforts that `think` may name.
const EFFORTS: [&str; 4] = ["low", "medium", "high", "max"];

/// Whether the model is to reason before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Think {
    /// As the chat template has it.
    AsUsual,
    Off,
    /// With this effort, if one is asked for.
    On(Option<&'static str>),
}

impl Think {
    /// Says it in the variables that templates read, which disagree on the name.
    pub(super) fn apply(self, chat: &mut ValidChatRequest) {
        let (on, effort) = match self {
            Self::AsUsual => return,
            Self::Off => (false, Some("none")),
            Self::On(effort) => (true, effort),
        };
        chat.include_reasoning = on;
        chat.reasoning_effort = effort;
        for name in ["reasoning", "enable_thinking"] {
            chat.chat_template_kwargs
                .insert(name.to_owned(), Value::Bool(on));
        }
    }
}

pub(super) fn parse_think(body: &Fields<'_>) -> Result<Think, ApiError> {
    let invalid = || {
        let requirement = format!("must be true, false, or one of {}", EFFORTS.join(", "));
        body.invalid("think", &requirement)
    };
    match body.get("think") {
        None => Ok(Think::AsUsual),
        Some(Value::Bool(false)) => Ok(Think::Off),
        Some(Value::Bool(true)) => Ok(Think::On(None)),
        Some(Value::String(asked)) => {
            let known = EFFORTS.into_iter().find(|effort| effort == asked);
            known
                .map(|effort| Think::On(Some(effort)))
                .ok_or_else(invalid)
        }
        Some(_) => Err(invalid()),
    }
}

/// `"json"`, or a schema as it is. An empty string asks for nothing.
pub(super) fn parse_format(body: &Fields<'_>) -> Result<OutputFormat, ApiError> {
    match body.get("format") {
        None => Ok(OutputFormat::Text),
        Some(Value::String(name)) if name.is_empty() => Ok(OutputFormat::Text),
        Some(Value::String(name)) if name == "json" => Ok(OutputFormat::JsonObject),
        Some(schema @ Value::Object(_)) => Ok(OutputFormat::JsonSchema(schema.clone())),
        Some(_) => Err(body.invalid("format", "must be 'json' or a JSON schema")),
    }
}

/// A stream, unless the request says otherwise.
pub(super) fn parse_stream(body: &Fields<'_>) -> Result<Option<StreamOptions>, ApiError> {
    Ok(body.flag("stream", true)?.then(StreamOptions::default))
}

/// How many alternatives to report, if log-probabilities are wanted at all.
pub(super) fn parse_logprobs(body: &Fields<'_>) -> Result<Option<u32>, ApiError> {
    let alternatives = body.unsigned("top_logprobs", 0..=MAX_TOP_LOGPROBS)?;
    let wanted = body.flag("logprobs", false)?;
    Ok(wanted.then_some(alternatives.unwrap_or(0)))
}

/// Whether `keep_alive` asks to let go of the model at once: a number of seconds, or a duration as
/// Go writes it, of nothing but zeros.
pub(super) fn parse_unload(body: &Fields<'_>) -> Result<bool, ApiError> {
    const REQUIREMENT: &str = "must be a number of seconds or a duration such as '5m'";
    match body.get("keep_alive") {
        None => Ok(false),
        Some(Value::Number(seconds)) => Ok(seconds.as_f64() == Some(0.0)),
        Some(Value::String(duration)) => {
            let digits = || duration.chars().filter(char::is_ascii_digit);
            match duration.len() <= MAX_LABEL_BYTES && digits().next().is_some() {
                true => Ok(digits().all(|digit| digit == '0')),
                false => Err(body.invalid("keep_alive", REQUIREMENT)),
            }
        }
        Some(_) => Err(body.invalid("keep_alive", REQUIREMENT)),
    }
}

/// Notes in the place of the images of a message, or of a prompt; with
/// [`UnsupportedContent::Refuse`] any image is an error.
pub(super) fn image_notes(
    fields: &Fields<'_>,
    unsupported: UnsupportedContent,
) -> Result<Vec<String>, ApiError> {
    let images = fields
        .array("images", MAX_CONTENT_PARTS)?
        .unwrap_or_default();
    match unsupported {
        UnsupportedContent::Refuse if !images.is_empty() => {
            Err(fields.unsupported("images", "this model reads text only"))
        }
        _ => Ok(images.iter().map(|_| foreign::note("image")).collect()),
    }
}

/// A text with what stands in the place of the images that came with it.
pub(super) fn with_notes(text: &str, notes: &[String]) -> String {
    let lines = Some(text).filter(|text| !text.is_empty()).into_iter();
    let lines = lines.chain(notes.iter().map(String::as_str));
    lines.collect::<Vec<_>>().join("\n")
}
