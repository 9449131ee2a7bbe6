//! The report of a qualification: a page for people, JSON for programs, and a signature for both.
//!
//! Everything in it is from files: a directory of results, a manifest, benchmarks, a drill. What is not there is said to be
//! missing. Nothing is asked of any server.

mod args;
mod build;
mod cost;
mod drill;
mod identity;
mod keys;
mod model;
mod noise;
mod page;
mod signing;
mod speed;
mod summary;
mod verification;

use std::process::ExitCode;

pub use args::{
    Action, BuildArgs, CostArgs, InputArgs, KeygenArgs, ReportArgs, SignArgs, VerifyArgs,
};

use crate::QualifyError;

/// Does what the command line says. `verify` exits with 1 if the report is not what was signed, and with 3 if it is but has
/// expired.
///
/// # Errors
///
/// If it could not be done. Errors are for people.
pub fn run(args: &ReportArgs) -> Result<ExitCode, QualifyError> {
    match &args.action {
        Action::Build(args) => build::run(args),
        Action::Keygen(args) => keys::generate(args),
        Action::Sign(args) => signing::run(args),
        Action::Verify(args) => verification::run(args),
    }
}

/// Seconds since 1970.
fn unix_now_s() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |time| time.as_secs())
}

/// `2026-12-01T12:00:00Z`.
fn timestamp(unix_s: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(unix_s);
    humantime::format_rfc3339_seconds(time).to_string()
}
