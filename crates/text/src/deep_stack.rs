//! Work that may recurse as deep as a request's or a template's sources allow, on a stack that has room for it.

use std::io;

/// Does the work on a thread of its own with a stack of so many bytes, of which the operating
/// system only gives what is touched.
pub(crate) fn with_stack<T: Send>(
    name: &str,
    stack_bytes: usize,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(stack_bytes)
            .spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(result) => Ok(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
