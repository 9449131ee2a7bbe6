//! Linux: Landlock for files and ports, seccomp for calls.

mod calls;
mod files;
mod refused;

pub(crate) use calls::confine_calls;
pub(crate) use files::confine_files;
pub(crate) use refused::Caller;
