//! The output of Qwen3-Coder: text and calls, each between `<tool_call>` and `</tool_call>` as
//! `<function=name>` with values on lines of their own between `<parameter=key>` and
//! `</parameter>`.
//!
//! Models leave the first tag out at times, so `<function=` alone begins a call of a tool that is
//! on offer. Within a value all is data but the tag that ends it.

use super::layout::{Layout, ParameterForm, TextAndCalls};
use super::parameters::ParameterCalls;
use super::tagged::{CallReader, Markup, Tagged};
use super::{ChatFormat, ParsedEvent, ParserOptions, ToolCalls, push_merged};
use crate::constraint::{AnswerShape, CallShape, literal};

pub(super) const FORMAT: ChatFormat = ChatFormat {
    id: "qwen3_coder",
    models: "Qwen3-Coder",
    calls: ToolCalls::Several,
    reasoning_opener: Some(THINK),
    reasoning_closer: Some(END_THINK),
    reasoning_end: Some("\n</think>"),
    marks_text: false,
    tags: TAGS,
    build: |options| Box::new(Tagged::new(&MARKUP, &options, Qwen3Coder::new(&options))),
    layout,
    parameters: Some(&PARAMETERS),
};

const THINK: &str = "<think>";
const END_THINK: &str = "</think>";
const TOOL_CALL: &str = "<tool_call>";
const END_TOOL_CALL: &str = "</tool_call>";
const FUNCTION: &str = "<function=";
const END_FUNCTION: &str = "</function>";
const PARAMETER: &str = "<parameter=";
const END_PARAMETER: &str = "</parameter>";

const TAGS: &[&str] = &[
    THINK,
    END_THINK,
    TOOL_CALL,
    END_TOOL_CALL,
    FUNCTION,
    END_FUNCTION,
    PARAMETER,
    END_PARAMETER,
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
    /// Inside `<tool_call>`, outside of a function.
    Block,
    FunctionName(String),
    /// Inside a function, outside of a parameter.
    Function,
    ParameterName(String),
    Value,
}

struct Qwen3Coder {
    calls: ParameterCalls,
    state: State,
    /// There was a `<tool_call>`.
    in_block: bool,
    /// Text that belongs nowhere was seen since the last tag.
    stray: bool,
}

impl Qwen3Coder {
    fn new(options: &ParserOptions) -> Self {
        Self {
            calls: ParameterCalls::new(options, true),
            state: State::Closed,
            in_block: false,
            stray: false,
        }
    }

    /// Ends the function, if there is one. A name that is not complete is text.
    fn end_function(&mut self, events: &mut Vec<ParsedEvent>) {
        self.give_up_name("", events);
        self.calls.end(true, events);
    }

    /// What stood after the beginning of a tag is no name.
    fn give_up_name(&mut self, after: &str, events: &mut Vec<ParsedEvent>) {
        let (tag, name, next) = match &self.state {
            State::FunctionName(name) if self.in_block => (FUNCTION, name, State::Block),
            State::FunctionName(name) => (FUNCTION, name, State::Closed),
            State::ParameterName(name) => (PARAMETER, name, State::Function),
            _ => return,
        };
        let text = format!("{tag}{name}{after}");
        push_merged(events, ParsedEvent::ContentDelta(text));
        self.state = next;
    }

    /// Takes text of a name, and returns what comes after it.
    fn name<'a>(&mut self, text: &'a str, events: &mut Vec<ParsedEvent>) -> &'a str {
        let is_function = matches!(self.state, State::FunctionName(_));
        let (State::FunctionName(name) | State::ParameterName(name)) = &mut self.state else {
            return text;
        };
        let Some(end) = text.find(['>', '<', '\n']) else {
            name.push_str(text);
            return "";
        };
        name.push_str(&text[..end]);
        let name = name.clone();
        let may_call = self.in_block || self.calls.is_offered(&name);
        if !text[end..].starts_with('>') || name.is_empty() {
            self.give_up_name("", events);
            return &text[end..];
        }
        match is_function {
            true if !may_call => self.give_up_name(">", events),
            true => {
                self.calls.begin(&name, events);
                self.state = State::Function;
            }
            false => {
                self.calls.begin_parameter(&name, events);
                self.state = State::Value;
            }
        }
        &text[end + 1..]
    }
}

impl CallReader for Qwen3Coder {
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
        self.stray = false;
        match (&self.state, tag) {
            (State::Value, END_PARAMETER) => {
                self.calls.end_parameter(events);
                self.state = State::Function;
            }
            (State::Function, PARAMETER) => self.state = State::ParameterName(String::new()),
            (State::Value, _) => return false,
            (_, THINK | END_THINK | PARAMETER | END_PARAMETER) => return false,
            (State::Closed, END_TOOL_CALL | END_FUNCTION) => return false,
            _ => {
                self.end_function(events);
                self.in_block = tag == TOOL_CALL || (self.in_block && tag != END_TOOL_CALL);
                self.state = match (tag, self.in_block) {
                    (FUNCTION, _) => State::FunctionName(String::new()),
                    (_, true) => State::Block,
                    (_, false) => State::Closed,
                };
            }
        }
        true
    }

    fn text<'a>(&mut self, text: &'a str, events: &mut Vec<ParsedEvent>) -> &'a str {
        let mut rest = text;
        while !rest.is_empty() {
            match self.state {
                State::Closed => return rest,
                State::Value => {
                    self.calls.push(rest, events);
                    return "";
                }
                State::FunctionName(_) | State::ParameterName(_) => rest = self.name(rest, events),
                // White space is layout.
                State::Block | State::Function => {
                    let text = if self.stray { rest } else { rest.trim_start() };
                    self.stray |= !text.is_empty();
                    push_merged(events, ParsedEvent::ContentDelta(text.to_owned()));
                    return "";
                }
            }
        }
        ""
    }

    fn finish(&mut self, events: &mut Vec<ParsedEvent>) {
        if !self.in_block && matches!(self.state, State::FunctionName(_)) {
            self.give_up_name("", events);
        }
        self.calls.end(false, events);
        self.state = State::Closed;
    }
}

const PARAMETERS: ParameterForm = ParameterForm {
    opener: PARAMETER,
    after_name: &[">\n"],
    before_end: "\n",
    end: END_PARAMETER,
    after_end: "\n",
    can_write: |name| !name.is_empty() && !name.contains(['<', '>', '\n']),
    names: "[^<>\\n]+",
};

fn layout(shape: &AnswerShape, layout: &Layout<'_>) -> Option<String> {
    let form = TextAndCalls {
        reasoning: Some((THINK, END_THINK)),
        call_opener: TOOL_CALL,
        calls: &|calls| call_rules(calls, layout),
    };
    form.rules(shape, layout)
}

/// Calls after the first opening tag, as templates write them.
fn call_rules(calls: &CallShape, layout: &Layout<'_>) -> String {
    let (open, function) = (layout.tag(TOOL_CALL), layout.tag(FUNCTION));
    let (end_function, close) = (layout.tag(END_FUNCTION), layout.tag(END_TOOL_CALL));
    let line = literal("\n");
    let more = match calls.parallel {
        true => format!("({line} {open} call)*"),
        false => String::new(),
    };
    let end = format!("{end_function} {line} {close}");
    let tools = Layout::tool_rule(calls, &literal(">\n"), &end);
    format!("calls: call {more}\ncall: {line} {function} tool\n{tools}")
}

#[cfg(test)]
mod tests;
