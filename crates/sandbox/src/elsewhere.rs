//! Systems other than Linux, where none of this is there.

use crate::{CallsConfinement, FilesConfinement, Sandbox, SandboxError};

const REASON: &str = "it is not there on this system";

/// Who would be confined.
#[derive(Clone, Copy)]
pub(crate) enum Caller {
    Server,
    Client,
    Contained,
}

pub(crate) fn confine_files(_sandbox: &Sandbox) -> Result<FilesConfinement, SandboxError> {
    let reason = REASON.to_owned();
    Ok(FilesConfinement::Absent { reason })
}

pub(crate) fn confine_calls(_caller: Caller) -> Result<CallsConfinement, SandboxError> {
    let reason = REASON.to_owned();
    Ok(CallsConfinement::Absent { reason })
}
