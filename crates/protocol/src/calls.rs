//! Calls of tools in a conversation, and what links them to their results.

use backstop_input::{JsonError, ValueAllowance};
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::fields::{Fields, element};
use crate::limits::{MAX_JSON_VALUES_IN_STRINGS, MAX_OPAQUE_BYTES, MAX_TOOL_CALLS};

/// What later messages need of earlier ones' calls.
pub(crate) struct CallHistory {
    /// What the arguments may still hold.
    allowance: ValueAllowance,
    /// The id of the latest call.
    latest: String,
    /// Calls that came without an id, so far.
    unnamed_calls: usize,
    /// How many of those have a result.
    unnamed_results: usize,
}

impl CallHistory {
    pub(crate) fn new() -> Self {
        Self {
            allowance: values_in_strings(),
            latest: String::from("call"),
            unnamed_calls: 0,
            unnamed_results: 0,
        }
    }

    /// A turn of the assistant begins: what was called before and has no result gets none any more.
    pub(crate) fn begin_turn(&mut self) {
        self.unnamed_results = self.unnamed_calls;
    }

    /// The id of a call, which gets one if it has none: some providers give none, and neither does
    /// the legacy form.
    pub(crate) fn id_of_call(&mut self, given: Option<&str>) -> String {
        let id = given.map_or_else(
            || {
                self.unnamed_calls += 1;
                format!("call_{}", self.unnamed_calls)
            },
            str::to_owned,
        );
        self.latest.clone_from(&id);
        id
    }

    /// The id of the call that a result belongs to: if it does not say, the first in its turn that
    /// has no id and no result, or else the latest.
    pub(crate) fn id_of_result(&mut self, given: Option<&str>) -> String {
        match given {
            Some(id) => id.to_owned(),
            None if self.unnamed_results < self.unnamed_calls => {
                self.unnamed_results += 1;
                format!("call_{}", self.unnamed_results)
            }
            None => self.latest.clone(),
        }
    }

    /// Arguments as a client sends them back: an object if they are one or are its JSON text, and
    /// whatever else they are as it is. A model can have written what is no object, or no JSON, and
    /// the next must see it.
    pub(crate) fn arguments(&self, call: &Fields<'_>, name: &str) -> Result<Value, ApiError> {
        let text = match call.get(name) {
            None => return Ok(Value::Object(Map::new())),
            Some(Value::String(text)) => text,
            Some(value) => return Ok(value.clone()),
        };
        let trimmed = text.trim_start();
        if trimmed.is_empty() {
            return Ok(Value::Object(Map::new()));
        }
        // Nothing but an object is wanted, and an array might be large.
        if !trimmed.starts_with('{') {
            return Ok(Value::String(text.to_owned()));
        }
        match self.allowance.parse(text.as_bytes()) {
            Ok(arguments) => Ok(arguments),
            Err(JsonError::Syntax(_)) => Ok(Value::String(text.to_owned())),
            Err(JsonError::TooManyValues) => {
                let requirement = format!(
                    "must, with the arguments of all other calls, have at most \
                     {MAX_JSON_VALUES_IN_STRINGS} JSON values and keys"
                );
                Err(call.invalid(name, &requirement))
            }
        }
    }

    /// The calls of an assistant's message, as `{"id", "type", "function": {"name", "arguments"}}`
    /// with `arguments` parsed, because chat templates render it as JSON.
    pub(crate) fn parse_calls(&mut self, message: &Fields<'_>) -> Result<Vec<Value>, ApiError> {
        let path = message.path("tool_calls");
        let elements = message
            .array("tool_calls", MAX_TOOL_CALLS)?
            .unwrap_or_default();
        self.begin_turn();
        let mut calls = Vec::with_capacity(elements.len());
        for (index, value) in elements.iter().enumerate() {
            calls.push(self.parse_call(&Fields::of_value(value, element(&path, index))?)?);
        }
        if let Some(function) = message.object("function_call")?
            && calls.is_empty()
        {
            let id = self.id_of_call(None);
            calls.push(self.parse_function(&id, &function)?);
        }
        Ok(calls)
    }

    fn parse_call(&mut self, call: &Fields<'_>) -> Result<Value, ApiError> {
        let id = self.id_of_call(call.label("id", MAX_OPAQUE_BYTES)?);
        if let Some(function) = call.object("function")? {
            return self.parse_function(&id, &function);
        }
        match call.string("type")? {
            None | Some("function") => Err(call.missing("function")),
            // A tool that takes a text.
            Some("custom") => {
                let custom = call
                    .object("custom")?
                    .ok_or_else(|| call.missing("custom"))?;
                let input = custom.string("input")?.unwrap_or_default();
                Ok(function_call(
                    &id,
                    name_of(&custom)?,
                    json!({"input": input}),
                ))
            }
            // A tool of another provider, by its kind.
            Some(kind) => {
                let arguments = call.get(kind).cloned().unwrap_or_else(|| json!({}));
                Ok(function_call(&id, kind, arguments))
            }
        }
    }

    /// The name is not checked against the tools: the history may speak of tools that this request
    /// no longer offers.
    fn parse_function(&self, id: &str, function: &Fields<'_>) -> Result<Value, ApiError> {
        let arguments = self.arguments(function, "arguments")?;
        Ok(function_call(id, name_of(function)?, arguments))
    }
}

fn name_of<'a>(function: &Fields<'a>) -> Result<&'a str, ApiError> {
    let name = function.label("name", MAX_OPAQUE_BYTES)?;
    name.ok_or_else(|| function.missing("name"))
}

/// A call as chat templates read it.
pub(crate) fn function_call(id: &str, name: &str, arguments: Value) -> Value {
    json!({
        "id": id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    })
}

/// What all JSON texts in the strings of one conversation may hold together.
pub(crate) fn values_in_strings() -> ValueAllowance {
    ValueAllowance::new(MAX_JSON_VALUES_IN_STRINGS)
}
