//! The output of GLM-4.5 and 4.6 (`glm45`) and of GLM-4.7 and 5 (`glm47`): `<think>…</think>`,
//! text, and calls, each between `<tool_call>` and `</tool_call>` as the name and, without quotes,
//! `<arg_key>…</arg_key>` and `<arg_value>…</arg_value>`. The older ones have line breaks between
//! the parts; both are read, whichever was asked for.

use super::layout::{Layout, ParameterForm, TextAndCalls};
use super::parameters::ParameterCalls;
use super::tagged::{CallReader, Markup, Tagged};
use super::{ChatFormat, ParsedEvent, ParserOptions, ToolCalls, push_merged};
use crate::constraint::{AnswerShape, CallShape, literal};

pub(super) const FORMAT: ChatFormat = ChatFormat {
    id: "glm45",
    models: "GLM-4.5 and 4.6",
    calls: ToolCalls::Several,
    reasoning_opener: Some(THINK),
    reasoning_closer: Some(END_THINK),
    reasoning_end: Some(END_THINK),
    marks_text: false,
    tags: TAGS,
    build: |options| Box::new(Tagged::new(&MARKUP, &options, Glm::new(&options))),
    layout: |shape, layout| rules(shape, layout, "\n"),
    parameters: Some(&LINES),
};

pub(super) const GLM47: ChatFormat = ChatFormat {
    id: "glm47",
    models: "GLM-4.7 and 5",
    parameters: Some(&NO_LINES),
    layout: |shape, layout| rules(shape, layout, ""),
    ..FORMAT
};

const THINK: &str = "<think>";
const END_THINK: &str = "</think>";
const TOOL_CALL: &str = "<tool_call>";
const END_TOOL_CALL: &str = "</tool_call>";
const KEY: &str = "<arg_key>";
const END_KEY: &str = "</arg_key>";
const VALUE: &str = "<arg_value>";
const END_VALUE: &str = "</arg_value>";

const TAGS: &[&str] = &[
    THINK,
    END_THINK,
    TOOL_CALL,
    END_TOOL_CALL,
    KEY,
    END_KEY,
    VALUE,
    END_VALUE,
];

const MARKUP: Markup = Markup {
    reasoning: Some((THINK, END_THINK)),
    tags: TAGS,
    control_tokens: false,
    trims_lines: true,
};

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Name(String),
    /// Inside a call, between its parts.
    Between,
    Key(String),
    /// After a key.
    BeforeValue(String),
    Value,
}

struct Glm {
    calls: ParameterCalls,
    state: State,
}

impl Glm {
    fn new(options: &ParserOptions) -> Self {
        Self {
            calls: ParameterCalls::new(options, false),
            state: State::Closed,
        }
    }

    /// The name is complete. One that cannot be a name is text.
    fn begin(&mut self, name: &str, events: &mut Vec<ParsedEvent>) -> bool {
        let is_name = !name.trim().is_empty() && !name.trim().contains(char::is_whitespace);
        match is_name {
            true => self.calls.begin(name.trim(), events),
            false => push_merged(events, ParsedEvent::ContentDelta(name.to_owned())),
        }
        is_name
    }
}

impl CallReader for Glm {
    fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    fn holds_data(&self) -> bool {
        self.state == State::Value
    }

    fn tag(&mut self, tag: &'static str, events: &mut Vec<ParsedEvent>) -> bool {
        if self.holds_data() && self.calls.in_string() {
            return false;
        }
        self.state = match (&self.state, tag) {
            (State::Closed, TOOL_CALL) => State::Name(String::new()),
            (State::Value, END_VALUE) => {
                self.calls.end_parameter(events);
                State::Between
            }
            (State::Closed | State::Value, _) => return false,
            (State::Name(name), KEY) => {
                let name = name.clone();
                match self.begin(&name, events) {
                    true => State::Key(String::new()),
                    false => State::Closed,
                }
            }
            (_, TOOL_CALL | END_TOOL_CALL) => {
                if let State::Name(name) = &self.state {
                    let name = name.clone();
                    self.begin(&name, events);
                }
                self.calls.end(true, events);
                match tag {
                    TOOL_CALL => State::Name(String::new()),
                    _ => State::Closed,
                }
            }
            (State::Between | State::BeforeValue(_), KEY) => State::Key(String::new()),
            (State::Key(key), END_KEY) => State::BeforeValue(key.clone()),
            (State::Key(key) | State::BeforeValue(key), VALUE) => {
                let key = key.trim().to_owned();
                self.calls.begin_parameter(&key, events);
                State::Value
            }
            _ => return true,
        };
        true
    }

    fn text<'a>(&mut self, text: &'a str, events: &mut Vec<ParsedEvent>) -> &'a str {
        match &mut self.state {
            State::Closed => return text,
            State::Name(held) | State::Key(held) => held.push_str(text),
            State::Value => self.calls.push(text, events),
            // White space; anything else is nothing that a model of this family writes.
            State::Between | State::BeforeValue(_) => {}
        }
        ""
    }

    fn finish(&mut self, events: &mut Vec<ParsedEvent>) {
        self.calls.end(false, events);
        self.state = State::Closed;
    }
}

const LINES: ParameterForm = ParameterForm {
    opener: KEY,
    after_name: &[END_KEY, "\n", VALUE],
    before_end: "",
    end: END_VALUE,
    after_end: "\n",
    can_write: |name| {
        !name.is_empty() && name.trim() == name && !TAGS.iter().any(|tag| name.contains(tag))
    },
    names: "[^<\\s]([^<\\n]*[^<\\s])?",
};

const NO_LINES: ParameterForm = ParameterForm {
    after_name: &[END_KEY, VALUE],
    after_end: "",
    ..LINES
};

/// `line` is what separates the parts.
fn rules(shape: &AnswerShape, layout: &Layout<'_>, line: &str) -> Option<String> {
    let form = TextAndCalls {
        reasoning: Some((THINK, END_THINK)),
        call_opener: TOOL_CALL,
        calls: &|calls| call_rules(calls, layout, &literal(line)),
    };
    form.rules(shape, layout)
}

/// Calls after the first opening tag, as templates write them.
fn call_rules(calls: &CallShape, layout: &Layout<'_>, line: &str) -> String {
    let (open, close) = (layout.tag(TOOL_CALL), layout.tag(END_TOOL_CALL));
    let more = match calls.parallel {
        true => format!("({line} {open} tool)*"),
        false => String::new(),
    };
    let tools = Layout::tool_rule(calls, line, &close);
    format!("calls: tool {more}\n{tools}")
}

#[cfg(test)]
mod tests;
