//! The output of Llama 3.1 and 3.2: a call is an answer that is JSON alone, `{"name": …,
//! "parameters": …}`, or JSON after `<|python_tag|>`; several calls have semicolons between them.
//!
//! Nothing marks a call but its look, so JSON that names no tool on offer is text, and what begins
//! with anything but a brace is text from the beginning.

use super::json_calls::{CallSyntax, JsonCalls};
use super::layout::{ANY_TEXT, Layout};
use super::tags::{Piece, TagScanner};
use super::{ChatFormat, OutputParser, ParsedEvent, ParserOptions, ToolCalls, push_merged};
use crate::constraint::{AnswerShape, CallableTool, Opening, TextShape, literal};

pub(super) const FORMAT: ChatFormat = ChatFormat {
    id: "llama3_json",
    models: "Llama 3.1 to 3.3",
    calls: ToolCalls::One,
    reasoning_opener: None,
    reasoning_closer: None,
    reasoning_end: None,
    marks_text: false,
    tags: TAGS,
    build: |options| Box::new(Llama3Json::new(&options)),
    layout,
    parameters: None,
};

const PYTHON_TAG: &str = "<|python_tag|>";
const TAGS: &[&str] = &[PYTHON_TAG];

const SYNTAX: CallSyntax = CallSyntax {
    name_key: "name",
    argument_keys: &["parameters", "arguments"],
    objects_in_sequence: true,
    offered_tools_only: true,
    short_ids: false,
    tags_are_text: false,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    /// Nothing but white space was seen, which the calls hold.
    Start,
    Calls,
    Text,
}

#[derive(Debug)]
struct Llama3Json {
    scanner: TagScanner,
    parts: Parts,
}

#[derive(Debug)]
struct Parts {
    section: Section,
    parse_tools: bool,
    calls: JsonCalls,
    blank: String,
}

impl Llama3Json {
    fn new(options: &ParserOptions) -> Self {
        Self {
            scanner: TagScanner::new(TAGS),
            parts: Parts {
                section: match options.parse_tools && options.opening != Opening::Text {
                    true => Section::Start,
                    false => Section::Text,
                },
                parse_tools: options.parse_tools,
                calls: JsonCalls::new(&SYNTAX, options),
                blank: String::new(),
            },
        }
    }
}

impl OutputParser for Llama3Json {
    fn push(&mut self, text: &str) -> Vec<ParsedEvent> {
        let mut events = Vec::new();
        self.scanner.push(text, |piece| match piece {
            Piece::Text(text) => self.parts.text(text, &mut events),
            Piece::Tag(tag) => self.parts.tag(tag, &mut events),
        });
        events
    }

    fn finish(&mut self) -> Vec<ParsedEvent> {
        let mut events = Vec::new();
        let rest = self.scanner.finish();
        if !rest.is_empty()
            && (self.parts.section != Section::Calls || self.parts.calls.in_string())
        {
            self.parts.text(&rest, &mut events);
        }
        self.parts.calls.end(false, &mut events);
        let blank = std::mem::take(&mut self.parts.blank);
        push_merged(&mut events, ParsedEvent::ContentDelta(blank));
        events
    }

    fn in_reasoning(&self) -> bool {
        false
    }

    fn tags(&self) -> &'static [&'static str] {
        TAGS
    }
}

impl Parts {
    fn text(&mut self, text: &str, events: &mut Vec<ParsedEvent>) {
        match self.section {
            Section::Text => push_merged(events, ParsedEvent::ContentDelta(text.to_owned())),
            Section::Calls => self.calls.push(text, events),
            Section::Start => {
                self.blank.push_str(text);
                let Some(first) = self.blank.trim_start().chars().next() else {
                    return;
                };
                self.section = match first {
                    '{' => Section::Calls,
                    _ => Section::Text,
                };
                let text = std::mem::take(&mut self.blank);
                self.text(&text, events);
            }
        }
    }

    fn tag(&mut self, tag: &'static str, events: &mut Vec<ParsedEvent>) {
        if self.section == Section::Calls && self.calls.in_string() {
            self.calls.push_quoted_tag(tag);
        } else if self.parse_tools {
            self.calls.end(true, events);
            self.blank.clear();
            self.section = Section::Calls;
        }
    }
}

/// One call at most: the template refuses conversations with several in one answer.
fn layout(shape: &AnswerShape, layout: &Layout<'_>) -> Option<String> {
    let calls = shape.calls.as_ref();
    let calls = calls.filter(|_| shape.opening != Opening::Text);
    let mut rules = match (&shape.text, calls) {
        (None, None) => return None,
        (None, Some(_)) => "start: call\n".to_owned(),
        (Some(TextShape::Any), None) => format!("start: ANY_TEXT\n{ANY_TEXT}"),
        (Some(_), None) => "start: @text\n".to_owned(),
        (Some(TextShape::Any), Some(_)) => {
            // Text that begins like a call would be read as one.
            let tag = layout.tag(PYTHON_TAG);
            format!("start: TEXT | call | {tag} call\nTEXT: /(\\s*[^\\s\\{{](?s:.*))?/\n")
        }
        (Some(_), Some(_)) => format!("start: @text | {} call\n", layout.tag(PYTHON_TAG)),
    };
    if let Some(calls) = calls {
        let tools: Vec<String> = calls.tools.iter().map(tool).collect();
        let (open, close) = (literal("{\"name\": "), literal("}"));
        rules += &format!(
            "call: {open} tool {close}\ntool: {}\n",
            tools.join("\n  | ")
        );
    }
    Some(rules)
}

fn tool(tool: &CallableTool) -> String {
    let opening = format!("{}, \"parameters\": ", literal(&tool.name));
    format!("{} @{}", literal(&opening), tool.grammar_name())
}

#[cfg(test)]
mod tests;
