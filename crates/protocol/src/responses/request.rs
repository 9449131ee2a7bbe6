//! The body of `POST /v1/responses`, parsed once.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::continuation;
use super::history::History;
use super::input;
use super::reasoning::ReasoningForm;
use super::tool_choice::{self, Choice};
use super::tools::{ToolTable, Toolbox};
use super::updates;
use crate::binding_format;
use crate::chat::{ConstraintPaths, ValidChatRequest, parse_effort};
use crate::error::ApiError;
use crate::fields::{Fields, element, memory_bytes, parse_chat_body};
use crate::foreign::UnsupportedContent;
use crate::limits::{
    MAX_ECHO_BYTES, MAX_LABEL_BYTES, MAX_METADATA_ENTRIES, MAX_METADATA_KEY_BYTES,
    MAX_METADATA_VALUE_BYTES, MAX_TOOLS, MAX_TOP_LOGPROBS,
};
use crate::output_format::{AskedFormat, OutputFormat, json_field, parse_output_format};
use crate::reasoning::budget as reasoning_budget;
use crate::sampling::{SamplingFields, parse_priority, parse_stream};
use crate::unsupported;

/// What may be asked for beside the answer itself. All others speak of tools and contents that
/// never occur here, so that there is nothing to include.
const INCLUDABLE: [&str; 8] = [
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
];

/// Fields that need what is not kept or not done here.
const UNAVAILABLE: [(&str, &str); 5] = [
    (
        "background",
        "answers are not stored, so they cannot be fetched later",
    ),
    ("context_management", "conversations are not compacted here"),
    (
        "conversation",
        "conversations are not stored here; send the items in 'input'",
    ),
    (
        "previous_response_id",
        "answers are not stored here; send the items in 'input'",
    ),
    (
        "prompt",
        "prompts are not stored here; use 'instructions' and 'input'",
    ),
];

/// A request that holds nothing the server would have to refuse, apart from what depends on the
/// model.
///
/// Accepted and without effect, among unknown fields: `store` (nothing is ever stored),
/// `truncation` (a conversation that does not fit is refused, never cut), `text.verbosity`,
/// `service_tier`, `prompt_cache_key`, `safety_identifier`, `max_tool_calls`.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidResponsesRequest {
    /// The request as a chat.
    pub chat: ValidChatRequest,
    /// What the functions that it offers stand for.
    pub tools: ToolTable,
    /// How reasoning is shown.
    pub reasoning: ReasoningForm,
    /// What the answer repeats.
    pub echo: ResponseEcho,
}

/// The settings of a request as its answer repeats them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResponseEcho {
    instructions: Option<String>,
    max_output_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_logprobs: u32,
    tools: Vec<Value>,
    tool_choice: Value,
    parallel_tool_calls: bool,
    text: Value,
    reasoning: Value,
    metadata: Map<String, Value>,
    user: Option<String>,
    prompt_cache_key: Option<String>,
    safety_identifier: Option<String>,
    truncation: &'static str,
    service_tier: &'static str,
    store: bool,
    background: bool,
    previous_response_id: Option<String>,
}

impl ValidResponsesRequest {
    /// Parses a body; every error is a 400 that names the field. `unsupported` says what becomes of
    /// images and the like in the latest user message.
    pub fn from_bytes(body: &[u8], unsupported: UnsupportedContent) -> Result<Self, ApiError> {
        Self::from_value(parse_chat_body(body)?, unsupported)
    }

