//! The binary `backstop-qualify`.

use std::process::ExitCode;

use backstop_qualify::CommandLine;
use clap::Parser;

fn main() -> ExitCode {
    // Before anything else: programs that nobody trusts are run by this one, started again.
    backstop_isolation::stage(std::env::args_os());
    let command_line = CommandLine::parse();
    backstop_companion::start_log();
    backstop_companion::end(backstop_qualify::run(command_line))
}
