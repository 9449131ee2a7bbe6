//! An answer as a stream of events.

use std::panic::AssertUnwindSafe;

use backstop_protocol::ApiError;
use backstop_protocol::anthropic::{Event, Message, sse_anthropic_error, sse_event};
use futures::stream::{self, Stream, StreamExt};

use super::blocks::Blocks;
use super::{Shape, usage};
use crate::answer::Answer;
use crate::choice::{End, Update};

/// Where a stream is.
enum Phase {
    /// Nothing has been sent.
    Opening,
    /// The answer is in progress.
    Running,
    /// Everything has been sent.
    Over,
}

struct MessageStream {
    answer: Answer,
    shape: Shape,
    blocks: Blocks,
    phase: Phase,
    end: Option<End>,
}

/// The events of a stream. It ends with `message_stop`, or with an error event and without it.
pub(super) fn events(answer: Answer, shape: Shape) -> impl Stream<Item = String> + Send + 'static {
    let stream = MessageStream {
        answer,
        shape,
        blocks: Blocks::default(),
        phase: Phase::Opening,
        end: None,
    };
    let events = stream::unfold(stream, async |mut stream| {
        stream.next().await.map(|event| (event, stream))
    });
    // Caught here already, for an error event of this protocol.
    AssertUnwindSafe(events).catch_unwind().map(|event| {
        event.unwrap_or_else(|_| {
            tracing::error!("a stream panicked");
            sse_anthropic_error(&ApiError::internal())
        })
    })
}

impl MessageStream {
    async fn next(&mut self) -> Option<String> {
        match self.phase {
            Phase::Opening => {
                self.phase = Phase::Running;
                Some(self.opening())
            }
            Phase::Running => Some(match self.answer.next().await {
                Some(Ok(update)) => self.update(update),
                Some(Err(error)) => {
                    self.phase = Phase::Over;
                    sse_anthropic_error(&error)
                }
                None => {
                    self.phase = Phase::Over;
                    self.closing()
                }
            }),
            Phase::Over => None,
        }
    }

    fn opening(&self) -> String {
        let message = Message::beginning(&self.shape.id, &self.shape.model, usage(&self.answer));
        sse_event(&Event::MessageStart { message })
    }

    /// What hidden reasoning alone changes is no event at all, and then the text is empty.
    fn update(&mut self, update: Update) -> String {
        let mut events = Vec::new();
        for event in &update.events {
            self.blocks.apply(event, &self.shape, &mut events);
        }
        self.end = update.end.or(self.end.take());
        events.iter().map(sse_event).collect()
    }

    fn closing(&mut self) -> String {
        let Some(end) = &self.end else {
            return sse_anthropic_error(&ApiError::internal());
        };
        let mut events = Vec::new();
        self.blocks.close(&mut events);
        events.push(Event::MessageDelta {
            delta: self.shape.end(end),
            usage: usage(&self.answer),
        });
        events.push(Event::MessageStop);
        events.iter().map(sse_event).collect()
    }
}
