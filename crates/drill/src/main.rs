//! The binary `backstop-drill`: rehearses the loss of the primary provider.

use std::process::ExitCode;

use backstop_drill::CommandLine;
use clap::Parser;

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    backstop_companion::start_log();
    backstop_companion::end(backstop_drill::run(&command_line))
}
