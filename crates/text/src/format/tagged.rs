//! Answers that begin with reasoning between two tags, and call tools between further tags
//! anywhere in their text: what most families share.

use super::prose::Prose;
use super::tags::{Piece, TagScanner};
use super::{OutputParser, ParsedEvent, ParserOptions};

/// What the tags of a family are like.
#[derive(Debug)]
pub(super) struct Markup {
    /// The tags around reasoning.
    pub(super) reasoning: Option<(&'static str, &'static str)>,
    /// All tags, those around reasoning included.
    pub(super) tags: &'static [&'static str],
    /// The vocabulary has the tags as control tokens: they never show, and end reasoning wherever
    /// they stand. Otherwise a tag that makes no sense where it stands is text: somebody may have
    /// asked for it.
    pub(super) control_tokens: bool,
    /// Line breaks next to tags are layout; see [`Prose`].
    pub(super) trims_lines: bool,
}

impl Markup {
    fn is_of_reasoning(&self, tag: &str) -> bool {
        self.reasoning
            .is_some_and(|(open, close)| tag == open || tag == close)
    }
}

/// Reads the calls of a family.
pub(super) trait CallReader: Send {
    /// Whether text belongs to a call.
    fn is_open(&self) -> bool;

    /// Whether a tag that is cut off could be data of the call.
    fn holds_data(&self) -> bool;

    /// Takes a tag; false if it means nothing here.
    fn tag(&mut self, tag: &'static str, events: &mut Vec<ParsedEvent>) -> bool;

    /// Takes text while [open](Self::is_open), and returns what comes after the end of the call.
    fn text<'a>(&mut self, text: &'a str, events: &mut Vec<ParsedEvent>) -> &'a str;

    /// Ends the answer.
    fn finish(&mut self, events: &mut Vec<ParsedEvent>);
}

/// The parser of such answers.
pub(super) struct Tagged<R> {
    markup: &'static Markup,
    scanner: TagScanner,
    parts: Parts<R>,
}

/// What comes after the tags are found.
struct Parts<R> {
    markup: &'static Markup,
    prose: Prose,
    parse_tools: bool,
    calls: R,
}

impl<R: CallReader> Tagged<R> {
    pub(super) fn new(markup: &'static Markup, options: &ParserOptions, calls: R) -> Self {
        Self {
            markup,
            scanner: TagScanner::new(markup.tags),
            parts: Parts {
                markup,
                prose: Prose::new(options.opening, markup.trims_lines),
                parse_tools: options.parse_tools,
                calls,
            },
        }
    }
}

impl<R: CallReader> OutputParser for Tagged<R> {
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
        let calls = &self.parts.calls;
        if !rest.is_empty() && (!calls.is_open() || calls.holds_data()) {
            self.parts.text(&rest, &mut events);
        }
        self.parts.calls.finish(&mut events);
        self.parts.prose.finish(&mut events);
        events
    }

    fn in_reasoning(&self) -> bool {
        self.parts.prose.in_reasoning() && !self.parts.calls.is_open()
    }

    fn tags(&self) -> &'static [&'static str] {
        self.markup.tags
    }
}

impl<R: CallReader> Parts<R> {
    fn text(&mut self, text: &str, events: &mut Vec<ParsedEvent>) {
        let text = match self.calls.is_open() {
            true => self.calls.text(text, events),
            false => text,
        };
        if !text.is_empty() {
            self.prose.text(text, events);
        }
    }

    fn tag(&mut self, tag: &'static str, events: &mut Vec<ParsedEvent>) {
        if !self.calls.is_open() && self.reasoning_tag(tag) {
            return;
        }
        let may_call = self.markup.control_tokens || !self.prose.in_reasoning();
        if self.parse_tools && may_call && self.call_tag(tag, events) {
            return;
        }
        if !self.markup.control_tokens {
            self.text(tag, events);
        } else if !self.calls.is_open() && !self.markup.is_of_reasoning(tag) {
            self.prose.set_reasoning(false);
        }
    }

    /// Whether the tag begins or ends reasoning where it stands.
    fn reasoning_tag(&mut self, tag: &str) -> bool {
        let Some((open, close)) = self.markup.reasoning else {
            return false;
        };
        let in_reasoning = self.prose.in_reasoning();
        let begins = tag == open && !in_reasoning && self.prose.is_blank();
        // One that ends nothing at the beginning of an answer ends what the prompt began.
        let ends = tag == close && (in_reasoning || self.prose.is_blank());
        if begins || ends {
            self.prose.set_reasoning(begins);
        }
        begins || ends
    }

    fn call_tag(&mut self, tag: &'static str, events: &mut Vec<ParsedEvent>) -> bool {
        let was_open = self.calls.is_open();
        let taken = self.calls.tag(tag, events);
        if taken && !was_open && self.calls.is_open() {
            self.prose.call();
        }
        taken
    }
}
