//! Work that keeps a processor busy. All of it takes turns, so that probes and streams are served
//! in between however many requests arrive at once.

use std::sync::Arc;

use backstop_protocol::ApiError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::server::Server;

/// Turns for work of either kind.
#[derive(Debug)]
pub(crate) struct Turns {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

impl Turns {
    /// Turns for so much long work at once, and for short work on all threads of the runtime but
    /// one, which stays free.
    pub(crate) fn new(max_long: usize) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            short: Arc::new(Semaphore::new((threads - 1).max(1))),
            long: Arc::new(Semaphore::new(max_long.max(1))),
        }
    }
}

/// Does work of about a millisecond, on this thread.
pub(crate) async fn short<T>(server: &Server, work: impl FnOnce() -> T) -> Result<T, ApiError> {
    let _turn = turn(server, &server.turns().short).await?;
    Ok(work())
}

/// Does work that may take seconds, on a thread of its own. `name` is for the log.
pub(crate) async fn long<T: Send + 'static>(
    server: &Server,
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let turn = turn(server, &server.turns().long).await?;
    let work = move || {
        let result = work();
        // Held by the work itself: it goes on even if its client goes away.
        drop(turn);
        result
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "{name} failed");
        ApiError::internal()
    })
}

async fn turn(server: &Server, turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
    let turn = Arc::clone(turns).acquire_owned();
    match tokio::time::timeout(server.queue_timeout(), turn).await {
        Ok(Ok(turn)) => Ok(turn),
        _ => Err(server.deadline_exceeded()),
    }
}
