//! A thread with room for deep recursion.

use std::thread;

use super::TemplateError;

/// The engine goes down one level of its stack for each level of an expression, and for each level
/// of a value that it writes or drops; other threads have room for some hundred of them. Only what
/// is used becomes memory.
const STACK_BYTES: usize = 64 << 20;

/// Does some work with a templating engine on a thread of its own.
pub(super) fn run<T: Send>(
    work: impl FnOnce() -> Result<T, TemplateError> + Send,
) -> Result<T, TemplateError> {
    let thread = thread::Builder::new()
        .name("chat-template".to_owned())
        .stack_size(STACK_BYTES);
    thread::scope(|scope| {
        let running = thread
            .spawn_scoped(scope, work)
            .map_err(|error| TemplateError::Failed(format!("no thread: {error}")))?;
        running
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
