//! Whether the answer goes on with the last item: a message of the assistant's, or its reasoning.
//! As in vLLM it does if the item's `status` says that it is not complete, and also if the item says
//! `prefix` or the body `continue_final_message`, as in chats.

use serde_json::Value;

use crate::error::ApiError;
use crate::fields::{Fields, element};

const REQUIREMENT: &str = "needs a final item that is a message of the assistant's, or reasoning";

/// `messages` is the conversation that the items add up to.
pub(super) fn parse(body: &Fields<'_>, messages: &[Value]) -> Result<bool, ApiError> {
    let asked = body.flag("continue_final_message", false)?;
    let items = body.get("input").and_then(Value::as_array);
    let last = items.and_then(|items| items.iter().enumerate().next_back());
    let Some((index, item)) = last else {
        return match asked {
            true => Err(body.invalid("continue_final_message", REQUIREMENT)),
            false => Ok(false),
        };
    };
    let item = Fields::of_value(item, element("input", index))?;
    let is_own =
        item.string("type")? == Some("reasoning") || item.string("role")? == Some("assistant");
    // Reasoning that cannot be read here is no message.
    let is_open = messages.last().is_some_and(|message| {
        is_own && message["role"] == "assistant" && message.get("tool_calls").is_none()
    });
    let is_prefix = item.flag("prefix", false)?;
    if is_open {
        let status = item.string("status")?;
        let is_partial = matches!(status, Some("in_progress" | "incomplete"));
        return Ok(asked || is_prefix || is_partial);
    }
    match (is_prefix, asked) {
        (true, _) => Err(item.invalid("prefix", REQUIREMENT)),
        (false, true) => Err(body.invalid("continue_final_message", REQUIREMENT)),
        (false, false) => Ok(false),
    }
}
