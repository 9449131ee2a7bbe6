//! The answer: its items, and the object that holds them.

use serde::Serialize;
use serde_json::Value;

use super::events::PartKind;
use super::reasoning::{self, ReasoningForm};
use super::request::ResponseEcho;
use super::tools::{ToolKind, ToolOrigin};
use crate::error::ApiError;
use crate::response::{ResponseStamp, Usage};

/// How far an answer or one of its items has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// More is to come.
    InProgress,
    /// It is whole.
    Completed,
    /// It was cut off at `max_output_tokens` or where the context ended.
    Incomplete,
    /// The server failed; for answers only.
    Failed,
}

/// A part of a message or of reasoning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ItemPart {
    /// Text of a message.
    OutputText {
        /// The text.
        text: String,
        /// Citations, of which there are none.
        annotations: [(); 0],
        /// Log-probabilities, which are not reported.
        logprobs: [(); 0],
    },
    /// The model's reasoning.
    ReasoningText {
        /// The text.
        text: String,
    },
    /// The model's reasoning, for clients that asked for a summary.
    SummaryText {
        /// The text.
        text: String,
    },
}

impl ItemPart {
    /// A part of this kind.
    pub fn new(kind: PartKind, text: String) -> Self {
        match kind {
            PartKind::Text => Self::OutputText {
                text,
                annotations: [],
                logprobs: [],
            },
            PartKind::Reasoning => Self::ReasoningText { text },
            PartKind::Summary => Self::SummaryText { text },
        }
    }
}

/// One item of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputItem {
    /// What the model thought.
    Reasoning {
        /// Its id.
        id: String,
        /// The text, if a summary was asked for.
        summary: Vec<ItemPart>,
        /// The text otherwise.
        content: Vec<ItemPart>,
        /// The text in a form that comes back from clients, if it was asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        encrypted_content: Option<String>,
        /// Whether it is whole.
        status: Status,
    },
    /// What the model said.
    Message {
        /// Its id.
        id: String,
        /// Always the assistant.
        role: &'static str,
        /// One part, or none yet.
        content: Vec<ItemPart>,
        /// Whether it is whole.
        status: Status,
    },
    /// A call of a function.
    FunctionCall {
        /// The item's id.
        id: String,
        /// Links the call to its result.
        call_id: String,
        /// The function's name.
        name: String,
        /// The namespace that it is in.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        /// JSON text.
        arguments: String,
        /// Whether it is whole.
        status: Status,
    },
    /// A call of a tool that takes a text.
    CustomToolCall {
        /// The item's id.
        id: String,
        /// Links the call to its result.
        call_id: String,
        /// The tool's name.
        name: String,
        /// The namespace that it is in.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        /// The text.
        input: String,
        /// Whether it is whole.
        status: Status,
    },
    /// A search for tools that the client runs.
    ToolSearchCall {
        /// The item's id.
        id: String,
        /// Links the call to its result.
        call_id: String,
        /// Always the client.
        execution: &'static str,
        /// The arguments, parsed.
        arguments: Value,
        /// Whether it is whole.
        status: Status,
    },
}

impl OutputItem {
    /// A message that says `text`; one in progress shows nothing of it yet.
    pub fn message(id: String, text: String, status: Status) -> Self {
        Self::Message {
            id,
            role: "assistant",
            content: parts(PartKind::Text, text, status),
            status,
        }
    }

    /// Reasoning; when in progress it shows nothing of `text` yet.
    pub fn reasoning(id: String, text: String, form: ReasoningForm, status: Status) -> Self {
        let is_done = status != Status::InProgress;
        let encrypted_content =
            (form.with_encrypted_content && is_done).then(|| reasoning::encode(&text));
        let kind = PartKind::of_reasoning(form);
        let mut summary = parts(kind, text, status);
        let mut content = Vec::new();
        if kind == PartKind::Reasoning {
            content.append(&mut summary);
        }
        Self::Reasoning {
            id,
            summary,
            content,
            encrypted_content,
            status,
        }
    }

    /// A call of the tool `origin`. `arguments` is JSON text, which can have been cut off.
    pub fn call(
        id: String,
        call_id: String,
        origin: &ToolOrigin,
        arguments: String,
        status: Status,
    ) -> Self {
        let name = origin.name.clone();
        let namespace = origin.namespace.clone();
        match origin.kind {
            ToolKind::Function => Self::FunctionCall {
                id,
                call_id,
                name,
                namespace,
                arguments,
                status,
            },
            ToolKind::Custom => Self::CustomToolCall {
                id,
                call_id,
                name,
                namespace,
                input: custom_input(arguments),
                status,
            },
            ToolKind::Search => Self::ToolSearchCall {
                id,
                call_id,
                execution: "client",
                arguments: serde_json::from_str(&arguments).unwrap_or(Value::String(arguments)),
                status,
            },
        }
    }
}

