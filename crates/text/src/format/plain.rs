//! The format without marks: everything is content.

use super::layout::{ANY_TEXT, Layout};
use super::{ChatFormat, OutputParser, ParsedEvent, ParserOptions, ToolCalls};
use crate::constraint::{AnswerShape, TextShape};

pub(super) const FORMAT: ChatFormat = ChatFormat {
    id: "plain",
    models: "everything else: all is text",
    calls: ToolCalls::None,
    reasoning_opener: None,
    reasoning_closer: None,
    reasoning_end: None,
    marks_text: false,
    tags: &[],
    build: |_: ParserOptions| Box::new(Plain),
    layout,
    parameters: None,
};

fn layout(shape: &AnswerShape, _: &Layout<'_>) -> Option<String> {
    match shape.text.as_ref()? {
        TextShape::Any => Some(format!("start: ANY_TEXT\n{ANY_TEXT}")),
        _ => Some("start: @text\n".to_owned()),
    }
}

struct Plain;

impl OutputParser for Plain {
    fn push(&mut self, text: &str) -> Vec<ParsedEvent> {
        if text.is_empty() {
            return Vec::new();
        }
        vec![ParsedEvent::ContentDelta(text.to_owned())]
    }

    fn finish(&mut self) -> Vec<ParsedEvent> {
        Vec::new()
    }

    fn in_reasoning(&self) -> bool {
        false
    }

    fn tags(&self) -> &'static [&'static str] {
        &[]
    }
}
