//! The output of DeepSeek V3 and R1 (`deepseek_v3`) and of V3.1 (`deepseek_v31`):
//! `<think>…</think>`, text, and calls between `<｜tool▁calls▁begin｜>` and `<｜tool▁calls▁end｜>`. V3
//! writes `function<｜tool▁sep｜>name` and the arguments in a fenced block, V3.1
//! `name<｜tool▁sep｜>{…}`; both are read, whichever was asked for.

use super::json_calls::{CallSyntax, JsonCalls};
use super::layout::{Layout, TextAndCalls};
use super::tagged::{CallReader, Markup, Tagged};
use super::{ChatFormat, ParsedEvent, ParserOptions, ToolCalls, push_merged};
use crate::constraint::{AnswerShape, CallShape, CallableTool, literal};

pub(super) const FORMAT: ChatFormat = ChatFormat {
    id: "deepseek_v3",
    models: "DeepSeek V3 and R1",
    calls: ToolCalls::Several,
    reasoning_opener: Some(THINK),
    reasoning_closer: Some(END_THINK),
    reasoning_end: Some(END_THINK),
    marks_text: false,
    tags: TAGS,
    build: |options| Box::new(Tagged::new(&MARKUP, &options, DeepSeek::new(&options))),
    layout: |shape, layout| rules(shape, layout, Generation::V3),
    parameters: None,
};

pub(super) const V31: ChatFormat = ChatFormat {
    id: "deepseek_v31",
    models: "DeepSeek V3.1",
    layout: |shape, layout| rules(shape, layout, Generation::V31),
    ..FORMAT
};

const THINK: &str = "<think>";
const END_THINK: &str = "</think>";
const CALLS: &str = "<｜tool▁calls▁begin｜>";
const END_CALLS: &str = "<｜tool▁calls▁end｜>";
const CALL: &str = "<｜tool▁call▁begin｜>";
const END_CALL: &str = "<｜tool▁call▁end｜>";
const SEPARATOR: &str = "<｜tool▁sep｜>";

const TAGS: &[&str] = &[
    THINK, END_THINK, CALLS, END_CALLS, CALL, END_CALL, SEPARATOR,
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

/// What V3 calls every tool.
const KIND: &str = "function";

#[derive(Clone, Copy, Debug)]
enum Generation {
    V3,
    V31,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Closed,
    /// Between calls.
    Block,
    /// Before the separator.
    Head(String),
    /// After it, before the arguments.
    Name(String, String),
    Arguments,
}

struct DeepSeek {
    calls: JsonCalls,
    state: State,
}

impl DeepSeek {
    fn new(options: &ParserOptions) -> Self {
        Self {
            calls: JsonCalls::new(&SYNTAX, options),
            state: State::Closed,
        }
    }

    /// Ends the call: one that never came to its arguments is text.
    fn end_call(&mut self, events: &mut Vec<ParsedEvent>) {
        let text = match std::mem::replace(&mut self.state, State::Block) {
            State::Head(head) => head,
            State::Name(head, rest) => {
                // A call of V3.1 without arguments.
                if head.trim() != KIND && !head.trim().is_empty() && rest.trim().is_empty() {
                    self.calls.begin_arguments(head.trim().to_owned(), None);
                    self.calls.end(true, events);
                    return;
                }
                head + &rest
            }
            State::Arguments => {
                self.calls.end(true, events);
                return;
            }
            State::Closed | State::Block => return,
        };
        push_merged(events, ParsedEvent::ContentDelta(text));
    }
}

impl CallReader for DeepSeek {
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
            (SEPARATOR, State::Head(head)) => {
                self.state = State::Name(head.clone(), String::new());
            }
            (CALLS | END_CALL, _) if tag == CALLS || self.is_open() => self.end_call(events),
            (CALL, _) => {
                self.end_call(events);
                self.state = State::Head(String::new());
            }
            (END_CALLS, _) if self.is_open() => {
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
            State::Head(head) => head.push_str(text),
            State::Arguments => self.calls.push(text, events),
            State::Name(head, rest) => match text.split_once('{') {
                None => rest.push_str(text),
                Some((end, _)) => {
                    rest.push_str(end);
                    let name = match head.trim() {
                        KIND if !rest.trim().is_empty() => rest.trim().lines().next(),
                        head => Some(head),
                    };
                    let name = name.unwrap_or_default().trim().to_owned();
                    self.calls.begin_arguments(name, None);
                    self.state = State::Arguments;
                    self.calls.push(&text[end.len()..], events);
                }
            },
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

fn rules(shape: &AnswerShape, layout: &Layout<'_>, generation: Generation) -> Option<String> {
    let form = TextAndCalls {
        reasoning: Some((THINK, END_THINK)),
        call_opener: CALLS,
        calls: &|calls| call_rules(calls, layout, generation),
    };
    form.rules(shape, layout)
}

/// Calls after the first opening tag, as templates write them.
fn call_rules(calls: &CallShape, layout: &Layout<'_>, generation: Generation) -> String {
    let (open, close, separator) = (
        layout.tag(CALL),
        layout.tag(END_CALL),
        layout.tag(SEPARATOR),
    );
    let tool = |tool: &CallableTool| match generation {
        Generation::V3 => {
            let opening = literal(&format!("{}\n```json\n", tool.name));
            let (kind, fence) = (literal(KIND), literal("\n```"));
            format!(
                "{kind} {separator} {opening} @{} {fence}",
                tool.grammar_name()
            )
        }
        Generation::V31 => {
            format!(
                "{} {separator} @{}",
                literal(&tool.name),
                tool.grammar_name()
            )
        }
    };
    let tools: Vec<String> = calls.tools.iter().map(tool).collect();
    let more = match (calls.parallel, generation) {
        (false, _) => String::new(),
        (true, Generation::V3) => format!("({} call)*", literal("\n")),
        (true, Generation::V31) => "call*".to_owned(),
    };
    format!(
        "calls: call {more} {}\ncall: {open} tool {close}\ntool: {}\n",
        layout.tag(END_CALLS),
        tools.join("\n  | ")
    )
}

#[cfg(test)]
mod tests;
