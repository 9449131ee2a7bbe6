//! The answer to a chat as a stream of chunks.

use backstop_protocol::{ChatChunk, Delta, SSE_DONE, StreamOptions, Usage, sse_data, sse_error};
use backstop_text::ParsedEvent;
use futures::Stream;
use futures::stream;

use super::Shape;
use crate::answer::Answer;
use crate::choice::Update;
use crate::logprobs;

/// Where a stream is.
enum Phase {
    /// Nothing has been sent.
    Opening,
    /// Choices are in progress.
    Running,
    /// Everything has been sent.
    Over,
}

struct ChatStream {
    answer: Answer,
    shape: Shape,
    options: StreamOptions,
    phase: Phase,
}

/// The events of a stream. It ends with `[DONE]`, or with an error event and without it.
pub(super) fn events(
    answer: Answer,
    shape: Shape,
    options: StreamOptions,
) -> impl Stream<Item = String> + Send + 'static {
    let stream = ChatStream {
        answer,
        shape,
        options,
        phase: Phase::Opening,
    };
    stream::unfold(stream, async |mut stream| {
        stream.next().await.map(|event| (event, stream))
    })
}

impl ChatStream {
    async fn next(&mut self) -> Option<String> {
        match self.phase {
            Phase::Opening => {
                self.phase = Phase::Running;
                Some(self.opening())
            }
            Phase::Running => Some(match self.answer.next().await {
                Some(Ok(update)) => self.update(&update),
                Some(Err(error)) => {
                    self.phase = Phase::Over;
                    sse_error(&error)
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
        let usage = self.running_usage();
        (0..self.shape.choices)
            .map(|index| event(self.shape.chunks.role(number(index)), usage))
            .collect()
    }

    fn update(&self, update: &Update) -> String {
        let chunks = &self.shape.chunks;
        let index = number(update.index);
        let usage = self.running_usage();
        let mut logprobs = logprobs::chat(
            &self.shape.tokenizer,
            &update.tokens,
            self.shape.alternatives,
        );
        let mut text = String::new();
        for new in update.events.iter().filter(|event| self.shape.shows(event)) {
            text += &event(chunks.delta(index, delta(new), logprobs.take()), usage);
        }
        if logprobs.is_some() {
            // The tokens' text is held back or not shown, and yet they were generated.
            text += &event(chunks.delta(index, Delta::content(""), logprobs), usage);
        }
        if let Some(end) = &update.end {
            text += &event(
                chunks.finish(index, end.reason, end.stop_reason.clone()),
                usage,
            );
        }
        text
    }

    fn closing(&self) -> String {
        let mut text = String::new();
        if self.options.include_usage {
            text += &sse_data(&self.shape.chunks.usage(self.answer.usage()));
        }
        text + SSE_DONE
    }

    fn running_usage(&self) -> Option<Usage> {
        self.options
            .continuous_usage_stats
            .then(|| self.answer.usage())
    }
}

fn event(chunk: ChatChunk<'_>, usage: Option<Usage>) -> String {
    match usage {
        Some(usage) => sse_data(&chunk.with_usage(usage)),
        None => sse_data(&chunk),
    }
}

fn delta(event: &ParsedEvent) -> Delta<'_> {
    match event {
        ParsedEvent::ReasoningDelta(text) => Delta::reasoning(text),
        ParsedEvent::ContentDelta(text) => Delta::content(text),
        ParsedEvent::ToolCallStart { index, id, name } => {
            Delta::tool_call_start(number(*index), id, name)
        }
        ParsedEvent::ToolCallArgumentsDelta { index, delta } => {
            Delta::tool_call_arguments(number(*index), delta)
        }
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
