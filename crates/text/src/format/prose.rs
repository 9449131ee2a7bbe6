//! The part of an answer that is read by people: reasoning first, then text, with nothing around
//! the text but the tags of calls.

use super::{ParsedEvent, push_merged};
use crate::constraint::Opening;

/// Passes on reasoning and text.
///
/// White space alone between two tags is layout and dropped. Where the chat templates of a family
/// put line breaks next to tags, those breaks are layout as well: the template writes them again
/// when the client sends the answer back, and breaks that were kept would stand there twice.
#[derive(Clone, Debug)]
pub(super) struct Prose {
    in_reasoning: bool,
    trims_lines: bool,
    /// Something but white space was seen since the last tag.
    started: bool,
    /// What comes next follows a tag.
    after_tag: bool,
    /// White space that is dropped if a tag follows.
    held: String,
    /// No text and no call was seen, so that reasoning may begin.
    blank: bool,
}

impl Prose {
    pub(super) fn new(opening: Opening, trims_lines: bool) -> Self {
        Self {
            in_reasoning: opening == Opening::Reasoning,
            trims_lines,
            started: false,
            after_tag: opening == Opening::Reasoning,
            held: String::new(),
            blank: opening != Opening::Text,
        }
    }

    pub(super) fn in_reasoning(&self) -> bool {
        self.in_reasoning
    }

    /// Whether nothing but reasoning was seen.
    pub(super) fn is_blank(&self) -> bool {
        self.blank
    }

    pub(super) fn text(&mut self, text: &str, events: &mut Vec<ParsedEvent>) {
        self.held.push_str(text);
        if !self.started {
            if self.held.trim().is_empty() {
                return;
            }
            self.started = true;
            self.blank &= self.in_reasoning;
            if self.after_tag && self.trims_lines {
                self.held = self.held.trim_start_matches('\n').to_owned();
            }
        }
        let shown = match self.trims_lines {
            true => self.held.trim_end_matches('\n').len(),
            false => self.held.len(),
        };
        let kept = self.held.split_off(shown);
        let shown = std::mem::replace(&mut self.held, kept);
        self.emit(shown, events);
    }

    /// A tag stands here that begins or ends reasoning.
    pub(super) fn set_reasoning(&mut self, in_reasoning: bool) {
        self.boundary();
        self.in_reasoning = in_reasoning;
    }

    /// A tag stands here that begins a call; there is no reasoning after it.
    pub(super) fn call(&mut self) {
        self.set_reasoning(false);
        self.blank = false;
    }

    fn boundary(&mut self) {
        self.held.clear();
        self.started = false;
        self.after_tag = true;
    }

    /// Ends the answer.
    pub(super) fn finish(&mut self, events: &mut Vec<ParsedEvent>) {
        let rest = std::mem::take(&mut self.held);
        if self.started || !self.after_tag {
            self.emit(rest, events);
        }
    }

    fn emit(&self, text: String, events: &mut Vec<ParsedEvent>) {
        push_merged(
            events,
            match self.in_reasoning {
                true => ParsedEvent::ReasoningDelta(text),
                false => ParsedEvent::ContentDelta(text),
            },
        );
    }
}
