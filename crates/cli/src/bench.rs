//! `backstop bench`: a server under load, which another program asks, or a model in this process.

mod offline;

use std::process::ExitCode;

use crate::args::BenchCommand;
use crate::companion;

pub(crate) fn run(command: BenchCommand) -> Result<ExitCode, String> {
    match command {
        BenchCommand::Serve(args) => {
            companion::QUALIFY.run_as(&["bench", "serve"], &args.arguments)
        }
        BenchCommand::Offline(args) => offline::run(*args),
    }
}
