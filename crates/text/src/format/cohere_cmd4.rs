//! The output of Cohere's command-4 family (and command-3, which differs in the name of one tag).
//!
//! An answer is a sequence of sections between tags: thinking, then text or an action. Rules:
//!
//! - Text of a section is passed on exactly. A client that sends it back gets the same prompt,
//!   so that the prefix cache holds; trimming would break that.
//! - Text outside of all sections is content, unless it is white space alone, as models write
//!   between sections.
//! - A section also ends where the next one begins, and where the answer ends.
//! - Tags never show, not even those that make no sense where they stand. The one exception is a
//!   tag inside a JSON string of an action: a program about this very format may well write one
//!   to a file. Such a tag is data if more text follows it, and the end of an action with an
//!   unterminated string if not.

mod grammar;

use super::json_calls::{CallSyntax, JsonCalls};
use super::tags::{Piece, TagScanner};
use super::{ChatFormat, OutputParser, ParsedEvent, ParserOptions, ToolCalls, push_merged};
use crate::constraint::Opening;

pub(super) const FORMAT: ChatFormat = ChatFormat {
    id: "cohere_cmd4",
    models: "North Mini Code, Command A",
    calls: ToolCalls::Several,
    reasoning_opener: Some(START_THINKING),
    reasoning_closer: Some(END_THINKING),
    reasoning_end: Some(END_THINKING),
    marks_text: true,
    tags: TAGS,
    build: |options| Box::new(CohereCmd4::new(options)),
    layout: grammar::layout,
    parameters: None,
};

const START_THINKING: &str = "<|START_THINKING|>";
const END_THINKING: &str = "<|END_THINKING|>";
const START_TEXT: &str = "<|START_TEXT|>";
const END_TEXT: &str = "<|END_TEXT|>";
const START_RESPONSE: &str = "<|START_RESPONSE|>";
const END_RESPONSE: &str = "<|END_RESPONSE|>";
const START_ACTION: &str = "<|START_ACTION|>";
const END_ACTION: &str = "<|END_ACTION|>";

const TAGS: &[&str] = &[
    START_THINKING,
    END_THINKING,
    START_TEXT,
    END_TEXT,
    START_RESPONSE,
    END_RESPONSE,
    START_ACTION,
    END_ACTION,
    // Marks of turns, which an answer should not contain; they are left out.
    "<|START_TOOL_RESULT|>",
    "<|END_TOOL_RESULT|>",
    "<|START_OF_TURN_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|SYSTEM_TOKEN|>",
    "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
];

const SYNTAX: CallSyntax = CallSyntax {
    name_key: "tool_name",
    argument_keys: &["parameters"],
    objects_in_sequence: false,
    offered_tools_only: false,
    short_ids: false,
    tags_are_text: false,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    /// Between sections; `blank` while only white space was seen.
    Outside {
        blank: bool,
    },
    Thinking,
    Text,
    Action,
}

#[derive(Debug)]
struct CohereCmd4 {
    scanner: TagScanner,
    sections: Sections,
}

/// What comes after the tags are found.
#[derive(Debug)]
struct Sections {
    section: Section,
    parse_tools: bool,
    actions: JsonCalls,
    /// White space outside of sections, in case that text follows it.
    blank: String,
}

impl CohereCmd4 {
    fn new(options: ParserOptions) -> Self {
        let section = match options.opening {
            Opening::Reasoning => Section::Thinking,
            Opening::Text => Section::Text,
            Opening::Turn | Opening::ReasoningClosed => Section::Outside { blank: true },
        };
        Self {
            scanner: TagScanner::new(TAGS),
            sections: Sections {
                section,
                parse_tools: options.parse_tools,
                actions: JsonCalls::new(&SYNTAX, &options),
                blank: String::new(),
            },
        }
    }
}

impl OutputParser for CohereCmd4 {
    fn push(&mut self, text: &str) -> Vec<ParsedEvent> {
        let mut events = Vec::new();
        self.scanner.push(text, |piece| match piece {
            Piece::Text(text) => self.sections.text(text, &mut events),
            Piece::Tag(tag) => self.sections.tag(tag, &mut events),
        });
        events
    }

    fn finish(&mut self) -> Vec<ParsedEvent> {
        let mut events = Vec::new();
        let rest = self.scanner.finish();
        // A tag that was cut off is nothing that JSON could go on with.
        if !rest.is_empty() && !self.sections.in_action_syntax() {
            self.sections.text(&rest, &mut events);
        }
        self.sections.leave(false, &mut events);
        events
    }

    fn in_reasoning(&self) -> bool {
        self.sections.section == Section::Thinking
    }

    fn tags(&self) -> &'static [&'static str] {
        TAGS
    }
}

impl Sections {
    fn in_action_syntax(&self) -> bool {
        self.section == Section::Action && self.parse_tools && !self.actions.in_string()
    }

    fn tag(&mut self, tag: &'static str, events: &mut Vec<ParsedEvent>) {
        if self.section == Section::Action && self.actions.in_string() {
            self.actions.push_quoted_tag(tag);
            return;
        }
        let next = match tag {
            START_THINKING => Section::Thinking,
            START_TEXT | START_RESPONSE => Section::Text,
            START_ACTION => Section::Action,
            END_THINKING | END_TEXT | END_RESPONSE | END_ACTION => Section::Outside { blank: true },
            _ => return,
        };
        self.leave(true, events);
        self.section = next;
    }

    fn text(&mut self, text: &str, events: &mut Vec<ParsedEvent>) {
        match self.section {
            Section::Thinking => push_merged(events, ParsedEvent::ReasoningDelta(text.to_owned())),
            Section::Action if self.parse_tools => {
                self.actions.push(text, events);
            }
            Section::Outside { blank: true } => {
                self.blank.push_str(text);
                if !text.trim().is_empty() {
                    self.section = Section::Outside { blank: false };
                    let text = std::mem::take(&mut self.blank);
                    push_merged(events, ParsedEvent::ContentDelta(text));
                }
            }
            Section::Outside { blank: false } | Section::Text | Section::Action => {
                push_merged(events, ParsedEvent::ContentDelta(text.to_owned()));
            }
        }
    }

    /// Ends the section; `closed` if by a tag.
    fn leave(&mut self, closed: bool, events: &mut Vec<ParsedEvent>) {
        if self.section == Section::Action {
            self.actions.end(closed, events);
        }
        self.blank.clear();
        self.section = Section::Outside { blank: true };
    }
}

#[cfg(test)]
mod tests;
