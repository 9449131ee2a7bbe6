//! The answer as a stream of events.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backstop_protocol::responses::{Event, ResponseBuilder};
use backstop_protocol::{ApiError, sse_event};
use futures::Stream;
use futures::stream;

use super::output::{Output, Sink};
use crate::answer::Answer;
use crate::choice::Update;

/// Where a stream is.
enum Phase {
    /// Nothing has been sent.
    Opening,
    /// The answer is in progress.
    Running,
    /// Everything has been sent.
    Over,
}

struct ResponsesStream {
    answer: Answer,
    builder: Arc<ResponseBuilder>,
    output: Output,
    numbers: Arc<AtomicU64>,
    phase: Phase,
}

/// Numbers events and writes them down, one after the other.
struct Writer<'a> {
    numbers: &'a AtomicU64,
    text: String,
}

impl Sink for Writer<'_> {
    fn event(&mut self, event: Event<'_>) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let event = event.numbered(number);
        self.text += &sse_event(event.kind(), &event);
    }
}

/// The events of a stream, which ends with a completed, incomplete or failed response, and what
/// keeps it alive: an event, because clients measure how long a stream has been silent in events.
pub(super) fn events(
    answer: Answer,
    builder: ResponseBuilder,
    output: Output,
) -> (
    impl Stream<Item = String> + Send + 'static,
    impl FnMut() -> String + Send + 'static,
) {
    let builder = Arc::new(builder);
    let numbers = Arc::new(AtomicU64::new(0));
    let stream = ResponsesStream {
        answer,
        builder: Arc::clone(&builder),
        output,
        numbers: Arc::clone(&numbers),
        phase: Phase::Opening,
    };
    let events = stream::unfold(stream, async |mut stream| {
        stream.next().await.map(|event| (event, stream))
    });
    let keep_alive = move || {
        let mut writer = Writer::new(&numbers);
        writer.event(Event::in_progress(builder.begun()));
        writer.text
    };
    (events, keep_alive)
}

impl<'a> Writer<'a> {
    fn new(numbers: &'a AtomicU64) -> Self {
        Self {
            numbers,
            text: String::new(),
        }
    }
}

impl ResponsesStream {
    async fn next(&mut self) -> Option<String> {
        match self.phase {
            Phase::Opening => {
                self.phase = Phase::Running;
                Some(self.opening())
            }
            Phase::Running => Some(match self.answer.next().await {
                Some(Ok(update)) => self.update(update),
                Some(Err(error)) => self.failure(&error),
                // An answer ends with an update that says so.
                None => self.failure(&ApiError::internal()),
            }),
            Phase::Over => None,
        }
    }

    fn opening(&self) -> String {
        let mut writer = Writer::new(&self.numbers);
        writer.event(Event::created(self.builder.begun()));
        writer.event(Event::in_progress(self.builder.begun()));
        writer.text
    }

    fn update(&mut self, update: Update) -> String {
        let mut writer = Writer::new(&self.numbers);
        for event in update.events {
            self.output.add(event, &mut writer);
        }
        if let Some(end) = update.end {
            self.phase = Phase::Over;
            let status = self.output.end(end.reason, &mut writer);
            let usage = self.answer.usage();
            let response = self.builder.ended(status, self.output.items(), usage);
            writer.event(Event::ended(response));
        }
        writer.text
    }

    fn failure(&mut self, error: &ApiError) -> String {
        self.phase = Phase::Over;
        let mut writer = Writer::new(&self.numbers);
        let response = self.builder.failed(self.output.items(), error);
        writer.event(Event::ended(response));
        writer.text
    }
}
