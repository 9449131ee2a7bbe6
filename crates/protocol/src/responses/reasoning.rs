//! How reasoning travels: to the client, and back with the next request.
//!
//! Nothing is kept here between requests, so a client that wants its model to remember what it
//! thought must send it back. Some send back `content` or `summary`, others only the opaque
//! `encrypted_content`. That of this server is no secret: it is the text behind a marker.

use crate::error::ApiError;
use crate::fields::{Fields, element};
use crate::limits::MAX_CONTENT_PARTS;

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
pub(super) fn parse(item: &Fields<'_>) -> Result<String, ApiError> {
    let content = texts(item, "content")?;
    let summary = texts(item, "summary")?;
    let encrypted = item.string("encrypted_content")?.unwrap_or_default();
    let own = encrypted.strip_prefix(MARKER).unwrap_or_default();
    let found = [content.as_str(), own, summary.as_str()]
        .into_iter()
        .find(|text| !text.is_empty());
    Ok(found.unwrap_or_default().to_owned())
}

fn texts(item: &Fields<'_>, name: &str) -> Result<String, ApiError> {
    let path = item.path(name);
    let parts = item.array(name, MAX_CONTENT_PARTS)?.unwrap_or_default();
    let mut texts = Vec::with_capacity(parts.len());
    for (index, value) in parts.iter().enumerate() {
        let part = Fields::of_value(value, element(&path, index))?;
        texts.push(part.string("text")?.ok_or_else(|| part.missing("text"))?);
    }
    Ok(texts.join("\n"))
}
