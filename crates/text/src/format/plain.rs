//! The format without marks: everything is content.

use super::{ChatFormat, OutputParser, ParsedEvent, ParserOptions};

pub(super) const FORMAT: ChatFormat = ChatFormat {
    id: "plain",
    reasoning_opener: None,
    build: |_: ParserOptions| Box::new(Plain),
};

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

    fn tags(&self) -> &'static [&'static str] {
        &[]
    }
}
