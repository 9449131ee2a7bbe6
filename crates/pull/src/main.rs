//! The binary `backstop-pull`: fetches a model, once, on request.

use std::io::IsTerminal;
use std::process::ExitCode;

use backstop_pull::CommandLine;
use clap::Parser;

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    start_log();
    match backstop_pull::run(&command_line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Messages go to standard error, without the time, for somebody waits for them. `RUST_LOG` filters.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
}
