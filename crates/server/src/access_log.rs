//! One line of the log for each request, when its answer has ended.
//!
//! Requests that may use a model are logged at `info`: each of them is a reason to look. All others are logged at
//! `debug`, for probes and scrapes come every few seconds and would bury them.

use std::time::Duration;

use crate::account::Ended;
use crate::exchange::Past;
use crate::routes::BodyUse;

/// Writes the line at a level.
macro_rules! line {
    ($level:ident, $past:expr) => {{
        let Past {
            exchange, facts, ..
        } = $past;
        let (usage, ended) = (facts.usage, facts.ended);
        tracing::$level!(
            method = %exchange.method,
            route = exchange.route,
            status = exchange.status,
            key = exchange.key(),
            client = exchange.peer.as_ref().map(display),
            client_name = exchange.client_name(),
            request_id = exchange.id.to_str().unwrap_or_default(),
            trace_id = exchange.trace.map(|trace| display(trace.trace_id_digits())),
            prompt_tokens = usage.map(|usage| usage.prompt_tokens()),
            cached_tokens = usage.map(|usage| usage.cached_tokens()),
            completion_tokens = usage.map(|usage| usage.completion_tokens()),
            finish_reason = ended.map(|ended| ended.reason),
            error = facts.failure.and_then(|failure| failure.code),
            late_status = $past.late_failure().map(|failure| failure.status),
            aborted = (!$past.is_whole).then_some(true),
            queue_s = ended.map(|ended| seconds(ended.phases.queued)),
            first_token_s = ended.and_then(Ended::first_token).map(seconds),
            duration_s = seconds($past.elapsed),
            "answered"
        );
    }};
}

/// Tells of an exchange that is over.
pub(crate) fn tell(past: &Past) {
    match past.exchange.body_use {
        BodyUse::Read => line!(info, past),
        BodyUse::Discarded => line!(debug, past),
    }
}

/// Seconds to a tenth of a millisecond.
fn seconds(time: Duration) -> f64 {
    const PARTS: f64 = 1e4;
    (time.as_secs_f64() * PARTS).round() / PARTS
}
