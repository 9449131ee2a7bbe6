//! How much the server has had to do, and how fast it was: the last hour, in samples.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::ring::Ring;
use crate::metrics::{LatencyCounts, Quantiles, kv_usage};
use crate::server::Server;

/// Pause between two samples.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
/// An hour of samples.
const SAMPLES_MAX: usize = 720;

/// One interval: means over it, and what was the case at its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoadSample {
    /// Its end.
    pub(super) at: SystemTime,
    pub(super) prompt_tokens_per_s: f64,
    pub(super) generation_tokens_per_s: f64,
    pub(super) errors_per_s: f64,
    pub(super) running: u32,
    pub(super) waiting: u32,
    /// Used share of the fullest KV pool; 1 is all of it.
    pub(super) kv_usage: Option<f64>,
    /// Of the first tokens that came within the interval, in seconds.
    pub(super) first_token: Option<Quantiles>,
    /// Of the tokens behind others that came within the interval, in seconds.
    pub(super) inter_token: Option<Quantiles>,
}

/// The latest samples.
#[derive(Debug, Default)]
pub(super) struct LoadHistory {
    samples: Mutex<Ring<LoadSample, SAMPLES_MAX>>,
}

impl LoadHistory {
    /// Oldest first.
    pub(super) fn samples(&self) -> Vec<LoadSample> {
        self.lock().iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Ring<LoadSample, SAMPLES_MAX>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a sample every few seconds.
pub(super) async fn follow(server: &Server) {
    let mut before = Totals::of(server);
    loop {
        tokio::time::sleep(SAMPLE_INTERVAL).await;
        let now = Totals::of(server);
        let sample = sample(server, &before, &now);
        server.records().load.lock().push(sample);
        before = now;
    }
}

/// What only grows.
struct Totals {
    at: Instant,
    prompt_tokens: u64,
    generation_tokens: u64,
    errors: u64,
    first_token: LatencyCounts,
    inter_token: LatencyCounts,
}

impl Totals {
    fn of(server: &Server) -> Self {
        let generating = server.installed().map(|model| &model.metrics);
        let encoders = server.encoders().all();
        let encoded: u64 = encoders
            .map(|encoder| encoder.metrics.prompt_tokens.get())
            .sum();
        let generated = generating.map_or(0, |metrics| metrics.generation_tokens.get());
        let read = generating.map_or(0, |metrics| metrics.prompt_tokens.get());
        Self {
            at: Instant::now(),
            prompt_tokens: read + encoded,
            generation_tokens: generated,
            errors: server.records().errors.total(),
            first_token: generating.map_or_else(LatencyCounts::default, |metrics| {
                metrics.first_token_seconds.counts()
            }),
            inter_token: generating.map_or_else(LatencyCounts::default, |metrics| {
                metrics.inter_token_seconds.counts()
            }),
        }
    }
}

fn sample(server: &Server, before: &Totals, now: &Totals) -> LoadSample {
    let seconds = now.at.duration_since(before.at).as_secs_f64();
    let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
    let stats = server.installed().map(|model| model.served.engine.stats());
    let (mut running, mut waiting) = stats.as_ref().map_or((0, 0), |stats| {
        (stats.scheduler.running, stats.scheduler.waiting)
    });
    for encoder in server.encoders().all() {
        let liveness = encoder.liveness();
        running += liveness.running;
        waiting += liveness.waiting;
    }
    LoadSample {
        at: SystemTime::now(),
        prompt_tokens_per_s: rate(now.prompt_tokens, before.prompt_tokens),
        generation_tokens_per_s: rate(now.generation_tokens, before.generation_tokens),
        errors_per_s: rate(now.errors, before.errors),
        running,
        waiting,
        kv_usage: stats.as_ref().map(kv_usage),
        first_token: now.first_token.since(&before.first_token),
        inter_token: now.inter_token.since(&before.inter_token),
    }
}
