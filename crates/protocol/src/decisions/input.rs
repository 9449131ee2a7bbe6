//! What questions are about, as one text: messages, calls and their results each become a paragraph
//! that begins with whose it is, unless there is but one message of the user's.

use serde_json::Value;

use crate::error::ApiError;
use crate::fields::{Fields, element};
use crate::limits::{MAX_CONTENT_PARTS, MAX_MESSAGES};

const ROLES: [&str; 4] = ["user", "developer", "system", "assistant"];

/// The text of the field `input`.
pub(super) fn parse(body: &Fields<'_>) -> Result<String, ApiError> {
    const NAME: &str = "input";
    let items = match body.get(NAME) {
        None => return Err(body.missing(NAME)),
        Some(Value::String(text)) => return Ok(text.clone()),
        Some(_) => body.array(NAME, MAX_MESSAGES)?.unwrap_or_default(),
    };
    let paragraphs = items.iter().enumerate().map(|(index, value)| {
        let item = Fields::of_value(value, element(NAME, index))?;
        parse_item(&item)
    });
    let paragraphs = paragraphs.collect::<Result<Vec<_>, ApiError>>()?;
    match paragraphs.as_slice() {
        [] => Err(body.invalid(NAME, "must not be empty")),
        [(whose, text)] if whose == "user" => Ok(text.clone()),
        all => {
            let all = all.iter().map(|(whose, text)| format!("{whose}: {text}"));
            Ok(all.collect::<Vec<_>>().join("\n\n"))
        }
    }
}

/// Whose it is, and what it says.
fn parse_item(item: &Fields<'_>) -> Result<(String, String), ApiError> {
    match item.string("type")?.unwrap_or("message") {
        "message" => match item.string("role")? {
            Some(role) if ROLES.contains(&role) => {
                Ok((role.to_owned(), parse_text(item, "content")?))
            }
            _ => {
                let requirement = format!("must be one of {}", ROLES.join(", "));
                Err(item.invalid("role", &requirement))
            }
        },
        "function_call" => parse_call(item, "arguments"),
        "custom_tool_call" => parse_call(item, "input"),
        "function_call_output" | "custom_tool_call_output" => {
            Ok(("result".to_owned(), parse_text(item, "output")?))
        }
        _ => Err(item.unsupported("type", "this kind of item is not available")),
    }
}

fn parse_call(item: &Fields<'_>, arguments: &str) -> Result<(String, String), ApiError> {
    let required = |name| item.string(name)?.ok_or_else(|| item.missing(name));
    let whose = format!("assistant calls {}", required("name")?);
    Ok((whose, required(arguments)?.to_owned()))
}

/// A field that holds a text, or parts of one.
pub(super) fn parse_text(fields: &Fields<'_>, name: &str) -> Result<String, ApiError> {
    let parts = match fields.get(name) {
        None => return Err(fields.missing(name)),
        Some(Value::String(text)) => return Ok(text.clone()),
        Some(_) => fields.array(name, MAX_CONTENT_PARTS)?.unwrap_or_default(),
    };
    let path = fields.path(name);
    let texts = parts.iter().enumerate().map(|(index, value)| {
        let part = Fields::of_value(value, element(&path, index))?;
        parse_part(&part)
    });
    Ok(texts.collect::<Result<Vec<_>, ApiError>>()?.join("\n"))
}

fn parse_part(part: &Fields<'_>) -> Result<String, ApiError> {
    let required = |name| {
        let text = part.string(name)?;
        text.map(str::to_owned).ok_or_else(|| part.missing(name))
    };
    match part.string("type")? {
        Some("input_text" | "output_text" | "text") => required("text"),
        Some("refusal") => required("refusal"),
        Some("input_json") => match part.get("data") {
            Some(data @ (Value::Object(_) | Value::Array(_))) => Ok(data.to_string()),
            _ => Err(part.invalid("data", "must be an object or an array")),
        },
        Some("input_image") => Err(part.unsupported("type", "images are not available")),
        Some(_) => Err(part.unsupported("type", "only texts and JSON are available")),
        None => Err(part.missing("type")),
    }
}
