//! Continuous batching as a pure, deterministic state machine.
//!
//! [`Scheduler::on`] takes events, [`Scheduler::plan`] makes the next step, and
//! [`Scheduler::take_notices`] says what became of the sequences. There are no prefill and decode
//! phases: each sequence has a number of tokens (known, or being sampled by a step in flight) and
//! a number of positions computed, and a step hands out a budget of tokens so that the second
//! number catches up with the first. Chunked prefill falls out of it.
//!
//! Order decides: sequences are ranked by priority and then by arrival. Blocks go to the first in
//! rank, preemption takes from the last, and nothing behind a blocked sequence is served. So the
//! first in rank always advances, and everything finishes. One thing comes before rank: of each
//! tenant one sequence runs before others have several.
//!
//! Invariant: nothing here reads a clock, draws a random number, hashes, logs, locks or computes
//! with floats. The same events in the same order give the same plans and notices.

mod admission;
mod audit;
mod budget;
mod config;
mod event;
mod outcome;
mod planning;
mod scheduler;
mod sequence;
mod speculation;
mod tenants;
mod yielding;

pub use config::{ConfigError, SchedulerConfig};
pub use event::{Arrival, Event, Notice, Rejection};
pub use scheduler::{Scheduler, SchedulerStats};
pub use speculation::{PromptLookup, Speculation};
