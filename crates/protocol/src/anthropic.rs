//! The Messages API in Anthropic's shape: its requests as chat requests, its answers, its stream
//! and its errors.
//!
//! Accepted and ignored, among unknown fields: `cache_control` anywhere (prefixes are cached by
//! themselves), `service_tier`, `speed`, `inference_geo`, `diagnostics`, `context_management` (no
//! edit is applied), `citations` (none are made), and everything but `user_id` in `metadata`.

mod conversation;
mod error;
mod request;
mod response;
mod stream;
mod thinking;
mod tools;

pub use request::{ValidMessagesRequest, ValidTokenCountRequest};
pub use response::{ContentBlock, Message, MessageUsage, MessagesStopReason, THINKING_SIGNATURE};
pub use stream::{BlockDelta, Event, MessageEnd, sse_anthropic_error, sse_event};
pub use thinking::ThinkingDisplay;
