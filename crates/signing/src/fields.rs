//! Fields of JSON documents, and how what stands in them is repeated in messages.

use serde_json::Value;

use crate::SignatureError;

/// Characters of foreign text that a message repeats.
const QUOTED_CHARACTERS_MAX: usize = 100;

/// A parsed document, with the name that messages call it by.
pub(crate) struct Document<'a> {
    pub(crate) name: &'static str,
    pub(crate) value: &'a Value,
}

impl<'a> Document<'a> {
    /// The text at this JSON pointer (RFC 6901).
    pub(crate) fn text(&self, pointer: &'static str) -> Result<&'a str, SignatureError> {
        self.find(pointer, Value::as_str)
    }

    /// The list at this JSON pointer.
    pub(crate) fn list(&self, pointer: &'static str) -> Result<&'a [Value], SignatureError> {
        self.find(pointer, |value| value.as_array().map(Vec::as_slice))
    }

    /// The list at this JSON pointer, or an empty one if nothing is there.
    pub(crate) fn list_if_any(&self, pointer: &'static str) -> Result<&'a [Value], SignatureError> {
        match self.value.pointer(pointer) {
            None | Some(Value::Null) => Ok(&[]),
            Some(_) => self.list(pointer),
        }
    }

    fn find<T>(
        &self,
        pointer: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<T, SignatureError> {
        let found = self.value.pointer(pointer).and_then(read);
        found.ok_or(SignatureError::Field {
            document: self.name,
            field: pointer,
        })
    }
}

/// Foreign text in quotation marks: not too much of it, and without control characters, which
/// terminals would obey.
pub(crate) fn quoted(text: &str) -> String {
    let start: String = text.chars().take(QUOTED_CHARACTERS_MAX).collect();
    let more = if start.len() < text.len() { "…" } else { "" };
    format!("{start:?}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_short_and_obeyed_by_no_terminal() {
        assert_eq!(quoted("a\u{1b}[2J\n"), r#""a\u{1b}[2J\n""#);
        assert_eq!(
            quoted(&"é".repeat(101)),
            format!("\"{}\"…", "é".repeat(100))
        );
    }
}
