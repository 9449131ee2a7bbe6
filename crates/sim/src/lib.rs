//! Seeded simulator of the scheduler and the KV accounting.
//!
//! A seed gives a random configuration and a random sequence of arrivals, aborts, steps, late
//! outcomes and failures. Three things watch every turn:
//!
//! * an oracle with infinite memory, which knows what every sequence must generate, when it must
//!   end and which notices each event must bring;
//! * an executor with a shadow KV cache, where each position of a block holds a hash of the whole
//!   prefix that it stands for. It reads back everything that attention would see, so that a wrong
//!   table, a stale block or an early publication shows as wrong content;
//! * the scheduler's own audit.
//!
//! Whatever they dislike is a panic. The same seed gives the same run on every machine.

mod executor;
mod fairness;
mod load;
mod oracle;
mod random;
mod report;
mod scenario;
mod simulation;

pub use load::DecodeLoad;
pub use report::Report;
pub use simulation::{Simulation, run};
