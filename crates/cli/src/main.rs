//! The binary `backstop`: reads settings, loads a model, and serves it.

mod args;
mod audit;
mod bench;
mod browsers;
mod canary;
mod candle;
mod companion;
mod compare;
mod control;
mod descriptors;
mod device;
mod doctor;
mod documents;
mod draft;
mod encoders;
mod facts;
mod generate;
mod grammar_worker;
mod import;
mod integrity;
mod key;
mod limits;
mod listening;
mod load;
mod logging;
mod machine;
mod models;
mod notify;
mod progress;
mod provenance;
mod quantities;
mod queue;
mod sandbox;
mod serve;
mod settings;
mod signals;
mod speculative;
mod stacks;
mod standby;
mod start;
mod trace_exporter;
mod traces;
mod unread;
mod watchdog;
mod weight_cache;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use backstop_executor::panic_message;
use clap::Parser;

use crate::args::{Command, CommandLine, LogArgs};

/// The program broke an invariant, or its executor died; a supervisor should restart the process.
const EXIT_ENGINE_FAILED: u8 = 70;
/// Something hung, and could only be left behind with the process; a supervisor should start it again.
const EXIT_STALLED: u8 = 71;

fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    // The settings of a server say how it logs, and may stand in a file.
    if !matches!(command, Command::Serve(_)) {
        logging::start(&LogArgs::default());
    }
    outcome(|| match command {
        Command::Serve(args) => serve::run(*args),
        Command::Status(args) => control::status(&args),
        Command::Sleep(args) => control::sleep(&args),
        Command::Wake(args) => control::wake(&args),
        Command::Drain(args) => control::drain(&args),
        Command::Reload(args) => control::reload(&args),
        Command::Generate(args) => generate::run(*args),
        Command::Pull(args) => companion::PULL.run(&args.arguments),
        Command::Import(args) => import::run(&args),
        Command::Models(command) => models::run(&command),
        Command::Drill(args) => companion::DRILL.run(&args.arguments),
        Command::Bench(command) => bench::run(command),
        Command::Qualify(args) => companion::QUALIFY.run(&args.arguments),
        Command::Report(args) => companion::QUALIFY.run_as(&["report"], &args.arguments),
        Command::Doctor(args) => doctor::run(&args),
        Command::Canary(args) => canary::run(*args),
        Command::Compare(args) => compare::run(&args),
        Command::Key(args) => key::run(&args),
        Command::Audit(command) => audit::run(&command),
        Command::GrammarWorker => grammar_worker::run(),
        Command::TraceExporter(args) => trace_exporter::run(&args),
        Command::Documents(args) => documents::run(&args),
    })
    .unwrap_or_else(|failure| {
        logging::start(&LogArgs::default());
        tracing::error!("{failure}");
        failure.exit_code()
    })
}

/// Why a command did not do what it was to do.
#[derive(Debug, thiserror::Error)]
enum CommandFailure {
    /// What it was asked for, or something that it found, does not permit it.
    #[error("{0}")]
    Refused(String),
    /// A panic. It is never about the model or the settings: what they do not permit is refused.
    #[error("internal error, which is a fault of this program: {0}")]
    Panicked(String),
}

impl CommandFailure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Refused(_) => ExitCode::FAILURE,
            Self::Panicked(_) => ExitCode::from(EXIT_ENGINE_FAILED),
        }
    }
}

fn outcome(command: impl FnOnce() -> Result<ExitCode, String>) -> Result<ExitCode, CommandFailure> {
    match catch_unwind(AssertUnwindSafe(command)) {
        Ok(result) => result.map_err(CommandFailure::Refused),
        Err(panic) => Err(CommandFailure::Panicked(panic_message(panic.as_ref()))),
    }
}

/// The runtime of the server's side; computing has a pool of its own.
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_fault_of_the_program_and_nothing_else_is() {
        let text = |command: fn() -> Result<ExitCode, String>| match outcome(command) {
            Ok(_) => String::new(),
            Err(failure) => failure.to_string(),
        };
        let panicked = text(|| panic!("the arena is full"));
        assert!(panicked.starts_with("internal error"), "{panicked}");
        assert!(panicked.ends_with(": the arena is full"), "{panicked}");
        assert!(!panicked.contains("model"), "{panicked}");
        assert_eq!(
            text(|| Err("there is no such model".into())),
            "there is no such model"
        );
    }
}
