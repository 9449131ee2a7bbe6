//! How reasoning travels: to the client, and back with the next request.
//!
//! Nothing is kept here between requests, so a client that wants its model to remember what it
//! thought must send it back. Some send back `content` or `summary`, others only the opaque
//! `encrypted_content`. That of this server is no secret: it is the text behind a marker.

use serde_json::Value;

use crate::fields::Fields;
use crate::foreign;

/// Marks this server's `encrypted_content`, apart from that of whoever answered earlier turns.
const MARKER: &str = "backstop-reasoning-v1:";

/// How reasoning items show their text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReasoningForm {
    /// As the item's summary, which most clients display, instead of as its content. It is the
    /// reasoning itself all the same: there is nothing that could summarise it.
    pub as_summary: bool,
    /// In `encrypted_content` too, for clients that send back nothing else.
    pub with_encrypted_content: bool,
}

/// The `encrypted_content` that carries `text`.
pub(super) fn encode(text: &str) -> String {
    format!("{MARKER}{text}")
}

/// The text of a reasoning item that a client sent back; empty if it holds none that can be read
/// here, as when another provider wrote it.
pub(super) fn parse(item: &Fields<'_>) -> String {
    let words = |name: &str| item.get(name).map(foreign::words).unwrap_or_default();
    let encrypted = item.get("encrypted_content").and_then(Value::as_str);
    let own = encrypted.and_then(|text| text.strip_prefix(MARKER));
    let found = [
        words("content"),
        own.unwrap_or_default().to_owned(),
        words("summary"),
    ];
    let mut found = found.into_iter();
    found.find(|text| !text.is_empty()).unwrap_or_default()
}
