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
        let chunks = (0..self.shape.choices).map(|index| {
            let chunk = self.shape.chunks.role(number(index));
            match &self.shape.prompt_token_ids {
                Some(ids) if index == 0 => event(chunk.with_prompt_token_ids(ids), usage),
                _ => event(chunk, usage),
            }
        });
        chunks.collect()
    }

    fn update(&self, update: &Update) -> String {
        let shape = &self.shape;
        let index = number(update.index);
        let usage = self.running_usage();
        let mut logprobs = logprobs::chat(&shape.tokenizer, &update.tokens, shape.alternatives);
        let mut token_ids = Some(update.token_ids.clone()).filter(|ids| !ids.is_empty());
        let mut text = String::new();
        let mut add = |delta: Delta<'_>, logprobs| {
            let chunk = shape.chunks.delta(index, delta, logprobs);
            text += &match token_ids.take() {
                Some(ids) => event(chunk.with_token_ids(ids), usage),
                None => event(chunk, usage),
            };
        };
        for new in update.events.iter().filter(|event| shape.shows(event)) {
            add(delta(new).with_calls_as(shape.calls), logprobs.take());
        }
        if logprobs.is_some() {
            // The tokens' text is held back or not shown, and yet they were generated.
            add(Delta::content(""), logprobs);
        }
        if let Some(end) = &update.end {
            let reason = shape.calls.finish_reason(end.reason);
            let chunk = shape.chunks.finish(index, reason, end.stop_reason.clone());
            text += &match token_ids {
                Some(ids) => event(chunk.with_token_ids(ids), usage),
                None => event(chunk, usage),
            };
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