    /// As [`ValidResponsesRequest::from_bytes`], from JSON that is parsed already.
    pub fn from_value(mut body: Value, unsupported: UnsupportedContent) -> Result<Self, ApiError> {
        updates::apply(&mut body);
        let body = &Fields::of_body(&body)?;
        check_available(body)?;
        let instructions = body.string("instructions")?;
        let mut history = History::new();
        if let Some(instructions) = instructions {
            history.say("system", instructions);
        }
        let mut toolbox = Toolbox::default();
        toolbox.add(body, "tools")?;
        input::parse(body, unsupported, &mut history, &mut toolbox)?;
        let messages = history.into_messages();
        if messages.is_empty() {
            return Err(body.invalid("input", "must have at least one message"));
        }
        let is_continued = continuation::parse(body, &messages)?;
        let Choice { choice, allowed } = tool_choice::parse(body, &toolbox)?;
        let asked = parse_format(body)?;
        let included = parse_include(body)?;
        let settings = body.object("reasoning")?;
        let reasoning = ReasoningForm {
            as_summary: parse_summary(settings.as_ref())?,
            with_encrypted_content: included.contains(&"reasoning.encrypted_content"),
        };
        let in_settings = settings
            .as_ref()
            .map(|settings| reasoning_budget(settings, "max_tokens"));
        let in_settings = in_settings.transpose()?.flatten();
        let budget = reasoning_budget(body, "thinking_token_budget")?;
        let budget = budget.into_iter().chain(in_settings);
        let effort = settings
            .as_ref()
            .map(|settings| parse_effort(settings, "effort"));
        let chat = ValidChatRequest {
            model: body.label("model", MAX_LABEL_BYTES)?.map(str::to_owned),
            tools: toolbox.functions,
            tool_choice: choice,
            allowed_tools: allowed,
            strict_tools: toolbox.strict,
            parallel_tool_calls: body.flag("parallel_tool_calls", true)?,
            output_format: asked.format,
            format_is_binding: binding_format::of_response(body),
            constraint_paths: ConstraintPaths {
                tool_schema: "parameters",
                output_format: asked.path,
                ..ConstraintPaths::default()
            },
            sampling: parse_sampling(body, &included)?,
            stream: parse_stream(body)?,
            add_generation_prompt: !is_continued,
            continue_final_message: is_continued,
            reasoning_effort: effort.transpose()?.flatten(),
            reasoning_budget: budget.min(),
            priority: parse_priority(body)?,
            user: body.label("user", MAX_LABEL_BYTES)?.map(str::to_owned),
            ..ValidChatRequest::new(messages)
        };
        let echo = parse_echo(body, &chat, toolbox.echo)?;
        Ok(Self {
            chat,
            tools: toolbox.table,
            reasoning,
            echo,
        })
    }
}

fn check_available(body: &Fields<'_>) -> Result<(), ApiError> {
    for (name, explanation) in UNAVAILABLE {
        if body.get(name).is_some_and(unsupported::is_set) {
            return Err(body.unsupported(name, explanation));
        }
    }
    body.flag("store", false)?;
    match body.string("truncation")? {
        None | Some("auto" | "disabled") => {}
        Some(_) => return Err(body.invalid("truncation", "must be 'auto' or 'disabled'")),
    }
    unsupported::check(body)
}

fn parse_include<'a>(body: &Fields<'a>) -> Result<Vec<&'a str>, ApiError> {
    let elements = body.array("include", MAX_TOOLS)?.unwrap_or_default();
    let names = elements.iter().enumerate().map(|(index, value)| {
        let name = value.as_str().filter(|name| INCLUDABLE.contains(name));
        name.ok_or_else(|| {
            let requirement = format!("must be one of {}", INCLUDABLE.join(", "));
            ApiError::invalid_field(element("include", index), &requirement)
        })
    });
    names.collect()
}

/// Whether a summary is wanted, under its name or its older one.
fn parse_summary(reasoning: Option<&Fields<'_>>) -> Result<bool, ApiError> {
    let mut wanted = false;
    for name in ["summary", "generate_summary"] {
        match reasoning
            .map(|fields| fields.string(name))
            .transpose()?
            .flatten()
        {
            None | Some("none") => {}
            Some("auto" | "concise" | "detailed") => wanted = true,
            Some(_) => {
                let requirement = "must be 'auto', 'concise' or 'detailed'";
                return Err(ApiError::invalid_field(
                    format!("reasoning.{name}"),
                    requirement,
                ));
            }
        }
    }
    Ok(wanted)
}

/// What the text must look like, and the field that says so: `text.format`, or one of those that
/// other servers have for the same purpose.
fn parse_format(body: &Fields<'_>) -> Result<AskedFormat, ApiError> {
    let other = parse_output_format(body)?;
    let text = body.object("text")?;
    let format = text
        .map(|text| text.object("format"))
        .transpose()?
        .flatten();
    let Some(format) = format else {
        return Ok(other);
    };
    let kind = format.string("type")?;
    let asked = match kind.ok_or_else(|| format.missing("type"))? {
        "text" => return Ok(other),
        "json_object" => {
            let schema = json_field(&format, "schema", "text.format.schema")?;
            schema.unwrap_or(AskedFormat {
                format: OutputFormat::JsonObject,
                path: "text.format",
            })
        }
        "json_schema" => {
            // A schema that is not strict is enforced as well: that is one of the answers allowed.
            format.flag("strict", false)?;
            let schema = format.object("schema")?;
            let schema = schema.ok_or_else(|| format.missing("schema"))?;
            AskedFormat {
                format: OutputFormat::JsonSchema(Value::Object(schema.entries().clone())),
                path: "text.format.schema",
            }
        }
        _ => {
            let requirement = "must be 'text', 'json_object' or 'json_schema'";
            return Err(format.invalid("type", requirement));
        }
    };
    match other.format {
        OutputFormat::Text => Ok(asked),
        _ => {
            let requirement = "must not be set together with text.format";
            Err(ApiError::invalid_field(other.path, requirement))
        }
    }
}

