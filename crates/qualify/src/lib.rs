//! Re-runs vendors' claims against a server: suites of tasks, benchmarks, comparisons of two endpoints, and a report that
//! can be signed. A program of its own, since the server has nothing to call others with.

pub mod record;
pub mod suite;

mod error;

pub use error::QualifyError;
