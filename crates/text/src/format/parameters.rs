//! Calls whose parameters stand between tags of their own, without quotes: turned into JSON.

use std::fmt::Write as _;

use serde::de::IgnoredAny;

use super::calls::CallReporter;
use super::json_prefix::JsonPrefix;
use super::{ParsedEvent, ParserOptions};
use crate::json_types::JsonTypes;

/// Writes the arguments of calls as JSON while their parameters arrive.
///
/// Strings are passed on as they come. What can be something else has to be complete: it is JSON
/// if it can be read as such and the schema does not ask for a string, and a string otherwise.
///
/// Where the schema allows arrays or objects, a tag inside one of their strings is data: a program
/// about chat formats may well be among them.
#[derive(Clone, Debug)]
pub(super) struct ParameterCalls {
    reporter: CallReporter,
    /// Values stand on lines of their own: the breaks around them are no part of them.
    on_own_lines: bool,
    /// The call under way.
    tool: Option<String>,
    /// Parameters of it so far.
    parameters: usize,
    types: JsonTypes,
    /// The value's first piece is still to come.
    at_start: bool,
    /// The value that is not passed on yet.
    value: String,
    /// Finds strings in the value; `None` where tags are never data.
    json: Option<JsonPrefix>,
}

impl ParameterCalls {
    pub(super) fn new(options: &ParserOptions, on_own_lines: bool) -> Self {
        Self {
            reporter: CallReporter::new(options),
            on_own_lines,
            tool: None,
            parameters: 0,
            types: JsonTypes::ANY,
            at_start: true,
            value: String::new(),
            json: None,
        }
    }

    /// Whether a tool is on offer; any may be where it is not known which are.
    pub(super) fn is_offered(&self, name: &str) -> bool {
        self.reporter.is_offered(name)
    }

    /// Begins a call.
    pub(super) fn begin(&mut self, name: &str, events: &mut Vec<ParsedEvent>) {
        self.tool = Some(name.to_owned());
        self.parameters = 0;
        self.reporter.start(name.to_owned(), None, events);
    }

    /// Begins a parameter of the call.
    pub(super) fn begin_parameter(&mut self, name: &str, events: &mut Vec<ParsedEvent>) {
        let tool = self.tool.as_deref().unwrap_or_default();
        self.types = self.reporter.parameter_types(tool, name);
        let holds_strings = self.types.has(JsonTypes::ARRAY) || self.types.has(JsonTypes::OBJECT);
        self.json = holds_strings.then(JsonPrefix::default);
        self.at_start = true;
        self.value.clear();
        let mut delta = if self.parameters == 0 { "{\"" } else { ", \"" }.to_owned();
        self.parameters += 1;
        escape(name, &mut delta);
        delta.push_str("\": ");
        if self.types == JsonTypes::STRING {
            delta.push('"');
        }
        self.reporter.arguments(delta, events);
    }

    /// Adds to the parameter's value.
    pub(super) fn push(&mut self, text: &str, events: &mut Vec<ParsedEvent>) {
        if text.is_empty() {
            return;
        }
        let begins = std::mem::take(&mut self.at_start) && self.on_own_lines;
        let text = if begins {
            text.strip_prefix('\n').unwrap_or(text)
        } else {
            text
        };
        if let Some(json) = &mut self.json {
            json.push(text);
        }
        self.value.push_str(text);
        if self.types == JsonTypes::STRING {
            // The last line break may be that before the end tag.
            let held = self.on_own_lines && self.value.ends_with('\n');
            let kept = self.value.split_off(self.value.len() - usize::from(held));
            self.write_string(events);
            self.value = kept;
        }
    }

    /// Whether the value so far ends inside a string of JSON, so that a tag is a part of it.
    pub(super) fn in_string(&self) -> bool {
        self.json.as_ref().is_some_and(JsonPrefix::in_string)
    }

    /// Ends the parameter.
    pub(super) fn end_parameter(&mut self, events: &mut Vec<ParsedEvent>) {
        if self.on_own_lines && self.value.ends_with('\n') {
            self.value.pop();
        }
        if self.types == JsonTypes::STRING {
            self.write_string(events);
            self.reporter.arguments("\"".to_owned(), events);
            return;
        }
        let value = std::mem::take(&mut self.value);
        let json = as_json(&value, self.types).unwrap_or_else(|| {
            let mut json = "\"".to_owned();
            escape(&value, &mut json);
            json + "\""
        });
        self.reporter.arguments(json, events);
    }

    /// Ends the call; `closed` if its end was marked, not just the end of the answer.
    pub(super) fn end(&mut self, closed: bool, events: &mut Vec<ParsedEvent>) {
        if self.tool.take().is_none() {
            return;
        }
        if closed {
            let rest = if self.parameters == 0 { "{}" } else { "}" };
            self.reporter.arguments(rest.to_owned(), events);
        }
        self.reporter.next();
    }

    fn write_string(&mut self, events: &mut Vec<ParsedEvent>) {
        let mut delta = String::with_capacity(self.value.len());
        escape(&self.value, &mut delta);
        self.value.clear();
        self.reporter.arguments(delta, events);
    }
}

/// The value as it stands, if it is JSON of a type that the schema allows. Templates write earlier
/// values as Python does, so models do too.
fn as_json(value: &str, types: JsonTypes) -> Option<String> {
    let value = value.trim();
    let json = match value {
        _ if types == JsonTypes::ANY => value,
        "True" => "true",
        "False" => "false",
        "None" => "null",
        _ => value,
    };
    // Numbers of any size are JSON.
    serde_json::from_str::<IgnoredAny>(json).ok()?;
    let found = JsonTypes::of_json(json);
    (found != JsonTypes::STRING && types.has(found)).then(|| json.to_owned())
}

/// Adds text as it stands in a JSON string.
fn escape(text: &str, json: &mut String) {
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            // Writing to a string cannot fail.
            _ if character < ' ' => drop(write!(json, "\\u{:04x}", u32::from(character))),
            _ => json.push(character),
        }
    }
}
