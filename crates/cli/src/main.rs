//! The binary `backstop`: reads settings, loads a model, and serves it.

mod args;
mod browsers;
mod canary;
mod descriptors;
mod device;
mod doctor;
mod draft;
mod facts;
mod generate;
mod grammar_worker;
mod key;
mod limits;
mod load;
mod machine;
mod progress;
mod provenance;
mod quantities;
mod queue;
mod serve;
mod settings;
mod signals;
mod speculative;
mod start;
mod warm_up;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Command, CommandLine};

/// The engine broke an invariant or its executor died; a supervisor should restart the process.
const EXIT_ENGINE_FAILED: u8 = 70;

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    start_log();
    let result = match command_line.command {
        Command::Serve(args) => serve::run(*args),
        Command::Generate(args) => generate::run(*args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Canary(args) => canary::run(*args),
        Command::Key(args) => key::run(&args),
        Command::GrammarWorker => grammar_worker::run(),
    };
    match result {
        Ok(code) => code,
        Err(message) => {
            tracing::error!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Logs go to standard error, so that standard output holds answers alone. `RUST_LOG` filters.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
}

/// The runtime of the server's side; computing has a pool of its own.
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))
}
