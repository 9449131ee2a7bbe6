//! The output of gpt-oss: messages, each `<|channel|>…<|message|>…` up to `<|end|>`, `<|call|>`
//! or `<|return|>`, the next after `<|start|>assistant`. The channel `analysis` is reasoning;
//! `final` is content, and so is `commentary` (what the model says to the user between calls); a
//! message `to=functions.name` is a call.
//!
//! Visible messages after each other are set apart by a line break, which the model leaves to the
//! tags. The tags are control tokens and never show.

use super::json_calls::{CallSyntax, JsonCalls};
use super::layout::{ANY_TEXT, Layout};
use super::tags::{Piece, TagScanner};
use super::{ChatFormat, OutputParser, ParsedEvent, ParserOptions, ToolCalls, push_merged};
use crate::constraint::{AnswerShape, CallableTool, Opening, TextShape, literal};

pub(super) const FORMAT: ChatFormat = ChatFormat {
    id: "harmony",
    models: "gpt-oss",
    calls: ToolCalls::One,
    reasoning_opener: Some("<|channel|>analysis<|message|>"),
    reasoning_closer: None,
    reasoning_end: Some("<|end|><|start|>assistant"),
    marks_text: true,
    tags: TAGS,
    build: |options| Box::new(Harmony::new(&options)),
    layout,
    parameters: None,
};

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const CONSTRAIN: &str = "<|constrain|>";
const MESSAGE: &str = "<|message|>";
const END: &str = "<|end|>";
const CALL: &str = "<|call|>";
const RETURN: &str = "<|return|>";

const TAGS: &[&str] = &[START, CHANNEL, CONSTRAIN, MESSAGE, END, CALL, RETURN];

/// What the names of a request's tools stand behind.
const FUNCTIONS: &str = "functions.";

const SYNTAX: CallSyntax = CallSyntax {
    name_key: "name",
    argument_keys: &["arguments"],
    objects_in_sequence: false,
    offered_tools_only: false,
    short_ids: false,
    tags_are_text: false,
};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Section {
    /// At the beginning, where a header follows unless the prompt ended inside a message.
    Beginning(String),
    /// Before `<|message|>`: who is spoken to, and on which channel.
    Header(String),
    Reasoning,
    Content,
    Call,
    /// Between messages.
    Outside,
}

#[derive(Debug)]
struct Harmony {
    scanner: TagScanner,
    messages: Messages,
}

/// What comes after the tags are found.
#[derive(Debug)]
struct Messages {
    section: Section,
    parse_tools: bool,
    calls: JsonCalls,
    has_reasoning: bool,
    has_content: bool,
    /// Nothing of the message was seen yet.
    begins: bool,
}

impl Harmony {
    fn new(options: &ParserOptions) -> Self {
        Self {
            scanner: TagScanner::new(TAGS),
            messages: Messages {
                section: match options.opening {
                    Opening::Reasoning => Section::Reasoning,
                    Opening::Text => Section::Content,
                    Opening::Turn | Opening::ReasoningClosed => Section::Beginning(String::new()),
                },
                parse_tools: options.parse_tools,
                calls: JsonCalls::new(&SYNTAX, options),
                has_reasoning: false,
                has_content: false,
                begins: true,
            },
        }
    }
}

impl OutputParser for Harmony {
    fn push(&mut self, text: &str) -> Vec<ParsedEvent> {
        let mut events = Vec::new();
        self.scanner.push(text, |piece| match piece {
            Piece::Text(text) => self.messages.text(text, &mut events),
            Piece::Tag(tag) => self.messages.tag(tag, &mut events),
        });
        events
    }

    fn finish(&mut self) -> Vec<ParsedEvent> {
        let mut events = Vec::new();
        let rest = self.scanner.finish();
        let messages = &mut self.messages;
        if !rest.is_empty() && (messages.section != Section::Call || messages.calls.in_string()) {
            messages.text(&rest, &mut events);
        }
        if let Section::Beginning(held) = &mut messages.section {
            let held = std::mem::take(held);
            messages.content(&held, &mut events);
        }
        messages.leave(false, &mut events);
        events
    }

    fn in_reasoning(&self) -> bool {
        self.messages.section == Section::Reasoning
    }

    fn tags(&self) -> &'static [&'static str] {
        TAGS
    }
}

impl Messages {
    fn text(&mut self, text: &str, events: &mut Vec<ParsedEvent>) {
        match &mut self.section {
            Section::Outside => {}
            Section::Header(header) => header.push_str(text),
            Section::Call => self.calls.push(text, events),
            Section::Content => self.content(text, events),
            Section::Reasoning => {
                let apart = std::mem::take(&mut self.begins) && self.has_reasoning;
                self.has_reasoning = true;
                let text = format!("{}{text}", if apart { "\n" } else { "" });
                push_merged(events, ParsedEvent::ReasoningDelta(text));
            }
            Section::Beginning(held) => {
                held.push_str(text);
                if !may_be_header(held) {
                    let held = std::mem::take(held);
                    self.section = Section::Content;
                    self.content(&held, events);
                }
            }
        }
    }

