//! The engine: one thread that owns the scheduler and the executor, and the handle through which
//! servers reach it.
//!
//! A turn of the engine reads its inbox, lets the scheduler make plans until the executor's
//! pipeline is full, waits for the oldest plan, and hands everything that came of it to the outbox
//! as one message. One task spreads that message over the waiting requests, so that neither the
//! engine nor the device ever waits for a client.
//!
//! Invariant: this crate knows no tensor, no tokenizer and no HTTP.

mod handle;
mod inbox;
mod lifecycle;
mod outbox;
mod pace;
mod stats;
mod thread;
mod timeline;

pub use backstop_sched::{PromptLookup, Rejection, Speculation};
pub use handle::{EngineHandle, Generation, GenerationEvent, GenerationRequest, SubmitError};
pub use lifecycle::{Lifecycle, LifecycleState};
pub use stats::{EngineStats, Liveness};
pub use thread::{EngineConfig, EngineThread};
pub use timeline::{StartPhase, Timeline};
