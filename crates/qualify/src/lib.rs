//! Re-runs vendors' claims against a server: suites of tasks, benchmarks, comparisons of two endpoints, and a report that
//! can be signed. A program of its own, since the server has nothing to call others with.

pub mod adapters;
pub mod bench;
pub mod claims;
pub mod compare;
pub mod conformance;
pub mod random;
pub mod record;
pub mod replay;
pub mod report;
pub mod statistics;
pub mod store;
pub mod subject;
pub mod suite;
pub mod suites;

mod args;
mod endpoints;
mod error;
mod output;
mod qualification;
mod run;
mod runner;
mod scratch;
mod subprocess;

pub use args::{CodeArgs, Command, CommandLine, EndpointArgs, SamplingArgs, SuiteArgs};
pub use endpoints::PairArgs;
pub use error::QualifyError;
pub use qualification::PROGRAM;
pub use run::run;
