//! What the engine tells about itself, readable at any time without asking its thread.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backstop_sched::SchedulerStats;
use backstop_types::KvSpec;

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

/// Whether the engine makes progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// There is work: sequences run or wait.
    pub busy: bool,
    /// Time since the engine last finished a turn, or since the present work arrived if that is
    /// later.
    pub since_progress: Duration,
    /// The thread still runs.
    pub thread_alive: bool,
}

impl Liveness {
    /// Busy is not dead, and idle is not dead; work without progress is.
    pub fn is_alive(&self, stall: Duration) -> bool {
        self.thread_alive && !(self.busy && self.since_progress > stall)
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
            thread_alive: inner.thread_alive,
        }
    }

    /// Marks the end of an engine turn.
    pub(crate) fn turn(&self, scheduler: SchedulerStats, busy: bool) {
        let mut inner = self.lock();
        inner.stats.scheduler = scheduler;
        inner.busy = busy;
        inner.last_progress = Instant::now();
    }

    /// Counts a step of `tokens` positions.
    pub(crate) fn step_completed(&self, tokens: u32) {
        let bucket = EngineStats::STEP_TOKEN_BUCKETS.partition_point(|&bound| bound < tokens);
        let mut inner = self.lock();
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
