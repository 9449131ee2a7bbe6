//! Brings messages into the shape that chat templates expect.

use serde_json::{Map, Value};

use super::TemplateError;

/// How a template wants the content of a message that has several parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentFormat {
    /// As one string: the texts of the parts are joined by newlines.
    String,
    /// As it came: the template understands both strings and lists of parts.
    Parts,
    /// As a list of parts always: the template does not understand strings.
    PartsOnly,
}

/// Normalises one message in place. What is not an object is left for the template to refuse.
pub(super) fn normalize(message: &mut Value, format: ContentFormat) -> Result<(), TemplateError> {
    let Some(message) = message.as_object_mut() else {
        return Ok(());
    };
    if let Some(calls) = message.get_mut("tool_calls").and_then(Value::as_array_mut) {
        for call in calls {
            if let Some(function) = call.get_mut("function").and_then(Value::as_object_mut) {
                normalize_arguments(function);
            }
        }
    }
    match message.get_mut("content") {
        Some(content) => normalize_content(content, format),
        None => Ok(()),
    }
}

/// Templates write arguments with `tojson`, so JSON text must be parsed or it is quoted twice.
/// Text that is no JSON (a client may well send back an answer that was cut off) stays a string.
fn normalize_arguments(function: &mut Map<String, Value>) {
    let parsed = match function.get("arguments") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(Value::String(text)) if text.trim().is_empty() => Value::Object(Map::new()),
        Some(Value::String(text)) => match serde_json::from_str(text) {
            Ok(parsed @ (Value::Object(_) | Value::Array(_))) => parsed,
            _ => return,
        },
        Some(_) => return,
    };
    function.insert("arguments".to_owned(), parsed);
}

fn normalize_content(content: &mut Value, format: ContentFormat) -> Result<(), TemplateError> {
    match (format, &*content) {
        (ContentFormat::String, Value::Array(parts)) => *content = Value::String(join(parts)?),
        (ContentFormat::PartsOnly, Value::String(text)) => {
            *content = serde_json::json!([{"type": "text", "text": text}]);
        }
        _ => {}
    }
    Ok(())
}

fn join(parts: &[Value]) -> Result<String, TemplateError> {
    let mut texts = Vec::with_capacity(parts.len());
    for part in parts {
        let text = part
            .as_str()
            .or_else(|| part.get("text").and_then(Value::as_str));
        let Some(text) = text else {
            let kind = part
                .get("type")
                .and_then(Value::as_str)
                .unwrap_or("unknown");
            return Err(TemplateError::UnsupportedContent(kind.to_owned()));
        };
        texts.push(text);
    }
    Ok(texts.join("\n"))
}
