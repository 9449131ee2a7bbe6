//! Linux. The process that asks spawns `outer`, which enters the namespaces; that starts `init`, the first process of the
//! new process namespace, which makes the root file system; that starts `inner`, which gives up everything that is left and
//! becomes the program. When `init` ends, the kernel ends all the others.

mod available;
mod copy;
mod descriptors;
mod files;
mod identity;
mod init;
mod inner;
mod limits;
mod loopback;
mod memory;
mod mounts;
mod outer;
mod privileges;
mod proc;
mod run;
mod seal;
mod watch;
mod wire;

use std::path::PathBuf;

use crate::{Finished, IsolationError, Job, Unavailable};
use identity::Identity;
use memory::Memory;

/// What was found out about this machine.
#[derive(Debug)]
pub(crate) struct Isolation {
    /// The program that is started as the stages.
    program: PathBuf,
    identity: Identity,
    memory: Memory,
    layers: Vec<&'static str>,
}

impl Isolation {
    pub(crate) fn by(program: PathBuf) -> Result<Self, Unavailable> {
        available::tried(program)
    }

    pub(crate) fn run(&self, job: &Job<'_>) -> Result<Finished, IsolationError> {
        run::run(self, job, false)
    }

    pub(crate) fn layers(&self) -> &[&'static str] {
        &self.layers
    }
}

/// Does the work of a stage, and returns the process's status.
pub(crate) fn stage(name: &str) -> i32 {
    match name {
        outer::NAME => outer::run(),
        init::NAME => init::run(),
        inner::NAME => inner::run(),
        _ => 64,
    }
}
