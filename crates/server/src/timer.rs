//! Takes the times of one choice for the metrics, and counts its tokens.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::account::{Account, Ended};
use crate::gate::QueuePlace;
use crate::in_flight::RequestGuard;
use crate::keys::Tenant;
use crate::metrics::{FinishLabel, RequestMetrics};

/// When a request came in, and when its sequence was handed to the engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) arrived: Instant,
    pub(crate) submitted: Instant,
}

/// How long the parts of an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Phases {
    /// From the request's arrival until its sequence left the queue.
    pub(crate) queued: Duration,
    /// From there to the first token.
    pub(crate) prompt: Duration,
    /// From the first token to the last.
    pub(crate) decoding: Duration,
    /// From the request's arrival until now.
    pub(crate) total: Duration,
}

/// The times of one choice. One that is dropped before its end counts as aborted.
#[derive(Debug)]
pub(crate) struct ChoiceTimer {
    metrics: RequestMetrics,
    tenant: Arc<Tenant>,
    account: Arc<Account>,
    place: QueuePlace,
    arrival: Arrival,
    admitted: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Instant,
    tokens: u64,
    ended: bool,
}

impl ChoiceTimer {
    /// A choice that the engine accepted.
    pub(crate) fn new(
        metrics: RequestMetrics,
        request: &RequestGuard,
        place: QueuePlace,
        arrival: Arrival,
    ) -> Self {
        Self {
            metrics,
            tenant: Arc::clone(request.ticket.caller().tenant()),
            account: Arc::clone(request.record.account()),
            place,
            arrival,
            admitted: None,
            first_token: None,
            last_token: arrival.submitted,
            tokens: 0,
            ended: false,
        }
    }

    /// It left the queue.
    pub(crate) fn admitted(&mut self) {
        let now = Instant::now();
        self.admitted = Some(now);
        self.place.admitted();
        self.metrics
            .queue_seconds
            .observe(seconds(self.arrival.submitted, now));
    }

    /// It generated a token.
    pub(crate) fn token(&mut self) {
        let now = Instant::now();
        self.tokens += 1;
        self.place.token();
        self.tenant.generated_tokens.fetch_add(1, Ordering::Relaxed);
        self.metrics.generation_tokens.inc();
        if self.first_token.is_none() {
            self.first_token = Some(now);
            self.metrics
                .prompt_tokens
                .inc_by(u64::from(self.place.prompt_tokens()));
            self.metrics
                .first_token_seconds
                .observe(seconds(self.arrival.arrived, now));
        } else {
            self.metrics
                .inter_token_seconds
                .observe(seconds(self.last_token, now));
        }
        self.last_token = now;
    }

    /// How long its parts have taken so far.
    pub(crate) fn phases(&self) -> Phases {
        let arrived = self.arrival.arrived;
        let total = arrived.elapsed();
        let Some(admitted) = self.admitted else {
            return Phases {
                queued: total,
                total,
                ..Phases::default()
            };
        };
        let first = self.first_token.unwrap_or(admitted);
        Phases {
            queued: admitted.duration_since(arrived),
            prompt: first.duration_since(admitted),
            decoding: self.last_token.saturating_duration_since(first),
            total,
        }
    }

    /// It ended, for this reason in the API's words. Only the first call counts.
    pub(crate) fn ended(&mut self, label: FinishLabel, reason: &'static str) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.account.ended(Ended {
            reason,
            phases: self.phases(),
            began: self.first_token.is_some(),
        });
        self.metrics.finished(label);
        self.metrics
            .request_seconds
            .observe(self.arrival.arrived.elapsed().as_secs_f64());
        self.metrics
            .request_prompt_tokens
            .observe(f64::from(self.place.prompt_tokens()));
        self.metrics
            .request_generation_tokens
            .observe(self.tokens as f64);
        if let (Some(admitted), Some(first)) = (self.admitted, self.first_token) {
            self.observe_phases(admitted, first);
        }
    }

    /// Reports what it did between leaving the queue and its last token.
    fn observe_phases(&self, admitted: Instant, first: Instant) {
        let decoding = seconds(first, self.last_token);
        let metrics = &self.metrics;
        metrics.prefill_seconds.observe(seconds(admitted, first));
        metrics.decode_seconds.observe(decoding);
        metrics
            .inference_seconds
            .observe(seconds(admitted, self.last_token));
        if self.tokens > 1 {
            let pauses = (self.tokens - 1) as f64;
            metrics.per_output_token_seconds.observe(decoding / pauses);
        }
    }
}

fn seconds(from: Instant, to: Instant) -> f64 {
    to.duration_since(from).as_secs_f64()
}

impl Drop for ChoiceTimer {
    fn drop(&mut self) {
        self.ended(FinishLabel::abort, "abort");
    }
}
