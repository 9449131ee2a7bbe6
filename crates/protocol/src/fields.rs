//! Reading one JSON object field by field, with errors that name the field and what it allows.
//!
//! `null` is absence everywhere, and fields that nobody reads are ignored.

use std::ops::RangeInclusive;

use backstop_input::{JsonError, VALUE_BYTES, ValueAllowance};
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::limits::{MAX_CHAT_JSON_VALUES, MAX_JSON_VALUES, MAX_TOKEN_NUMBER};

/// The largest magnitude up to which a float holds every integer.
const MAX_INTEGRAL_FLOAT: f64 = 9_007_199_254_740_992.0;

/// One object of the request and its dotted path, which is empty for the body itself.
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

/// A body that may hold token ids, as a JSON value.
pub(crate) fn parse_body(body: &[u8]) -> Result<Value, ApiError> {
    parse_limited(body, MAX_JSON_VALUES)
}

/// A body that holds a conversation, as a JSON value.
pub(crate) fn parse_chat_body(body: &[u8]) -> Result<Value, ApiError> {
    parse_limited(body, MAX_CHAT_JSON_VALUES)
}

fn parse_limited(body: &[u8], values_max: usize) -> Result<Value, ApiError> {
    let parsed = ValueAllowance::new(values_max).parse(body);
    parsed.map_err(|error| match error {
        JsonError::TooManyValues => ApiError::too_many_values(values_max),
        JsonError::Syntax(error) => ApiError::invalid_json(&error),
    })
}

/// Memory that a value takes, about.
pub(crate) fn memory_bytes(value: &Value) -> usize {
    let within = match value {
        Value::String(text) => text.len(),
        Value::Array(elements) => elements.iter().map(memory_bytes).sum(),
        Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| VALUE_BYTES + key.len() + memory_bytes(value))
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    VALUE_BYTES + within
}

/// The path of element `index` of the array at `path`.
pub(crate) fn element(path: &str, index: usize) -> String {
    format!("{path}.{index}")
}

/// `value` as an integer; an integral float such as 5.0 counts as one.
pub(crate) fn as_integer(value: &Value) -> Option<i64> {
    if let Some(integer) = value.as_i64() {
        return Some(integer);
    }
    let float = value.as_f64()?;
    (value.is_f64() && float.fract() == 0.0 && float.abs() <= MAX_INTEGRAL_FLOAT)
        .then_some(float as i64)
}

/// `value` as a token id.
pub(crate) fn as_token_id(value: &Value) -> Option<u32> {
    let id = u32::try_from(as_integer(value)?).ok()?;
    (i64::from(id) <= MAX_TOKEN_NUMBER).then_some(id)
}

impl<'a> Fields<'a> {
    /// The body, which must be an object.
    pub(crate) fn of_body(body: &'a Value) -> Result<Self, ApiError> {
        let map = body.as_object().ok_or_else(ApiError::not_an_object)?;
        Ok(Self {
            map,
            path: String::new(),
        })
    }

    /// The value at `path`, which must be an object.
    pub(crate) fn of_value(value: &'a Value, path: String) -> Result<Self, ApiError> {
        match value.as_object() {
            Some(map) => Ok(Self { map, path }),
            None => Err(ApiError::invalid_field(path, "must be an object")),
        }
    }

    /// The dotted path of field `name`.
    pub(crate) fn path(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// A 400 that names field `name`.
    pub(crate) fn invalid(&self, name: &str, requirement: &str) -> ApiError {
        ApiError::invalid_field(self.path(name), requirement)
    }

    /// A 400 that names field `name` as something the server does not do.
    pub(crate) fn unsupported(&self, name: &str, explanation: &str) -> ApiError {
        ApiError::unsupported_field(self.path(name), explanation)
    }

    /// A 400 that names field `name` as missing.
    pub(crate) fn missing(&self, name: &str) -> ApiError {
        ApiError::missing_field(self.path(name))
    }

    /// The field, unless it is absent or null.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.invalid(name, "must be true or false")),
        }
    }

    /// A boolean that is `default` where it is absent.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, ApiError> {
        Ok(self.boolean(name)?.unwrap_or(default))
    }

    pub(crate) fn string(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.invalid(name, "must be a string")),
        }
    }

    /// A string of at most `bytes_max` bytes.
    pub(crate) fn label(&self, name: &str, bytes_max: usize) -> Result<Option<&'a str>, ApiError> {
        match self.string(name)? {
            Some(text) if text.len() > bytes_max => {
                Err(self.invalid(name, &format!("must have at most {bytes_max} bytes")))
            }
            other => Ok(other),
        }
    }

    pub(crate) fn integer(
        &self,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match as_integer(value) {
            Some(integer) if range.contains(&integer) => Ok(Some(integer)),
            _ => {
                let requirement = format!(
                    "must be an integer between {} and {}",
                    range.start(),
                    range.end()
                );
                Err(self.invalid(name, &requirement))
            }
        }
    }

    /// An integer whose range fits 32 bits without a sign.
    pub(crate) fn unsigned(
        &self,
        name: &str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, ApiError> {
        let wide = i64::from(*range.start())..=i64::from(*range.end());
        Ok(self
            .integer(name, wide)?
            .and_then(|integer| u32::try_from(integer).ok()))
    }

    pub(crate) fn number(
        &self,
        name: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(number) if range.contains(&number) => Ok(Some(number as f32)),
            _ => {
                let requirement = format!(
                    "must be a number between {} and {}",
                    range.start(),
                    range.end()
                );
                Err(self.invalid(name, &requirement))
            }
        }
    }

    /// An array of at most `length_max` elements.
    pub(crate) fn array(
        &self,
        name: &str,
        length_max: usize,
    ) -> Result<Option<&'a [Value]>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(elements)) if elements.len() <= length_max => Ok(Some(elements)),
            Some(Value::Array(_)) => {
                Err(self.invalid(name, &format!("must have at most {length_max} elements")))
            }
            Some(_) => Err(self.invalid(name, "must be an array")),
        }
    }

    pub(crate) fn object(&self, name: &str) -> Result<Option<Fields<'a>>, ApiError> {
        self.get(name)
            .map(|value| Fields::of_value(value, self.path(name)))
            .transpose()
    }

    /// The object's entries as they stand.
    pub(crate) fn entries(&self) -> &'a Map<String, Value> {
        self.map
    }
}
