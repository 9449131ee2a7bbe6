//! The binary `backstop-pull`: fetches a model, once, on request.

use std::process::ExitCode;

use backstop_pull::CommandLine;
use clap::Parser;

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    backstop_companion::start_log();
    let outcome = backstop_pull::run(&command_line);
    backstop_companion::end(outcome.map(|()| ExitCode::SUCCESS))
}
