//! An answer as a stream of events. It ends with `message_stop`, or with an error event and
//! without it.

use backstop_protocol::ApiError;
use backstop_protocol::anthropic::{Event, Message, sse_anthropic_error, sse_event};

use super::blocks::Blocks;
use super::{Shape, usage};
use crate::answer::Answer;
use crate::answer_stream::EventWriter;
use crate::choice::{End, Update};

pub(super) struct MessageWriter {
    shape: Shape,
    blocks: Blocks,
    end: Option<End>,
}

impl MessageWriter {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            blocks: Blocks::default(),
            end: None,
        }
    }
}

impl EventWriter for MessageWriter {
    fn opening(&mut self, answer: &Answer) -> String {
        let message = Message::beginning(&self.shape.id, &self.shape.model, usage(answer));
        sse_event(&Event::MessageStart { message })
    }

    /// What hidden reasoning alone changes is no event at all, and then the text is empty.
    fn update(&mut self, update: Update, _: &Answer) -> String {
        let mut events = Vec::new();
        for event in &update.events {
            self.blocks.apply(event, &self.shape, &mut events);
        }
        self.end = update.end.or(self.end.take());
        events.iter().map(sse_event).collect()
    }

    fn closing(&mut self, answer: &Answer) -> String {
        let Some(end) = &self.end else {
            return Self::broken();
        };
        let mut events = Vec::new();
        self.blocks.close(&mut events);
        events.push(Event::MessageDelta {
            delta: self.shape.end(end),
            usage: usage(answer),
        });
        events.push(Event::MessageStop);
        events.iter().map(sse_event).collect()
    }

    fn failure(&mut self, error: &ApiError) -> String {
        sse_anthropic_error(error)
    }

    fn broken() -> String {
        sse_anthropic_error(&ApiError::internal())
    }
}