fn parse_sampling(body: &Fields<'_>, included: &[&str]) -> Result<SamplingFields, ApiError> {
    let alternatives = body.unsigned("top_logprobs", 0..=MAX_TOP_LOGPROBS)?;
    let wants_logprobs = included.contains(&"message.output_text.logprobs");
    if wants_logprobs || alternatives.is_some_and(|count| count > 0) {
        let name = if wants_logprobs {
            "include"
        } else {
            "top_logprobs"
        };
        return Err(body.unsupported(name, "log-probabilities are not available here"));
    }
    let mut sampling = SamplingFields::parse(body, None)?;
    if sampling.choices > 1 {
        return Err(body.unsupported("n", "there is one answer to each request"));
    }
    sampling.max_tokens = body.unsigned("max_output_tokens", 1..=i32::MAX as u32)?;
    if let Some(max_tokens) = sampling.max_tokens
        && sampling.min_tokens > max_tokens
    {
        let requirement = "must not be greater than max_output_tokens";
        return Err(body.invalid("min_tokens", requirement));
    }
    Ok(sampling)
}

fn parse_echo(
    body: &Fields<'_>,
    chat: &ValidChatRequest,
    tools: Vec<Value>,
) -> Result<ResponseEcho, ApiError> {
    check_echo(body, &tools)?;
    let text = body.object("text")?;
    let format = text.and_then(|text| text.get("format").cloned());
    let format = format.unwrap_or_else(|| json!({"type": "text"}));
    let summary = body
        .object("reasoning")?
        .and_then(|fields| fields.get("summary").cloned());
    let label = |name| Ok(body.label(name, MAX_LABEL_BYTES)?.map(str::to_owned));
    Ok(ResponseEcho {
        instructions: body.string("instructions")?.map(str::to_owned),
        max_output_tokens: chat.sampling.max_tokens,
        temperature: chat.sampling.temperature,
        top_p: chat.sampling.top_p,
        top_logprobs: chat.sampling.logprobs.unwrap_or(0),
        tools,
        tool_choice: body
            .get("tool_choice")
            .cloned()
            .unwrap_or_else(|| "auto".into()),
        parallel_tool_calls: chat.parallel_tool_calls,
        text: json!({"format": format}),
        reasoning: json!({"effort": chat.reasoning_effort, "summary": summary}),
        metadata: parse_metadata(body)?,
        user: chat.user.clone(),
        prompt_cache_key: label("prompt_cache_key")?,
        safety_identifier: label("safety_identifier")?,
        truncation: "disabled",
        service_tier: "default",
        store: false,
        background: false,
        previous_response_id: None,
    })
}

/// Refuses settings that would take much memory as long as the answer takes.
fn check_echo(body: &Fields<'_>, tools: &[Value]) -> Result<(), ApiError> {
    const SETTINGS: [&str; 4] = ["instructions", "tool_choice", "text", "reasoning"];
    let mut bytes = tools.iter().map(memory_bytes).sum::<usize>();
    let mut largest = ("tools", bytes);
    for name in SETTINGS {
        let setting = body.get(name).map_or(0, memory_bytes);
        bytes += setting;
        if setting > largest.1 {
            largest = (name, setting);
        }
    }
    if bytes <= MAX_ECHO_BYTES {
        return Ok(());
    }
    let requirement = format!(
        "must, with the other settings that the answer repeats, take at most {MAX_ECHO_BYTES} \
         bytes of memory"
    );
    Err(body.invalid(largest.0, &requirement))
}

fn parse_metadata(body: &Fields<'_>) -> Result<Map<String, Value>, ApiError> {
    let Some(metadata) = body.object("metadata")? else {
        return Ok(Map::new());
    };
    let entries = metadata.entries();
    let fits = |(key, value): (&String, &Value)| {
        let length = value.as_str().map(str::len);
        key.len() <= MAX_METADATA_KEY_BYTES
            && length.is_some_and(|length| length <= MAX_METADATA_VALUE_BYTES)
    };
    if entries.len() <= MAX_METADATA_ENTRIES && entries.iter().all(fits) {
        return Ok(entries.clone());
    }
    let requirement = format!(
        "must have at most {MAX_METADATA_ENTRIES} entries with keys of at most \
         {MAX_METADATA_KEY_BYTES} bytes and strings of at most {MAX_METADATA_VALUE_BYTES}"
    );
    Err(body.invalid("metadata", &requirement))
}
