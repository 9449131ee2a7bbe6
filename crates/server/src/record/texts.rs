//! What a request says and what is answered, up to a length each.

use backstop_audit::{AnswerText, Texts};
use backstop_text::ParsedEvent;

use crate::choice::Update;

/// Bytes of a request's body that are written down.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Bytes of all answers to it that are written down.
const ANSWERS_BYTES_MAX: usize = 64 << 10;
/// Answers of which something is written down.
const ANSWERS_MAX: usize = 16;
/// Memory that both take.
pub(super) const SHARE_BYTES: usize = REQUEST_BYTES_MAX + ANSWERS_BYTES_MAX;

/// The beginning of a body; of none, only that it is left out.
pub(super) fn bounded(body: Option<&[u8]>) -> Texts {
    let mut texts = Texts::default();
    let body = String::from_utf8_lossy(body.unwrap_or_default());
    texts.texts_cut = body.is_empty() | add(&mut texts.request, &body, REQUEST_BYTES_MAX);
    texts
}

/// Appends as much of `text` as there is room for; whether something was left out.
fn add(to: &mut String, text: &str, room: usize) -> bool {
    let end = text.floor_char_boundary(room.min(text.len()));
    to.push_str(&text[..end]);
    end < text.len()
}

/// What an update says.
pub(super) fn add_events(texts: &mut Texts, update: &Update) {
    if update.events.is_empty() {
        return;
    }
    if update.index >= ANSWERS_MAX {
        texts.texts_cut = true;
        return;
    }
    if texts.answers.len() <= update.index {
        texts
            .answers
            .resize_with(update.index + 1, AnswerText::default);
    }
    for event in &update.events {
        let taken: usize = texts.answers.iter().map(length).sum();
        let room = ANSWERS_BYTES_MAX.saturating_sub(taken);
        texts.texts_cut |= add_event(&mut texts.answers[update.index], event, room);
    }
}

fn add_event(answer: &mut AnswerText, event: &ParsedEvent, room: usize) -> bool {
    match event {
        ParsedEvent::ReasoningDelta(text) => add(&mut answer.reasoning, text, room),
        ParsedEvent::ContentDelta(text) => add(&mut answer.content, text, room),
        ParsedEvent::ToolCallStart { name, .. } => {
            let is_cut = name.len() >= room;
            if !is_cut {
                answer.calls.push(format!("{name} "));
            }
            is_cut
        }
        ParsedEvent::ToolCallArgumentsDelta { delta, .. } => match answer.calls.last_mut() {
            Some(call) => add(call, delta, room),
            None => true,
        },
    }
}

fn length(answer: &AnswerText) -> usize {
    let calls: usize = answer.calls.iter().map(String::len).sum();
    answer.reasoning.len() + answer.content.len() + calls
}
