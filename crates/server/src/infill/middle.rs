//! One middle as far as it has been written.

use std::time::Duration;

use backstop_protocol::{
    FinishReason, InfillAnswer, InfillChunk, InfillTimings, StopReason, TimedTokens,
};
use backstop_text::ParsedEvent;
use backstop_types::TokenId;
use serde_json::Value;

use super::Shape;
use super::lines::Lines;
use crate::choice::{Counts, End, Update};

/// A middle.
#[derive(Clone, Debug, Default)]
pub(super) struct Middle {
    lines: Lines,
    /// What has not been handed on.
    content: String,
    tokens: Vec<TokenId>,
    counts: Counts,
    has_new_line: bool,
    /// When its first token and its last one came.
    first_at: Option<Duration>,
    last_at: Duration,
    end: Option<End>,
}

impl Middle {
    pub(super) fn new(lines: Lines) -> Self {
        Self {
            lines,
            ..Self::default()
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.end.is_some()
    }

    /// Adds what came so long after the beginning; after the end, nothing.
    pub(super) fn absorb(&mut self, update: Update, at: Duration, only_prompt: bool) {
        if self.is_over() {
            return;
        }
        let first_at = *self.first_at.get_or_insert(at);
        self.last_at = at;
        self.counts = update.counts;
        self.end = update.end;
        if only_prompt {
            self.counts.generated = 0;
            self.end = self.end.take().map(|_| limit());
            return;
        }
        self.tokens.extend(update.token_ids);
        for event in update.events {
            // The plain format has nothing but text.
            if let ParsedEvent::ContentDelta(text) = event {
                self.add(&text, at.saturating_sub(first_at));
            }
        }
    }

    fn add(&mut self, text: &str, elapsed: Duration) {
        let kept = match self.lines.end_in(text, elapsed) {
            Some(length) => {
                self.end = Some(limit());
                &text[..length]
            }
            None => text,
        };
        self.has_new_line |= kept.contains('\n');
        self.content.push_str(kept);
    }

    /// What is new since the last time, as a part of a stream.
    pub(super) fn take_news(&mut self, index: usize, shape: &Shape) -> Option<Value> {
        if self.content.is_empty() && self.tokens.is_empty() {
            return None;
        }
        let chunk = InfillChunk {
            index,
            content: &self.content,
            tokens: &self.tokens,
            stop: false,
            tokens_predicted: self.counts.generated,
            tokens_evaluated: shape.prompt_tokens,
        };
        let news = serde_json::to_value(&chunk).ok();
        self.content.clear();
        self.tokens.clear();
        news
    }

    /// The whole of what has not been handed on.
    pub(super) fn written(&self, index: usize, shape: &Shape) -> Value {
        let (stop_type, stopping_word) = match &self.end {
            Some(End {
                stop_reason: Some(StopReason::Text(word)),
                ..
            }) => ("word", word.as_str()),
            Some(End {
                reason: FinishReason::Stop,
                ..
            }) => ("eos", ""),
            _ => ("limit", ""),
        };
        let answer = InfillAnswer {
            index,
            content: &self.content,
            tokens: &self.tokens,
            stop: true,
            model: &shape.model_name,
            tokens_predicted: self.counts.generated,
            tokens_evaluated: shape.prompt_tokens,
            tokens_cached: shape.prompt_tokens.saturating_add(self.counts.generated),
            generation_settings: &shape.settings,
            prompt: &shape.prompt,
            has_new_line: self.has_new_line,
            truncated: shape.is_cut,
            stop_type,
            stopping_word,
            timings: self.timings(shape),
        };
        serde_json::to_value(&answer).unwrap_or_default()
    }

    fn timings(&self, shape: &Shape) -> InfillTimings {
        let timed = |count: u32, time: Duration| TimedTokens {
            count,
            milliseconds: time.as_secs_f64() * 1000.0,
        };
        let first_at = self.first_at.unwrap_or_default();
        let Counts {
            cached, generated, ..
        } = self.counts;
        let computed = shape.prompt_tokens.saturating_sub(cached);
        let decoding = self.last_at.saturating_sub(first_at);
        InfillTimings::new(
            cached,
            timed(computed, first_at),
            timed(generated, decoding),
        )
    }
}

fn limit() -> End {
    End {
        reason: FinishReason::Length,
        stop_reason: None,
    }
}
