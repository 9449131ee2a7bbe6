//! Takes the times of one choice for the metrics.

use std::time::Instant;

use crate::metrics::{FinishLabel, RequestMetrics};

/// When a request came in, and when its sequence was handed to the engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) arrived: Instant,
    pub(crate) submitted: Instant,
}

/// The times of one choice. One that is dropped before its end counts as aborted.
#[derive(Debug)]
pub(crate) struct ChoiceTimer {
    metrics: RequestMetrics,
    prompt_tokens: usize,
    arrival: Arrival,
    first_token: Option<Instant>,
    last_token: Instant,
    tokens: u64,
    ended: bool,
}

impl ChoiceTimer {
    /// A choice, accepted by the engine, for a prompt of `prompt_tokens`.
    pub(crate) fn new(metrics: RequestMetrics, prompt_tokens: usize, arrival: Arrival) -> Self {
        Self {
            metrics,
            prompt_tokens,
            arrival,
            first_token: None,
            last_token: arrival.submitted,
            tokens: 0,
            ended: false,
        }
    }

    /// It left the queue.
    pub(crate) fn admitted(&mut self) {
        self.metrics
            .queue_seconds
            .observe(self.arrival.submitted.elapsed().as_secs_f64());
    }

    /// It generated a token.
    pub(crate) fn token(&mut self) {
        let now = Instant::now();
        self.tokens += 1;
        self.metrics.generation_tokens.inc();
        if self.first_token.is_none() {
            self.first_token = Some(now);
            self.metrics.prompt_tokens.inc_by(self.prompt_tokens as u64);
            let waited = now.duration_since(self.arrival.arrived);
            self.metrics
                .first_token_seconds
                .observe(waited.as_secs_f64());
        } else {
            let pause = now.duration_since(self.last_token);
            self.metrics
                .inter_token_seconds
                .observe(pause.as_secs_f64());
        }
        self.last_token = now;
    }

    /// It ended. Only the first call counts.
    pub(crate) fn ended(&mut self, label: FinishLabel) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.metrics.finished(label);
        self.metrics
            .request_seconds
            .observe(self.arrival.arrived.elapsed().as_secs_f64());
        self.metrics
            .request_prompt_tokens
            .observe(self.prompt_tokens as f64);
        self.metrics
            .request_generation_tokens
            .observe(self.tokens as f64);
        if let Some(first) = self.first_token
            && self.tokens > 1
        {
            let decoding = self.last_token.duration_since(first).as_secs_f64();
            let pauses = (self.tokens - 1) as f64;
            self.metrics
                .per_output_token_seconds
                .observe(decoding / pauses);
        }
    }
}

impl Drop for ChoiceTimer {
    fn drop(&mut self) {
        self.ended(FinishLabel::abort);
    }
}
