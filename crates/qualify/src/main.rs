//! The binary `backstop-qualify`.

use std::io::IsTerminal;
use std::process::ExitCode;

use backstop_qualify::CommandLine;
use clap::Parser;

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    start_log();
    backstop_qualify::run(command_line).unwrap_or_else(|error| {
        tracing::error!("{error}");
        ExitCode::FAILURE
    })
}

/// Messages go to standard error, so that standard output can have results. `RUST_LOG` filters.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
