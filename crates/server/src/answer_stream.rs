//! An answer as a stream of events, in whatever form its endpoint writes them.

use axum::response::Response;
use backstop_protocol::{ApiError, sse_error};
use futures::stream;

use crate::answer::Answer;
use crate::choice::Update;
use crate::sse;

/// How an endpoint writes an answer. Every text is any number of complete events.
pub(crate) trait EventWriter: Send + 'static {
    /// What kind of stream it is.
    const CONTENT_TYPE: &'static str = sse::CONTENT_TYPE_VALUE;

    /// What is sent before anything has been generated.
    fn opening(&mut self, answer: &Answer) -> String;
    /// What an update has brought.
    fn update(&mut self, update: Update, answer: &Answer) -> String;
    /// Whether nothing is left to be said, although choices go on, which end with the stream.
    fn is_over(&self) -> bool {
        false
    }

    /// What is sent when all choices have ended.
    fn closing(&mut self, answer: &Answer) -> String;

    /// What is sent instead of the rest.
    fn failure(&mut self, error: &ApiError) -> String {
        sse_error(error)
    }

    /// What is sent after a panic, when nothing is known of the writer's state.
    fn broken() -> String
    where
        Self: Sized,
    {
        sse_error(&ApiError::internal())
    }
}

/// Where a stream is.
enum Phase {
    /// Nothing has been sent.
    Opening,
    /// Choices are in progress.
    Running,
    /// Everything has been sent.
    Over,
}

struct AnswerStream<W> {
    answer: Answer,
    writer: W,
    phase: Phase,
}

/// The response that streams `answer` as `writer` writes it.
pub(crate) fn respond<W: EventWriter>(
    answer: Answer,
    writer: W,
    keep_alive: impl FnMut() -> String + Send + 'static,
) -> Response {
    let interval = answer.server().config().keep_alive_interval;
    let annotate = answer.annotation();
    let stream = AnswerStream {
        answer,
        writer,
        phase: Phase::Opening,
    };
    let events = stream::unfold(stream, async |mut stream| {
        stream.next().await.map(|event| (event, stream))
    });
    let response = sse::response(events, W::CONTENT_TYPE, interval, keep_alive, W::broken);
    annotate(response)
}

impl<W: EventWriter> AnswerStream<W> {
    async fn next(&mut self) -> Option<String> {
        match self.phase {
            Phase::Opening => {
                self.phase = Phase::Running;
                Some(self.writer.opening(&self.answer))
            }
            Phase::Running if self.writer.is_over() => {
                self.phase = Phase::Over;
                None
            }
            Phase::Running => Some(match self.answer.next().await {
                Some(Ok(update)) => self.writer.update(update, &self.answer),
                Some(Err(error)) => {
                    self.phase = Phase::Over;
                    self.writer.failure(&error)
                }
                None => {
                    self.phase = Phase::Over;
                    self.writer.closing(&self.answer)
                }
            }),
            Phase::Over => None,
        }
    }
}
