//! What the text of an answer must look like.

use serde_json::Value;

use crate::calls::values_in_strings;
use crate::error::ApiError;
use crate::fields::{Fields, element};
use crate::limits::{MAX_GRAMMAR_BYTES, MAX_GUIDED_CHOICES};
use crate::unsupported::is_set;

/// A constraint on the text of an answer. It binds the text alone, not the reasoning before it.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum OutputFormat {
    /// Anything.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that satisfies this schema.
    JsonSchema(Value),
    /// Text that matches this regular expression as a whole.
    Regex(String),
    /// One of these strings; at least one.
    Choice(Vec<String>),
    /// Text that this grammar derives, in llguidance's dialect of Lark.
    Grammar(String),
}

/// An output format, and the field that asks for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AskedFormat {
    pub(crate) format: OutputFormat,
    pub(crate) path: &'static str,
}

/// Reads `response_format`, and other servers' fields of the same purpose. At most one may be set.
pub(crate) fn parse_output_format(body: &Fields<'_>) -> Result<AskedFormat, ApiError> {
    let asked = [
        parse_response_format(body)?,
        parse_structured_outputs(body)?,
        json_field(body, "guided_json", "guided_json")?,
        text_field(body, "guided_regex", "guided_regex", OutputFormat::Regex)?,
        choice_field(body, "guided_choice", "guided_choice")?,
        text_field(
            body,
            "guided_grammar",
            "guided_grammar",
            OutputFormat::Grammar,
        )?,
        json_field(body, "json_schema", "json_schema")?,
        text_field(body, "regex", "regex", OutputFormat::Regex)?,
    ];
    only_one(asked.into_iter().flatten())
}

/// For endpoints whose answers are text of any form.
pub(crate) fn refuse_output_format(body: &Fields<'_>) -> Result<(), ApiError> {
    let asked = parse_output_format(body)?;
    match asked.format {
        OutputFormat::Text => Ok(()),
        _ => {
            let explanation = "constrained output is available for chats only";
            Err(ApiError::unsupported_field(asked.path, explanation))
        }
    }
}

fn only_one(mut asked: impl Iterator<Item = AskedFormat>) -> Result<AskedFormat, ApiError> {
    let Some(first) = asked.next() else {
        return Ok(AskedFormat {
            format: OutputFormat::Text,
            path: "response_format",
        });
    };
    match asked.next() {
        None => Ok(first),
        Some(second) => Err(ApiError::invalid_field(
            second.path,
            "must not be set together with another output format",
        )),
    }
}

fn parse_response_format(body: &Fields<'_>) -> Result<Option<AskedFormat>, ApiError> {
    const TYPES: &str = "must be 'text', 'json_object', 'json_schema' or 'regex'";
    let Some(format) = body.object("response_format")? else {
        return Ok(None);
    };
    let format = match format.string("type")? {
        None => return Err(format.missing("type")),
        Some("text") => return Ok(None),
        // With a schema beside it, it is what others call `json_schema`.
        Some("json_object" | "json") => {
            let schema = json_field(&format, "schema", "response_format.schema")?;
            let value = json_field(&format, "value", "response_format.value")?;
            schema.or(value).unwrap_or(AskedFormat {
                format: OutputFormat::JsonObject,
                path: "response_format",
            })
        }
        Some("regex") => {
            let text = |name, path| text_field(&format, name, path, OutputFormat::Regex);
            let pattern = text("pattern", "response_format.pattern")?;
            let value = text("value", "response_format.value")?;
            pattern.or(value).ok_or_else(|| format.missing("pattern"))?
        }
        Some("json_schema") => {
            let Some(holder) = format.object("json_schema")? else {
                let schema = json_field(&format, "schema", "response_format.schema")?;
                return match schema {
                    Some(schema) => Ok(Some(schema)),
                    None => Err(format.missing("json_schema")),
                };
            };
            holder.string("name")?;
            // A schema that is not strict is enforced as well: that is one of the answers allowed.
            holder.boolean("strict")?;
            let schema = holder
                .object("schema")?
                .ok_or_else(|| holder.missing("schema"))?;
            AskedFormat {
                format: OutputFormat::JsonSchema(Value::Object(schema.entries().clone())),
                path: "response_format.json_schema.schema",
            }
        }
        Some("structural_tag") => {
            return Err(format.unsupported("type", "structural tags are not available"));
        }
        Some("grammar") => {
            let explanation = "use 'structured_outputs.grammar', in Lark";
            return Err(format.unsupported("type", explanation));
        }
        Some(_) => return Err(format.invalid("type", TYPES)),
    };
    Ok(Some(format))
}

fn parse_structured_outputs(body: &Fields<'_>) -> Result<Option<AskedFormat>, ApiError> {
    let Some(fields) = body.object("structured_outputs")? else {
        return Ok(None);
    };
    if fields.get("structural_tag").is_some_and(is_set) {
        let explanation = "structural tags are not available";
        return Err(fields.unsupported("structural_tag", explanation));
    }
    let object = fields.flag("json_object", false)?.then_some(AskedFormat {
        format: OutputFormat::JsonObject,
        path: "structured_outputs.json_object",
    });
    let asked = [
        object,
        json_field(&fields, "json", "structured_outputs.json")?,
        text_field(
            &fields,
            "regex",
            "structured_outputs.regex",
            OutputFormat::Regex,
        )?,
        choice_field(&fields, "choice", "structured_outputs.choice")?,
        text_field(
            &fields,
            "grammar",
            "structured_outputs.grammar",
            OutputFormat::Grammar,
        )?,
    ];
    let asked = only_one(asked.into_iter().flatten())?;
    Ok(Some(asked).filter(|asked| asked.format != OutputFormat::Text))
}

/// A schema, as an object or written into a string.
pub(crate) fn json_field(
    fields: &Fields<'_>,
    name: &str,
    path: &'static str,
) -> Result<Option<AskedFormat>, ApiError> {
    const REQUIREMENT: &str = "must be a JSON schema: an object, or a string that holds one";
    let invalid = || fields.invalid(name, REQUIREMENT);
    let schema = match fields.get(name).filter(|value| is_set(value)) {
        None => return Ok(None),
        Some(Value::String(text)) => values_in_strings()
            .parse(text.as_bytes())
            .map_err(|_| invalid())?,
        Some(value) => value.clone(),
    };
    if !schema.is_object() {
        return Err(invalid());
    }
    let format = OutputFormat::JsonSchema(schema);
    Ok(Some(AskedFormat { format, path }))
}

fn text_field(
    fields: &Fields<'_>,
    name: &str,
    path: &'static str,
    format: fn(String) -> OutputFormat,
) -> Result<Option<AskedFormat>, ApiError> {
    let text = fields.label(name, MAX_GRAMMAR_BYTES)?;
    let text = text.filter(|text| !text.is_empty());
    Ok(text.map(|text| AskedFormat {
        format: format(text.to_owned()),
        path,
    }))
}

fn choice_field(
    fields: &Fields<'_>,
    name: &str,
    path: &'static str,
) -> Result<Option<AskedFormat>, ApiError> {
    let choices = fields.array(name, MAX_GUIDED_CHOICES)?.unwrap_or_default();
    let texts = choices.iter().enumerate().map(|(index, value)| {
        let invalid = || ApiError::invalid_field(element(path, index), "must be a string");
        value.as_str().map(str::to_owned).ok_or_else(invalid)
    });
    let texts = texts.collect::<Result<Vec<String>, ApiError>>()?;
    let format = OutputFormat::Choice(texts);
    Ok((!choices.is_empty()).then_some(AskedFormat { format, path }))
}
