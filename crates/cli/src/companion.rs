//! Commands that are programs of their own, which lie beside this one. Those programs may go online; this one has nothing
//! to do so with.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// A program that is installed beside this one.
pub(crate) struct Companion {
    name: &'static str,
    /// What to do where it is not there.
    otherwise: &'static str,
}

/// Fetches models.
pub(crate) const PULL: Companion = Companion {
    name: "backstop-pull",
    otherwise: "on a machine without network, fetch models elsewhere with `backstop-pull --to DIR` and bring them here with \
                `backstop import DIR`",
};

/// Rehearses the loss of the primary provider.
pub(crate) const DRILL: Companion = Companion {
    name: "backstop-drill",
    otherwise: "it need not be on the server's machine",
};

/// Re-runs claims, measures servers under load, and reports.
pub(crate) const QUALIFY: Companion = Companion {
    name: "backstop-qualify",
    otherwise: "it need not be on the server's machine",
};

impl Companion {
    /// Hands over to one of the program's own commands.
    pub(crate) fn run_as(
        &self,
        command: &[&str],
        arguments: &[OsString],
    ) -> Result<ExitCode, String> {
        let command = command.iter().map(OsString::from);
        let line: Vec<OsString> = command.chain(arguments.iter().cloned()).collect();
        self.run(&line)
    }

    /// Hands over to the program, and does not return if it is there.
    pub(crate) fn run(&self, arguments: &[OsString]) -> Result<ExitCode, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let program = own.with_file_name(self.name);
        if !program.is_file() {
            return Err(format!(
                "{} is not there. `cargo build --release --package {}` makes it; {}",
                program.display(),
                self.name,
                self.otherwise
            ));
        }
        let error = Command::new(&program).args(arguments).exec();
        Err(format!("cannot start {}: {error}", program.display()))
    }
}
