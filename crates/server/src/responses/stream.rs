//! The answer as a stream of events.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backstop_protocol::responses::{Event, ResponseBuilder, Status};
use backstop_protocol::{ApiError, sse_event};

use super::output::{Output, Sink};
use crate::answer::Answer;
use crate::answer_stream::EventWriter;
use crate::choice::Update;
use crate::sse;

/// Of so many signs of life one is an event; the others are comments. An event repeats the whole
/// response, with all that the request has set.
const SIGNS_FOR_AN_EVENT: u64 = 10;

/// Writes a stream, which ends with a completed, incomplete or failed response.
pub(super) struct ResponseWriter {
    builder: Arc<ResponseBuilder>,
    output: Output,
    numbers: Arc<AtomicU64>,
    status: Option<Status>,
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

impl<'a> Writer<'a> {
    fn new(numbers: &'a AtomicU64) -> Self {
        Self {
            numbers,
            text: String::new(),
        }
    }
}

/// Writes a stream and what keeps it alive: now and then an event, because clients measure how long
/// a stream has been silent in events.
pub(super) fn writer(
    builder: ResponseBuilder,
    output: Output,
) -> (ResponseWriter, impl FnMut() -> String + Send + 'static) {
    let builder = Arc::new(builder);
    let numbers = Arc::new(AtomicU64::new(0));
    let writer = ResponseWriter {
        builder: Arc::clone(&builder),
        output,
        numbers: Arc::clone(&numbers),
        status: None,
    };
    let mut signs = 0;
    let keep_alive = move || {
        signs += 1;
        if signs % SIGNS_FOR_AN_EVENT != 1 {
            return sse::comment();
        }
        let mut writer = Writer::new(&numbers);
        writer.event(Event::in_progress(builder.begun()));
        writer.text
    };
    (writer, keep_alive)
}

impl EventWriter for ResponseWriter {
    fn opening(&mut self, _: &Answer) -> String {
        let mut writer = Writer::new(&self.numbers);
        writer.event(Event::created(self.builder.begun()));
        writer.event(Event::in_progress(self.builder.begun()));
        writer.text
    }

    fn update(&mut self, update: Update, _: &Answer) -> String {
        let mut writer = Writer::new(&self.numbers);
        for event in update.events {
            self.output.add(event, &mut writer);
        }
        if let Some(end) = update.end {
            self.status = Some(self.output.end(end.reason, &mut writer));
        }
        writer.text
    }

    fn closing(&mut self, answer: &Answer) -> String {
        let Some(status) = self.status else {
            return self.failure(&ApiError::internal());
        };
        let usage = answer.usage();
        let response = self.builder.ended(status, self.output.items(), usage);
        let mut writer = Writer::new(&self.numbers);
        writer.event(Event::ended(response));
        writer.text
    }

    fn failure(&mut self, error: &ApiError) -> String {
        let mut writer = Writer::new(&self.numbers);
        let response = self.builder.failed(self.output.items(), error);
        writer.event(Event::ended(response));
        writer.text
    }
}
