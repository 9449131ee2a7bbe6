//! From a request's inputs to their rows: limits of the key, a place, the queue.

use std::time::{Duration, Instant};

use backstop_protocol::ApiError;
use backstop_types::EncoderInput;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::InstalledEncoder;
use super::batch::{Job, Outcome, Waiting};
use crate::admission::lane;
use crate::gate::{Ask, Occupancy, QueuePlace};
use crate::in_flight::Entered;
use crate::metrics::{EncoderMetrics, FinishLabel};
use crate::reply;

/// Requests that run at once as the gate sees it: more than one are only computed together by chance.
const MAX_RUNNING: u32 = 1;

/// What came of a request's inputs.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// One for each input.
    pub(crate) rows: Vec<Vec<f32>>,
    /// Counts the request as one that is in the server.
    pub(crate) place: QueuePlace,
}

impl InstalledEncoder {
    /// Computes a request's inputs when it is its turn.
    pub(crate) async fn encode(
        &self,
        request: &Entered,
        inputs: Vec<EncoderInput>,
        priority: i32,
    ) -> Result<Encoded, ApiError> {
        let tokens = tokens_of(&inputs);
        request.guard.record.asked(tokens);
        let charge = request.guard.ticket.charge_prompt(tokens)?;
        let lane = lane(&request.guard.ticket, priority);
        let mut place = self.enter(request, tokens, priority)?;
        let mut timing = Timing::begin(&self.metrics, request, tokens);
        let is_probe = place.priority() == i32::MIN;
        let tenant = request.guard.asker().tenant;
        let (job, waiting) = Job::new(tenant, lane.cost(), is_probe, inputs);
        self.queue.push(job);
        charge.keep();
        let Waiting { began, done } = waiting;
        let patience = tokio::time::Instant::now() + request.guard.server.queue_timeout();
        let outcome = async {
            self.within(patience.min(request.deadline()), began).await?;
            place.admitted();
            timing.left_queue();
            request.guard.record.admitted();
            self.within(request.deadline(), done).await
        };
        let outcome: Result<Outcome, ApiError> = outcome.await;
        let rows = outcome.and_then(|rows| rows.map_err(|_| ApiError::engine_failure()));
        timing.end(rows.is_ok());
        Ok(Encoded { rows: rows?, place })
    }

    fn enter(&self, request: &Entered, tokens: u32, priority: i32) -> Result<QueuePlace, ApiError> {
        let ticket = &request.guard.ticket;
        let ask = Ask {
            tenant: ticket.caller().tenant().id,
            tenants: request.guard.server.tenants(),
            lane: lane(ticket, priority),
            prompt_tokens: vec![tokens],
            max_tokens: 0,
        };
        let liveness = self.liveness();
        let occupancy = Occupancy {
            running: liveness.running.max(MAX_RUNNING),
            max_running: MAX_RUNNING,
            waiting: liveness.waiting,
        };
        let places = self.gate.enter(&ask, occupancy).map_err(|refusal| {
            self.metrics.rejected(refusal);
            reply::not_let_in(refusal, self.retry_after_s())
        });
        places?.pop().ok_or_else(ApiError::internal)
    }

    /// What is told before a moment; a 503 if it is not.
    async fn within<T>(
        &self,
        moment: tokio::time::Instant,
        told: oneshot::Receiver<T>,
    ) -> Result<T, ApiError> {
        match timeout_at(moment, told).await {
            Ok(Ok(value)) => Ok(value),
            // The thread that computes is gone.
            Ok(Err(_)) => Err(reply::engine_gone()),
            Err(_) => Err(ApiError::deadline_exceeded(self.retry_after_s())),
        }
    }
}

pub(crate) fn tokens_of(inputs: &[EncoderInput]) -> u32 {
    let tokens: usize = inputs.iter().map(|input| input.tokens.len()).sum();
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

/// Measures a request. One that is dropped was given up by its client.
struct Timing {
    metrics: EncoderMetrics,
    arrived: Instant,
    queued: Instant,
    began: Option<Instant>,
    tokens: u32,
    outcome: FinishLabel,
}

impl Timing {
    fn begin(metrics: &EncoderMetrics, request: &Entered, tokens: u32) -> Self {
        Self {
            metrics: metrics.clone(),
            arrived: request.arrived.into_std(),
            queued: Instant::now(),
            began: None,
            tokens,
            outcome: FinishLabel::abort,
        }
    }

    fn left_queue(&mut self) {
        let waited = self.queued.elapsed();
        self.metrics.queue_seconds.observe(waited.as_secs_f64());
        self.began = Some(Instant::now());
    }

    fn end(&mut self, good: bool) {
        self.outcome = match good {
            true => FinishLabel::stop,
            false => FinishLabel::error,
        };
        if good {
            let seconds = |since: Instant| Duration::as_secs_f64(&since.elapsed());
            let began = self.began.unwrap_or(self.queued);
            self.metrics.inference_seconds.observe(seconds(began));
            self.metrics.request_seconds.observe(seconds(self.arrived));
            let tokens = f64::from(self.tokens);
            self.metrics.request_prompt_tokens.observe(tokens);
            self.metrics.prompt_tokens.inc_by(self.tokens.into());
        }
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        self.metrics.finished(self.outcome);
    }
}
