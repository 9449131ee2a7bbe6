//! The output of Kimi K2: `<think>…</think>` (of the thinking models), text, and calls, each
//! `<|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{…}<|tool_call_end|>`, between
//! `<|tool_calls_section_begin|>` and `<|tool_calls_section_end|>`.
//!
//! What stands before the arguments is the call's id, numbered over the conversation. Templates
//! write the ids of earlier calls as the client sends them, so the model's own are kept.

use super::json_calls::{CallSyntax, JsonCalls};
use super::layout::{Layout, TextAndCalls};
use super::tagged::{CallReader, Markup, Tagged};
use super::{ChatFormat, ParsedEvent, ParserOptions, ToolCalls, push_merged};
use crate::constraint::{AnswerShape, CallShape, CallableTool, literal};

pub(super) const FORMAT: ChatFormat = ChatFormat {
    id: "kimi_k2",
    models: "Kimi K2",
    calls: ToolCalls::Several,
    reasoning_opener: Some(THINK),
    reasoning_closer: Some(END_THINK),
    reasoning_end: Some(END_THINK),
    marks_text: false,
    tags: TAGS,
    build: |options| Box::new(Tagged::new(&MARKUP, &options, Kimi::new(&options))),
    layout,
    parameters: None,
};

const THINK: &str = "<think>";
const END_THINK: &str = "</think>";
const SECTION: &str = "<|tool_calls_section_begin|>";
const END_SECTION: &str = "<|tool_calls_section_end|>";
const CALL: &str = "<|tool_call_begin|>";
const ARGUMENTS: &str = "<|tool_call_argument_begin|>";
const END_CALL: &str = "<|tool_call_end|>";

const TAGS: &[&str] = &[
    THINK,
    END_THINK,
    SECTION,
    END_SECTION,
    CALL,
    ARGUMENTS,
    END_CALL,
];

const MARKUP: Markup = Markup {
    reasoning: Some((THINK, END_THINK)),
    tags: TAGS,
    control_tokens: true,
    trims_lines: false,
};

const SYNTAX: CallSyntax = CallSyntax {
    name_key: "name",
    argument_keys: &["arguments"],
    objects_in_sequence: false,
    offered_tools_only: false,
    short_ids: false,
    tags_are_text: false,
};

/// What the names of tools stand behind.
const FUNCTIONS: &str = "functions.";

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Closed,
    /// Between calls.
    Block,
    Id(String),
    Arguments,
}

struct Kimi {
    calls: JsonCalls,
    state: State,
}

impl Kimi {
    fn new(options: &ParserOptions) -> Self {
        Self {
            calls: JsonCalls::new(&SYNTAX, options),
            state: State::Closed,
        }
    }

    /// Ends the call: one that never came to its arguments is text.
    fn end_call(&mut self, events: &mut Vec<ParsedEvent>) {
        match std::mem::replace(&mut self.state, State::Block) {
            State::Id(id) => push_merged(events, ParsedEvent::ContentDelta(id)),
            State::Arguments => self.calls.end(true, events),
            State::Closed | State::Block => {}
        }
    }
}

/// The name in an id such as `functions.name:0`.
fn name_of(id: &str) -> &str {
    let name = id.strip_prefix(FUNCTIONS).unwrap_or(id);
    match name.rsplit_once(':') {
        Some((name, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => name,
    }
}

impl CallReader for Kimi {
    fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    fn holds_data(&self) -> bool {
        self.state == State::Arguments && self.calls.in_string()
    }

    fn tag(&mut self, tag: &'static str, events: &mut Vec<ParsedEvent>) -> bool {
        if self.holds_data() {
            self.calls.push_quoted_tag(tag);
            return true;
        }
        match (tag, &self.state) {
            (ARGUMENTS, State::Id(id)) => {
                let id = id.trim();
                let (name, id) = (name_of(id).to_owned(), id.to_owned());
                self.calls.begin_arguments(name, Some(id));
                self.state = State::Arguments;
            }
            (SECTION, _) => self.end_call(events),
            (END_CALL, _) if self.is_open() => self.end_call(events),
            (CALL, _) => {
                self.end_call(events);
                self.state = State::Id(String::new());
            }
            (END_SECTION, _) if self.is_open() => {
                self.end_call(events);
                self.state = State::Closed;
            }
            _ => return false,
        }
        true
    }

    fn text<'a>(&mut self, text: &'a str, events: &mut Vec<ParsedEvent>) -> &'a str {
        match &mut self.state {
            State::Closed => return text,
            // White space; anything else is nothing that a model of this family writes.
            State::Block => {}
            State::Id(id) => id.push_str(text),
            State::Arguments => self.calls.push(text, events),
        }
        ""
    }

    fn finish(&mut self, events: &mut Vec<ParsedEvent>) {
        if self.state == State::Arguments {
            self.calls.end(false, events);
        }
        self.state = State::Closed;
    }
}

fn layout(shape: &AnswerShape, layout: &Layout<'_>) -> Option<String> {
    let form = TextAndCalls {
        reasoning: Some((THINK, END_THINK)),
        call_opener: SECTION,
        calls: &|calls| call_rules(calls, layout),
    };
    form.rules(shape, layout)
}

/// Calls after the first opening tag, as templates write them.
fn call_rules(calls: &CallShape, layout: &Layout<'_>) -> String {
    let arguments = layout.tag(ARGUMENTS);
    let tool = |tool: &CallableTool| {
        let name = literal(&format!("{FUNCTIONS}{}:", tool.name));
        format!("{name} CALL_NUMBER {arguments} @{}", tool.grammar_name())
    };
    let tools: Vec<String> = calls.tools.iter().map(tool).collect();
    format!(
        "calls: call{} {}\ncall: {} tool {}\ntool: {}\nCALL_NUMBER: /0|[1-9][0-9]{{0,4}}/\n",
        if calls.parallel { "+" } else { "" },
        layout.tag(END_SECTION),
        layout.tag(CALL),
        layout.tag(END_CALL),
        tools.join("\n  | ")
    )
}

#[cfg(test)]
mod tests;
