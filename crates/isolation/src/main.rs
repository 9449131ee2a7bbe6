//! Says whether programs can be contained on this machine, and by what. Its tests have it as their stages; programs that use
//! the crate are stages themselves.

use std::io::{Write, stderr, stdout};
use std::process::ExitCode;

use backstop_isolation::Isolation;

fn main() -> ExitCode {
    backstop_isolation::stage(std::env::args_os());
    let written = match Isolation::available() {
        Ok(isolation) => writeln!(stdout(), "{}", isolation.layers().join("\n")).map(|()| true),
        Err(unavailable) => writeln!(stderr(), "{unavailable}").map(|()| false),
    };
    match written {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}