fn parts(kind: PartKind, text: String, status: Status) -> Vec<ItemPart> {
    match status {
        Status::InProgress => Vec::new(),
        _ => vec![ItemPart::new(kind, text)],
    }
}

/// The text that the model wrote into the one parameter of a custom tool's function; all that it
/// wrote, if it did not keep to that form.
fn custom_input(arguments: String) -> String {
    match serde_json::from_str(&arguments) {
        Ok(Value::Object(mut entries)) => match entries.remove("input") {
            Some(Value::String(input)) => input,
            _ => arguments,
        },
        _ => arguments,
    }
}

/// The answer as far as it is known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResponseObject<'a> {
    id: &'a str,
    object: &'static str,
    created_at: u64,
    status: Status,
    error: Option<ResponseFailure>,
    incomplete_details: Option<IncompleteDetails>,
    model: &'a str,
    output: &'a [OutputItem],
    usage: Option<ResponseUsage>,
    #[serde(flatten)]
    echo: &'a ResponseEcho,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ResponseFailure {
    code: &'static str,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct IncompleteDetails {
    reason: &'static str,
}

/// Tokens in the words of the newer APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ResponseUsage {
    input_tokens: u32,
    input_tokens_details: InputTokensDetails,
    output_tokens: u32,
    output_tokens_details: OutputTokensDetails,
    total_tokens: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct InputTokensDetails {
    cached_tokens: u32,
    /// Nobody pays for what is written to the cache here.
    cache_write_tokens: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct OutputTokensDetails {
    reasoning_tokens: u32,
}

impl From<Usage> for ResponseUsage {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens(),
            input_tokens_details: InputTokensDetails {
                cached_tokens: usage.cached_tokens(),
                cache_write_tokens: 0,
            },
            output_tokens: usage.completion_tokens(),
            output_tokens_details: OutputTokensDetails {
                reasoning_tokens: usage.reasoning_tokens(),
            },
            total_tokens: usage
                .prompt_tokens()
                .saturating_add(usage.completion_tokens()),
        }
    }
}

impl ResponseObject<'_> {
    /// The event that ends a stream with this answer.
    pub(super) fn final_event(&self) -> &'static str {
        match self.status {
            Status::InProgress | Status::Completed => "response.completed",
            Status::Incomplete => "response.incomplete",
            Status::Failed => "response.failed",
        }
    }
}

/// Builds the answer to one request, at any point of its progress.
#[derive(Clone, Debug, PartialEq)]
pub struct ResponseBuilder {
    stamp: ResponseStamp,
    echo: ResponseEcho,
}

impl ResponseBuilder {
    /// A builder that stamps everything with `stamp`.
    pub fn new(stamp: ResponseStamp, echo: ResponseEcho) -> Self {
        Self { stamp, echo }
    }

    /// The answer before anything has been generated.
    pub fn begun(&self) -> ResponseObject<'_> {
        self.object(Status::InProgress, &[])
    }

    /// The whole answer. `status` is completed or incomplete.
    pub fn ended<'a>(
        &'a self,
        status: Status,
        output: &'a [OutputItem],
        usage: Usage,
    ) -> ResponseObject<'a> {
        let reason = "max_output_tokens";
        ResponseObject {
            incomplete_details: (status == Status::Incomplete)
                .then_some(IncompleteDetails { reason }),
            usage: Some(usage.into()),
            ..self.object(status, output)
        }
    }

    /// The answer of a server that failed when it had generated `output`.
    pub fn failed<'a>(&'a self, output: &'a [OutputItem], error: &ApiError) -> ResponseObject<'a> {
        ResponseObject {
            error: Some(failure(error)),
            ..self.object(Status::Failed, output)
        }
    }

    fn object<'a>(&'a self, status: Status, output: &'a [OutputItem]) -> ResponseObject<'a> {
        ResponseObject {
            id: &self.stamp.id,
            object: "response",
            created_at: self.stamp.created_s,
            status,
            error: None,
            incomplete_details: None,
            model: &self.stamp.model,
            output,
            usage: None,
            echo: &self.echo,
        }
    }
}

/// The error in the few codes of this API. Clients read the advice out of the message, for a
/// stream that has begun has no headers left.
fn failure(error: &ApiError) -> ResponseFailure {
    let code = match error.status {
        429 => "rate_limit_exceeded",
        400..=499 => error.code.unwrap_or("invalid_prompt"),
        _ => "server_error",
    };
    let message = match error.retry_after_s {
        Some(seconds) => format!("{} Please try again in {seconds}s.", error.message),
        None => error.message.clone(),
    };
    ResponseFailure { code, message }
}
