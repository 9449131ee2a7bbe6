//! The output of Hermes, Qwen2.5 and Qwen3: `<think>…</think>`, then text and calls, each as JSON
//! `{"name": …, "arguments": …}` between `<tool_call>` and `</tool_call>`. `chatml` is the same
//! for models with that template and without tools.

use super::json_calls::{CallSyntax, JsonCalls};
use super::layout::{Layout, TextAndCalls};
use super::tagged::{CallReader, Markup, Tagged};
use super::{ChatFormat, ParsedEvent, ParserOptions, ToolCalls};
use crate::constraint::{AnswerShape, CallShape, CallableTool, literal};

pub(super) const FORMAT: ChatFormat = ChatFormat {
    id: "hermes",
    models: "Qwen2.5, Qwen3, Hermes",
    calls: ToolCalls::Several,
    reasoning_opener: Some(THINK),
    reasoning_closer: Some(END_THINK),
    reasoning_end: Some("\n</think>"),
    marks_text: false,
    tags: TAGS,
    build: |options| Box::new(Tagged::new(&MARKUP, &options, Hermes::new(&options))),
    layout,
    parameters: None,
};

pub(super) const CHATML: ChatFormat = ChatFormat {
    id: "chatml",
    models: "SmolLM2 and others with `<|im_start|>`",
    calls: ToolCalls::None,
    tags: &[THINK, END_THINK],
    build: |options| {
        let options = ParserOptions {
            parse_tools: false,
            ..options
        };
        Box::new(Tagged::new(
            &MARKUP_WITHOUT_TOOLS,
            &options,
            Hermes::new(&options),
        ))
    },
    ..FORMAT
};

const THINK: &str = "<think>";
const END_THINK: &str = "</think>";
const TOOL_CALL: &str = "<tool_call>";
const END_TOOL_CALL: &str = "</tool_call>";

const TAGS: &[&str] = &[THINK, END_THINK, TOOL_CALL, END_TOOL_CALL];

const MARKUP: Markup = Markup {
    reasoning: Some((THINK, END_THINK)),
    tags: TAGS,
    control_tokens: false,
    trims_lines: true,
};

const MARKUP_WITHOUT_TOOLS: Markup = Markup {
    tags: CHATML.tags,
    ..MARKUP
};

const SYNTAX: CallSyntax = CallSyntax {
    name_key: "name",
    argument_keys: &["arguments", "parameters"],
    objects_in_sequence: true,
    offered_tools_only: false,
    short_ids: false,
    tags_are_text: true,
};

struct Hermes {
    calls: JsonCalls,
    open: bool,
}

impl Hermes {
    fn new(options: &ParserOptions) -> Self {
        Self {
            calls: JsonCalls::new(&SYNTAX, options),
            open: false,
        }
    }
}

impl CallReader for Hermes {
    fn is_open(&self) -> bool {
        self.open
    }

    fn holds_data(&self) -> bool {
        self.calls.in_string()
    }

    fn tag(&mut self, tag: &'static str, events: &mut Vec<ParsedEvent>) -> bool {
        if self.open && self.calls.in_string() {
            self.calls.push_quoted_tag(tag);
            return true;
        }
        match tag {
            TOOL_CALL | END_TOOL_CALL if self.open => self.calls.end(true, events),
            TOOL_CALL => self.calls.begin(),
            _ => return false,
        }
        self.open = tag == TOOL_CALL;
        true
    }

    fn text<'a>(&mut self, text: &'a str, events: &mut Vec<ParsedEvent>) -> &'a str {
        self.calls.push(text, events);
        ""
    }

    fn finish(&mut self, events: &mut Vec<ParsedEvent>) {
        self.calls.end(false, events);
        self.open = false;
    }
}

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
    let (open, close) = (layout.tag(TOOL_CALL), layout.tag(END_TOOL_CALL));
    let more = match calls.parallel {
        true => format!("({} {open} call)*", literal("\n")),
        false => String::new(),
    };
    let tools: Vec<String> = calls.tools.iter().map(tool).collect();
    format!(
        "calls: call {more}\ncall: {} tool {} {close}\ntool: {}\n",
        literal("\n{\"name\": "),
        literal("}\n"),
        tools.join("\n  | ")
    )
}

fn tool(tool: &CallableTool) -> String {
    let opening = format!("{}, \"arguments\": ", literal(&tool.name));
    format!("{} @{}", literal(&opening), tool.grammar_name())
}

#[cfg(test)]
mod tests;
