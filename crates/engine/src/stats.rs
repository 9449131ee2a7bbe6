//! What the engine tells about itself, readable at any time without asking its thread.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backstop_sched::SchedulerStats;
use backstop_types::KvSpec;

use crate::pace::Pace;

/// Counters and gauges as of the engine's last turn.
#[derive(Clone, Debug)]
pub struct EngineStats {
    /// Queue lengths, KV usage, prefix-cache and preemption counters.
    pub scheduler: SchedulerStats,
    /// Shape of the KV cache.
    pub kv: KvSpec,
    /// Steps that completed.
    pub steps_completed: u64,
    /// Steps that failed.
    pub steps_failed: u64,
    /// Token positions computed by completed steps.
    pub tokens_computed: u64,
    /// Steps by the number of tokens they computed: entry `i` counts steps of at most
    /// [`STEP_TOKEN_BUCKETS`](EngineStats::STEP_TOKEN_BUCKETS)`[i]` tokens, the last one larger
    /// steps.
    pub step_tokens: [u64; EngineStats::STEP_TOKEN_BUCKETS.len() + 1],
}

impl EngineStats {
    /// Upper bounds of the buckets of `step_tokens`.
    pub const STEP_TOKEN_BUCKETS: [u32; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 512, 1024, 2048, 8192];
}

/// An idle engine turns twice a second; one that has not for so long has something that it does not get done.
const IDLE_TURN_MAX: Duration = Duration::from_secs(2);

/// Whether the engine makes progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// There was work at the end of the last turn: sequences run or wait.
    pub busy: bool,
    /// Time since the engine last finished a turn, or since the present work arrived if that is
    /// later.
    pub since_progress: Duration,
    /// What the step in progress may take at the pace of the last ones, whatever the limit.
    pub granted: Duration,
    /// The thread still runs.
    pub thread_alive: bool,
}

impl Liveness {
    /// Time that work has waited for a turn to end. Zero while the engine is idle.
    pub fn without_progress(&self) -> Duration {
        match self.busy || self.since_progress > IDLE_TURN_MAX {
            true => self.since_progress,
            false => Duration::ZERO,
        }
    }

    /// Work without progress, for longer than `limit` and than the step may take.
    pub fn is_stalled(&self, limit: Duration) -> bool {
        self.thread_alive && self.without_progress() > limit.max(self.granted)
    }
}

/// Shared between the engine thread, which writes, and everybody else, who reads.
#[derive(Debug)]
pub(crate) struct StatsCell {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    stats: EngineStats,
    busy: bool,
    last_progress: Instant,
    pace: Pace,
    /// Tokens of the step in progress; 0 without one.
    tokens_in_progress: u32,
    thread_alive: bool,
}

impl StatsCell {
    pub(crate) fn new(scheduler: SchedulerStats, kv: KvSpec) -> Self {
        let stats = EngineStats {
            scheduler,
            kv,
            steps_completed: 0,
            steps_failed: 0,
            tokens_computed: 0,
            step_tokens: [0; EngineStats::STEP_TOKEN_BUCKETS.len() + 1],
        };
        let inner = Inner {
            stats,
            busy: false,
            last_progress: Instant::now(),
            pace: Pace::default(),
            tokens_in_progress: 0,
            thread_alive: true,
        };
        Self {
            inner: Mutex::new(inner),
        }
    }

    pub(crate) fn read(&self) -> EngineStats {
        self.lock().stats.clone()
    }

    pub(crate) fn liveness(&self) -> Liveness {
        let inner = self.lock();
        Liveness {
            busy: inner.busy,
            since_progress: inner.last_progress.elapsed(),
            granted: inner.pace.grants(inner.tokens_in_progress),
            thread_alive: inner.thread_alive,
        }
    }

    /// Marks the end of an engine turn, from which on a step of so many tokens is waited for; 0 for none.
    pub(crate) fn turn(&self, scheduler: SchedulerStats, busy: bool, tokens_in_progress: u32) {
        let mut inner = self.lock();
        inner.stats.scheduler = scheduler;
        inner.busy = busy;
        inner.tokens_in_progress = tokens_in_progress;
        inner.last_progress = Instant::now();
    }

    /// Counts a step of `tokens` positions.
    pub(crate) fn step_completed(&self, tokens: u32) {
        let bucket = EngineStats::STEP_TOKEN_BUCKETS.partition_point(|&bound| bound < tokens);
        let mut inner = self.lock();
        let took = inner.last_progress.elapsed();
        inner.pace.learn(took, tokens);
        inner.stats.steps_completed += 1;
        inner.stats.tokens_computed += u64::from(tokens);
        inner.stats.step_tokens[bucket] += 1;
    }

    pub(crate) fn step_failed(&self) {
        self.lock().stats.steps_failed += 1;
    }

    pub(crate) fn thread_ended(&self) {
        self.lock().thread_alive = false;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every field is plain data that stays valid whatever panicked.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_without_progress_is_a_stall_and_a_long_step_is_none() {
        let seconds = Duration::from_secs;
        let liveness = |busy, since_progress, granted| Liveness {
            busy,
            since_progress: seconds(since_progress),
            granted: seconds(granted),
            thread_alive: true,
        };
        let limit = seconds(60);
        assert!(!liveness(true, 60, 0).is_stalled(limit));
        assert!(liveness(true, 61, 0).is_stalled(limit));
        assert!(!liveness(true, 200, 200).is_stalled(limit));
        assert!(liveness(true, 201, 200).is_stalled(limit));
        // Stuck before the end of the turn in which the first work came.
        assert!(liveness(false, 61, 0).is_stalled(limit));
        assert_eq!(liveness(false, 1, 0).without_progress(), Duration::ZERO);
        let ended = Liveness {
            thread_alive: false,
            ..liveness(true, 61, 0)
        };
        assert!(!ended.is_stalled(limit));
    }
}
