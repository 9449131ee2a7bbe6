//! What the command line asks for.

use std::future::Future;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use crate::QualifyError;
use crate::args::{Command, CommandLine, SuiteArgs};
use crate::{adapters, bench, compare, conformance, qualification, replay, report, suites};

/// How long a program that is being judged may hold up the end.
const LAST_JUDGEMENT: Duration = Duration::from_secs(2);

/// Does what the command line says, until it is done or the process is told to end.
///
/// # Errors
///
/// If it could not be done.
pub fn run(command_line: CommandLine) -> Result<ExitCode, QualifyError> {
    if let Some(command) = command_line.command {
        // A line for each part.
        return match command {
            Command::Bench(args) => bench::run(&args),
            Command::Conformance(args) => conformance::run(&args),
            Command::Report(args) => report::run(&args),
            Command::Compare(args) => compare::run(&args),
            Command::Adapters(args) => until_told_to_end(adapters::run(args)),
            Command::Replay(args) => until_told_to_end(replay::run(&args)),
        };
    }
    if command_line.suites.list {
        return list(&command_line.suites);
    }
    until_told_to_end(qualification::run(&command_line.suites))
}

/// Runs to the end, or until SIGINT or SIGTERM; then what runs is dropped.
pub(crate) fn until_told_to_end(
    acting: impl Future<Output = Result<ExitCode, QualifyError>>,
) -> Result<ExitCode, QualifyError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| QualifyError::new(format!("cannot start the runtime: {error}")))?;
    let done = runtime.block_on(async {
        tokio::select! {
            done = acting => done,
            ended = told_to_end() => Err(ended),
        }
    });
    runtime.shutdown_timeout(LAST_JUDGEMENT);
    done
}

async fn told_to_end() -> QualifyError {
    match backstop_companion::told_to_end().await {
        Ok(()) => QualifyError::new("told to end; the same command goes on from here"),
        Err(error) => QualifyError::new(format!("cannot wait for signals: {error}")),
    }
}

fn list(args: &SuiteArgs) -> Result<ExitCode, QualifyError> {
    let definitions = suites::definitions(args.suites.as_deref())?;
    let width = definitions
        .iter()
        .map(|one| one.name.len())
        .max()
        .unwrap_or(0);
    let mut out = std::io::stdout().lock();
    let written = definitions
        .iter()
        .try_for_each(|one| writeln!(out, "{:width$}  {}", one.name, one.description));
    written.map_err(|error| QualifyError::new(format!("standard output: {error}")))?;
    Ok(ExitCode::SUCCESS)
}
