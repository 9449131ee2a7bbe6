//! Rehearses the loss of the primary provider against one's own gateway: a stand-in takes its place and fails in every
//! known way, while paced requests go through the gateway, and what comes back is judged. A program of its own, since the
//! server has nothing to call others with.

mod advice;
mod args;
mod drill;
mod error;
mod fallback;
mod faults;
mod gateway;
mod judgement;
mod load;
mod nonces;
mod rehearsal;
mod report;
mod run;
mod stand_in;
mod statistics;
mod transcript;
mod verdict;
mod watch;

pub use args::{CommandLine, GatewayArgs, LoadArgs, OutputArgs, StandInArgs};
pub use error::DrillError;
pub use faults::{Expected, FAULTS, Fault};
pub use run::run;
pub use stand_in::StandIn;