    fn content(&mut self, text: &str, events: &mut Vec<ParsedEvent>) {
        if text.is_empty() {
            return;
        }
        let apart = std::mem::take(&mut self.begins) && self.has_content;
        self.has_content = true;
        let text = format!("{}{text}", if apart { "\n" } else { "" });
        push_merged(events, ParsedEvent::ContentDelta(text));
    }

    fn tag(&mut self, tag: &'static str, events: &mut Vec<ParsedEvent>) {
        if self.section == Section::Call && self.calls.in_string() {
            self.calls.push_quoted_tag(tag);
            return;
        }
        match tag {
            MESSAGE => self.begin_message(events),
            CHANNEL | CONSTRAIN => {
                let mut header = match &mut self.section {
                    Section::Header(header) | Section::Beginning(header) => std::mem::take(header),
                    _ => String::new(),
                };
                header.push_str(tag);
                self.leave(true, events);
                self.section = Section::Header(header);
            }
            START => {
                self.leave(true, events);
                self.section = Section::Header(String::new());
            }
            _ => self.leave(true, events),
        }
    }

    /// The header is complete.
    fn begin_message(&mut self, events: &mut Vec<ParsedEvent>) {
        let header = match &mut self.section {
            Section::Header(header) | Section::Beginning(header) => std::mem::take(header),
            _ => String::new(),
        };
        self.leave(true, events);
        let (_, channel) = header.split_once(CHANNEL).unwrap_or_default();
        let is_end = |character: char| character.is_whitespace() || character == '<';
        let word = |text: &str| text.split(is_end).next().unwrap_or_default().to_owned();
        let recipient = header.split_once("to=").map(|(_, rest)| word(rest));
        let function = recipient
            .as_deref()
            .and_then(|to| to.strip_prefix(FUNCTIONS));
        self.begins = true;
        self.section = match (function, recipient.is_some()) {
            (Some(name), _) if self.parse_tools && !name.is_empty() => {
                self.calls.begin_arguments(name.to_owned(), None);
                Section::Call
            }
            // What is written to tools that nobody offered is for no one to read.
            (None, true) => Section::Reasoning,
            _ if word(channel.trim_start()) == "analysis" => Section::Reasoning,
            _ => Section::Content,
        };
    }

    /// Ends the message; `closed` if by a tag.
    fn leave(&mut self, closed: bool, events: &mut Vec<ParsedEvent>) {
        if self.section == Section::Call {
            self.calls.end(closed, events);
        }
        self.section = Section::Outside;
    }
}

/// Whether a text at the beginning could still be that of a header: ` to=`, or white space.
fn may_be_header(text: &str) -> bool {
    let text = text.trim_start();
    text.starts_with("to=") || "to=".starts_with(text)
}

/// The call ends the answer: `<|call|>` is a token that ends the turn, so there is one at most.
fn layout(shape: &AnswerShape, layout: &Layout<'_>) -> Option<String> {
    let calls = shape.calls.as_ref();
    let calls = calls.filter(|_| shape.opening != Opening::Text);
    let (channel, message) = (layout.tag(CHANNEL), layout.tag(MESSAGE));
    let mut answers = Vec::new();
    let text = match &shape.text {
        Some(TextShape::Any) => "ANY_TEXT",
        Some(_) => "@text",
        None => "",
    };
    if shape.text.is_some() {
        answers.push(match shape.opening {
            Opening::Text => text.to_owned(),
            _ => format!("{channel} {} {message} {text}", literal("final")),
        });
    }
    if calls.is_some() {
        answers.push("call".to_owned());
    }
    if answers.is_empty() {
        return None;
    }
    let (end, start) = (layout.any_text_until("reasoning", END), layout.tag(START));
    let next = format!("reasoning {start} {} answer", literal("assistant"));
    let start = match shape.opening {
        Opening::Text | Opening::ReasoningClosed => "answer".to_owned(),
        Opening::Reasoning => next,
        Opening::Turn => {
            format!(
                "answer | {channel} {} {message} {next}",
                literal("analysis")
            )
        }
    };
    let reasoning = if shape.opening == Opening::Text {
        ""
    } else {
        &end
    };
    let mut rules = format!(
        "start: {start}\nanswer: {}\n{reasoning}{ANY_TEXT}",
        answers.join(" | ")
    );
    if let Some(calls) = calls {
        let tools: Vec<String> = calls.tools.iter().map(|tool| call(tool, layout)).collect();
        let opening = literal(&format!("commentary to={FUNCTIONS}"));
        rules += &format!(
            "call: {channel} {opening} tool\ntool: {}\n",
            tools.join("\n  | ")
        );
    }
    Some(rules)
}

fn call(tool: &CallableTool, layout: &Layout<'_>) -> String {
    let (constrain, message) = (layout.tag(CONSTRAIN), layout.tag(MESSAGE));
    let (name, json) = (literal(&format!("{} ", tool.name)), literal("json"));
    format!(
        "{name} {constrain} {json} {message} @{}",
        tool.grammar_name()
    )
}

#[cfg(test)]
mod tests;
