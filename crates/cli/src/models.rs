//! `backstop models`: what is known of models, what is here, and what this machine runs.

mod list;
mod remove;
mod show;
mod verdict;
mod verify;

use std::process::ExitCode;

pub(crate) use self::remove::NO_STORE;
use crate::args::ModelsCommand;

pub(crate) fn run(command: &ModelsCommand) -> Result<ExitCode, String> {
    match command {
        ModelsCommand::List(args) => list::run(args),
        ModelsCommand::Show(args) => show::run(args),
        ModelsCommand::Verify(args) => verify::run(args),
        ModelsCommand::Remove(args) => remove::run(args),
    }
}
