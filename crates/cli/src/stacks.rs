//! The stacks of all threads, in the log.

/// Sets up what stacks need, before anything goes wrong.
pub(crate) fn prepare() {
    if let Err(error) = backstop_stacks::prepare() {
        tracing::debug!(%error, "stacks of threads cannot be told");
    }
}

/// Logs the stacks of all threads: names of functions, and nothing of what they work on.
pub(crate) fn log() {
    match backstop_stacks::capture() {
        Ok(threads) => {
            tracing::info!("stacks of all {} threads:", threads.len());
            threads.iter().for_each(|thread| tracing::info!("{thread}"));
        }
        Err(error) => tracing::warn!(%error, "there are no stacks of threads"),
    }
}
