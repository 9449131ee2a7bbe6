//! Other people's harnesses: run against the same server as they are, and their results read into the same report.

mod args;
mod bfcl;
mod evalplus;
mod harness;
mod lm_eval;
mod mini_swe_agent;
mod package;
mod results;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::process::ExitCode;

use crate::QualifyError;
use crate::record::Measure;

use args::{Action, ReadArgs, RunArgs};
pub use args::{AdaptersArgs, Kind};

/// Runs a harness, or reads what one left behind.
///
/// # Errors
///
/// If the package is not there, does not end well, or left nothing that can be read.
pub async fn run(args: AdaptersArgs) -> Result<ExitCode, QualifyError> {
    let (into, kind, measures) = match args.action {
        Action::Run(args) => (args.into.clone(), args.kind, run_package(&args).await?),
        Action::Read(args) => (args.into.clone(), args.kind, read_results(&args)?),
    };
    if measures.is_empty() {
        return Err(QualifyError::new("there is no result that can be read"));
    }
    let count = measures.len();
    let file = results::keep(&into, kind.name(), measures)?;
    tracing::info!("{count} measures are in {}", file.display());
    Ok(ExitCode::SUCCESS)
}

async fn run_package(args: &RunArgs) -> Result<Vec<Measure>, QualifyError> {
    let run = harness::HarnessRun::prepare(args)?;
    match args.kind {
        Kind::LmEval => lm_eval::run(&run).await,
        Kind::Evalplus => evalplus::run(&run).await,
        Kind::Bfcl => bfcl::run(&run).await,
        Kind::MiniSweAgent => mini_swe_agent::run(&run).await,
    }
}

fn read_results(args: &ReadArgs) -> Result<Vec<Measure>, QualifyError> {
    let version = args.package_version.as_deref();
    read(args.kind, &args.path, version)
}

/// Reads results of a package: a file, or all that are in a directory.
fn read(kind: Kind, path: &Path, version: Option<&str>) -> Result<Vec<Measure>, QualifyError> {
    match kind {
        Kind::LmEval => lm_eval::read(path),
        Kind::Evalplus => evalplus::read(path, version),
        Kind::Bfcl => bfcl::read(path, version),
        Kind::MiniSweAgent => mini_swe_agent::read(path),
    }
}
