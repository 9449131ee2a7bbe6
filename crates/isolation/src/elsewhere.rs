//! Systems other than Linux, where none of this is there.

use std::convert::Infallible;
use std::path::PathBuf;

use crate::{Finished, IsolationError, Job, Unavailable};

/// There is none.
#[derive(Debug)]
pub(crate) struct Isolation(Infallible);

impl Isolation {
    pub(crate) fn by(_program: PathBuf) -> Result<Self, Unavailable> {
        Err(Unavailable {
            layer: "Linux".to_owned(),
            reason: "this system has no namespaces".to_owned(),
            advice: "run this on Linux, 5.14 or newer, or in a virtual machine of it".to_owned(),
        })
    }

    pub(crate) fn run(&self, _job: &Job<'_>) -> Result<Finished, IsolationError> {
        match self.0 {}
    }

    pub(crate) fn layers(&self) -> &[&'static str] {
        match self.0 {}
    }
}

pub(crate) fn stage(_name: &str) -> i32 {
    64
}
