//! `backstop pull`: hands over to the program `backstop-pull`, which lies beside this one. That program may go
//! online; this one has nothing to do so with.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use crate::args::PullArgs;

/// The program, as cargo and package managers install it beside this one.
const PROGRAM: &str = "backstop-pull";

/// Does not return if the program is there.
pub(crate) fn run(args: &PullArgs) -> Result<ExitCode, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let program = own.with_file_name(PROGRAM);
    if !program.is_file() {
        return Err(format!(
            "{} is not there. `cargo build --release --package {PROGRAM}` makes it; on a machine without network, \
             fetch models elsewhere with `{PROGRAM} --to DIR` and bring them here with `backstop import DIR`",
            program.display()
        ));
    }
    let error = Command::new(&program).args(&args.arguments).exec();
    Err(format!("cannot start {}: {error}", program.display()))
}
