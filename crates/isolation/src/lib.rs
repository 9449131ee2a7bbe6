//! Runs programs that nobody trusts: Python that a model wrote, the tests of a repository.
//!
//! A program runs as the only user of a machine that is made for it and thrown away afterwards: namespaces of its own for
//! users, mounts, processes, the network, IPC, names and control groups; a root file system that has the system's programs
//! and libraries, to be read, and `/work` and `/tmp`, which lie in memory and are gone with it. It has no privileges and
//! gains none, the kernel refuses it the rarer calls, and time, memory, processes, files and output have limits.
//! `docs/isolation.md` says what each layer contains, and what is not promised.
//!
//! There is no `fork` in safe Rust, so the program that uses this crate starts itself again as each of the stages:
//! [`stage`] must be the first that its `main` calls.

mod error;
mod job;
mod python;

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod linux;

use std::ffi::OsString;
use std::path::PathBuf;

#[cfg(not(target_os = "linux"))]
use elsewhere as system;
#[cfg(target_os = "linux")]
use linux as system;

pub use error::{IsolationError, Unavailable};
pub use job::{Ended, Finished, Job, Limits};
pub use python::Interpreter;

/// The argument by which a program knows that it was started as a stage.
pub const STAGE: &str = "contain";

/// A machine's means to run programs contained, tried once.
#[derive(Debug)]
pub struct Isolation(system::Isolation);

impl Isolation {
    /// Tries all layers, by running nothing within them. This program's `main` must begin with [`stage`].
    ///
    /// # Errors
    ///
    /// If a layer is missing: which one, and what to do about it. There is no way to run anything without it.
    pub fn available() -> Result<Self, Unavailable> {
        Self::by(PathBuf::from("/proc/self/exe"))
    }

    /// The same by another program whose `main` begins with [`stage`]. Tests have one beside them.
    ///
    /// # Errors
    ///
    /// As [`available`](Self::available).
    pub fn by(program: PathBuf) -> Result<Self, Unavailable> {
        system::Isolation::by(program).map(Self)
    }

    /// Runs a program until it ends, or a limit ends it, and everything that it started with it. It blocks for so long, and
    /// may be called from several threads at once.
    ///
    /// # Errors
    ///
    /// If the program could not be started, or this machine fails. What a program does to itself is no error.
    pub fn run(&self, job: &Job<'_>) -> Result<Finished, IsolationError> {
        job.check()?;
        self.0.run(job)
    }

    /// What contains the programs on this machine, for reports.
    pub fn layers(&self) -> &[&'static str] {
        self.0.layers()
    }
}

/// Does the work of a stage and ends the process, if it was started as one; else returns. Call it first of all in `main`,
/// before there are threads or open files, with the process's arguments.
pub fn stage(arguments: impl IntoIterator<Item = OsString>) {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next().is_some_and(|first| first == STAGE) {
        let name = arguments.next().unwrap_or_default();
        std::process::exit(system::stage(&name.to_string_lossy()));
    }
}
