//! Answers of `POST /v1/messages`.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::response::Usage;

/// What stands where Anthropic signs its models' reasoning. It signs nothing: reasoning that a
/// client sends back is believed.
pub const THINKING_SIGNATURE: &str = "YmFja3N0b3A=";

/// A whole answer, or its beginning in a stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: &'a str,
    content: Vec<ContentBlock>,
    stop_reason: Option<MessagesStopReason>,
    stop_sequence: Option<&'a str>,
    usage: MessageUsage,
}

impl<'a> Message<'a> {
    /// An answer of which nothing is known but the prompt's usage.
    pub fn beginning(id: &'a str, model: &'a str, usage: MessageUsage) -> Self {
        Self {
            id,
            kind: "message",
            role: "assistant",
            model,
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage,
        }
    }

    /// The same answer at its end.
    pub fn ended(
        self,
        content: Vec<ContentBlock>,
        stop_reason: MessagesStopReason,
        stop_sequence: Option<&'a str>,
    ) -> Self {
        Self {
            content,
            stop_reason: Some(stop_reason),
            stop_sequence,
            ..self
        }
    }
}

/// One block of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContentBlock {
    /// Reasoning.
    Thinking {
        /// Its text, unless the request wanted it left out.
        thinking: String,
        /// [`THINKING_SIGNATURE`], or nothing at the beginning of a streamed block.
        signature: &'static str,
    },
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// A call of a tool.
    ToolUse {
        /// The call's id, `toolu_…`.
        id: String,
        /// The tool.
        name: String,
        /// The arguments.
        input: Map<String, Value>,
    },
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MessagesStopReason {
    /// The model ended it.
    EndTurn,
    /// It reached `max_tokens`.
    MaxTokens,
    /// One of the request's `stop_sequences` came up.
    StopSequence,
    /// The model called tools.
    ToolUse,
    /// The context was full before `max_tokens` was reached.
    ModelContextWindowExceeded,
}

/// Token counts. The prompt's are in three parts that add up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MessageUsage {
    input_tokens: u32,
    cache_creation_input_tokens: u32,
    cache_read_input_tokens: u32,
    output_tokens: u32,
    output_tokens_details: OutputTokensDetails,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct OutputTokensDetails {
    thinking_tokens: u32,
}

impl From<Usage> for MessageUsage {
    fn from(usage: Usage) -> Self {
        let cached = usage.cached_tokens();
        Self {
            input_tokens: usage.prompt_tokens().saturating_sub(cached),
            // Everything is put into the cache, and nobody is asked to pay for it.
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: cached,
            output_tokens: usage.completion_tokens(),
            output_tokens_details: OutputTokensDetails {
                thinking_tokens: usage.reasoning_tokens(),
            },
        }
    }
}
