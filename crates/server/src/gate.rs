//! The gate before the engine: decides who may wait, and in which order those who wait are served.
//!
//! Requests are refused here, before the engine hears of them, when the queue is full in requests
//! or in prompt tokens, or when their key has its share of it. Those that are let in get a
//! priority from a virtual clock (self-clocked fair queueing): each key's requests are stamped
//! with the virtual time at which they would end if every key had its share of the engine, and the
//! engine takes the lowest stamp first. A key that sends much waits behind its own requests, one
//! that sends little comes soon, and none starves, for the clock passes every stamp.
//!
//! Invariant: what the gate keeps is bounded by the requests it let in and by the keys seen within
//! [`REMEMBERED`].

mod drain;
mod probes;
mod profile;
mod queue;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub(crate) use self::drain::{DrainRate, QueueSample, SAMPLE_INTERVAL};
pub use self::profile::{AdmissionProfile, QueueLimits};
use self::queue::{Queue, Stamp};
use crate::config::ServerConfig;
use crate::lane::Lane;

/// Whose requests share a fair share.
pub(crate) type TenantId = u64;

/// What a request wants.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) tenant: TenantId,
    /// Keys that could ask.
    pub(crate) tenants: usize,
    pub(crate) lane: Lane,
    /// Prompt tokens of each sequence.
    pub(crate) prompt_tokens: Vec<u32>,
    /// Longest answer.
    pub(crate) max_tokens: u32,
}

/// The engine as its statistics show it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occupancy {
    pub(crate) running: u32,
    pub(crate) max_running: u32,
    pub(crate) waiting: u32,
}

impl Occupancy {
    /// Sequences that can run. With a queue that is what does run, for then memory may be what
    /// there is too little of; without one every slot can be filled.
    fn capacity(self) -> u32 {
        match self.waiting {
            0 => self.max_running,
            _ => self.running,
        }
    }
}

/// Why a request may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// As many requests wait as may.
    Requests,
    /// As many prompt tokens wait as may.
    Tokens,
    /// Its key has as many requests in the server as it may while others want in as well.
    Share,
    /// Its lane is closed in an outage.
    Lane,
}

/// Lets requests into the queue.
#[derive(Debug)]
pub(crate) struct Gate {
    normal: QueueLimits,
    outage: QueueLimits,
    max_tokens: Option<u64>,
    in_outage: AtomicBool,
    queue: Mutex<Queue>,
}

impl Gate {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        Self {
            normal: config.normal,
            outage: config.outage,
            max_tokens: config.max_queued_tokens,
            in_outage: AtomicBool::new(config.admission_profile == AdmissionProfile::Outage),
            queue: Mutex::default(),
        }
    }

    pub(crate) fn profile(&self) -> AdmissionProfile {
        match self.in_outage.load(Ordering::Relaxed) {
            true => AdmissionProfile::Outage,
            false => AdmissionProfile::Normal,
        }
    }

    pub(crate) fn set_profile(&self, profile: AdmissionProfile) {
        let outage = profile == AdmissionProfile::Outage;
        self.in_outage.store(outage, Ordering::Relaxed);
    }

    /// The limits that hold now.
    pub(crate) fn limits(&self) -> QueueLimits {
        match self.profile() {
            AdmissionProfile::Normal => self.normal,
            AdmissionProfile::Outage => self.outage,
        }
    }

    /// Prompt tokens that wait.
    pub(crate) fn waiting_tokens(&self) -> u64 {
        self.queue().waiting_tokens()
    }

    /// Places for all sequences of a request, or for none.
    pub(crate) fn enter(
        self: &Arc<Self>,
        ask: &Ask,
        engine: Occupancy,
    ) -> Result<Vec<QueuePlace>, Refusal> {
        let now = Instant::now();
        let bounds = queue::Bounds {
            profile: self.profile(),
            capacity: engine.capacity(),
            queued: engine.waiting > 0,
            max_waiting: self.limits().max_requests,
            max_tokens: self.max_tokens,
        };
        let stamps = self.queue().enter(ask, &bounds, now)?;
        let places = stamps.into_iter().map(|stamp| QueuePlace {
            gate: Arc::clone(self),
            stamp,
            waiting: true,
            generated: 0,
        });
        Ok(places.collect())
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every change is complete before anything can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One sequence's place in the queue, and then in the engine. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct QueuePlace {
    gate: Arc<Gate>,
    stamp: Stamp,
    waiting: bool,
    generated: u64,
}

impl QueuePlace {
    /// The scheduler's priority, of which smaller is sooner.
    pub(crate) fn priority(&self) -> i32 {
        self.stamp.priority()
    }

    /// Prompt tokens of the sequence.
    pub(crate) fn prompt_tokens(&self) -> u32 {
        self.stamp.prompt_tokens
    }

    /// The sequence left the queue.
    pub(crate) fn admitted(&mut self) {
        if std::mem::replace(&mut self.waiting, false) {
            self.gate.queue().admitted(&self.stamp);
        }
    }

    /// The sequence generated a token.
    pub(crate) fn token(&mut self) {
        self.generated += 1;
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        let mut queue = self.gate.queue();
        queue.left(&self.stamp, self.waiting, self.generated);
    }
}
