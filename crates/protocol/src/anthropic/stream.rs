//! The events of a streamed answer.

use serde::Serialize;

use super::response::{ContentBlock, Message, MessageUsage, MessagesStopReason};
use crate::error::ApiError;

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event<'a> {
    /// The first one.
    MessageStart {
        /// The answer, still empty.
        message: Message<'a>,
    },
    /// A block begins.
    ContentBlockStart {
        /// Its number.
        index: u32,
        /// The block, still empty.
        content_block: ContentBlock,
    },
    /// More of a block.
    ContentBlockDelta {
        /// Its number.
        index: u32,
        /// What is added.
        delta: BlockDelta<'a>,
    },
    /// A block is complete.
    ContentBlockStop {
        /// Its number.
        index: u32,
    },
    /// How the answer ended.
    MessageDelta {
        /// Why it ended.
        delta: MessageEnd<'a>,
        /// All counts, final.
        usage: MessageUsage,
    },
    /// The last one.
    MessageStop,
    /// Nothing happened, and the connection lives.
    Ping,
}

/// What is added to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BlockDelta<'a> {
    /// To its text.
    TextDelta {
        /// More text.
        text: &'a str,
    },
    /// To its reasoning.
    ThinkingDelta {
        /// More reasoning.
        thinking: &'a str,
    },
    /// Its signature.
    SignatureDelta {
        /// The whole signature.
        signature: &'static str,
    },
    /// To the JSON text of its arguments.
    InputJsonDelta {
        /// A piece of JSON text.
        partial_json: &'a str,
    },
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MessageEnd<'a> {
    /// Why.
    pub stop_reason: MessagesStopReason,
    /// The stop sequence that ended it.
    pub stop_sequence: Option<&'a str>,
}

impl Event<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
            Self::Ping => "ping",
        }
    }
}

/// An event as lines of a stream.
pub fn sse_event(event: &Event<'_>) -> String {
    match serde_json::to_string(event) {
        Ok(json) => format!("event: {}\ndata: {json}\n\n", event.name()),
        Err(_) => sse_anthropic_error(&ApiError::internal()),
    }
}

/// The event that ends a stream which failed after it began.
pub fn sse_anthropic_error(error: &ApiError) -> String {
    format!(
        "event: error\ndata: {}\n\n",
        error.to_anthropic_json_string(None)
    )
}
