//! The answer to a chat as a stream of chunks.

use backstop_protocol::{ChatChunk, Delta, SSE_DONE, StreamOptions, Usage, sse_data};
use backstop_text::ParsedEvent;

use super::Shape;
use crate::answer::Answer;
use crate::answer_stream::EventWriter;
use crate::choice::Update;
use crate::logprobs;

/// Writes a stream. It ends with `[DONE]`, or with an error event and without it.
pub(super) struct ChatWriter {
    pub(super) shape: Shape,
    pub(super) options: StreamOptions,
}

impl EventWriter for ChatWriter {
    fn opening(&mut self, answer: &Answer) -> String {
        let usage = self.running_usage(answer);
        let chunks = (0..self.shape.choices).map(|index| {
            let chunk = self.shape.chunks.role(number(index));
            match &self.shape.prompt_token_ids {
                Some(ids) if index == 0 => event(chunk.with_prompt_token_ids(ids), usage),
                _ => event(chunk, usage),
            }
        });
        chunks.collect()
    }

    fn update(&mut self, update: Update, answer: &Answer) -> String {
        let shape = &self.shape;
        let index = number(update.index);
        let usage = self.running_usage(answer);
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
            let usage = usage.or_else(|| shape.usage_at_end.then(|| answer.usage()));
            text += &match token_ids {
                Some(ids) => event(chunk.with_token_ids(ids), usage),
                None => event(chunk, usage),
            };
        }
        text
    }

    fn closing(&mut self, answer: &Answer) -> String {
        let mut text = String::new();
        if self.options.include_usage {
            text += &sse_data(&self.shape.chunks.usage(answer.usage()));
        }
        text + SSE_DONE
    }
}

impl ChatWriter {
    fn running_usage(&self, answer: &Answer) -> Option<Usage> {
        self.options.continuous_usage_stats.then(|| answer.usage())
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
