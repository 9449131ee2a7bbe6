//! Work that keeps a processor busy. All of it takes turns, so that probes and streams are served
//! in between however many requests arrive at once, and no key waits for another's line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backstop_protocol::ApiError;

use crate::body::BudgetedBody;
use crate::in_flight::RequestGuard;
use crate::server::Server;
use crate::trial::WORKERS_MAX;
use crate::turns::{NoTurn, Turn, Turns};

/// Bodies up to this size take about a millisecond and are worked on in place; larger ones on a thread
/// of their own.
const IN_PLACE_BYTES_MAX: usize = 4 << 10;
/// By how much long work stands back behind the engine and the streams: it gets half the time of
/// who does not. With processes that try grammars, which get a third, all turns taken leave the
/// engine half of the processors.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 3;

/// Turns for work of either kind.
#[derive(Debug)]
pub(crate) struct WorkTurns {
    short: Arc<Turns>,
    long: Arc<Turns>,
    grammars: Arc<Turns>,
}

impl WorkTurns {
    /// Turns for so much long work at once, but for no more than there are processors, which the
    /// engine needs as well; for short work on all threads of the runtime but one, which stays free;
    /// and for grammars as many as there are processes to try them in.
    pub(crate) fn new(max_long: usize) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            short: Turns::new(threads - 1),
            // Of two, one can be kept for whoever has none.
            long: Turns::new(max_long.min(threads.max(2))),
            grammars: Turns::new(WORKERS_MAX),
        }
    }
}

/// Tells work whether nobody waits for it any more. Work that can take long looks now and then,
/// and ends early; what it returns then is thrown away.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    /// Whether the work is in vain.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Cancels when it is dropped: with the future of whoever waits.
struct CancelOnDrop(Cancelled);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Does work on a request's body.
pub(crate) async fn on_body<T: Send + 'static>(
    request: &RequestGuard,
    body: Arc<BudgetedBody>,
    work: impl FnOnce(&Server, &[u8]) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if body.text().len() <= IN_PLACE_BYTES_MAX {
        return short(request, || work(&request.server, body.text())).await?;
    }
    let server = request.server.clone();
    // The body goes along, so that what it holds of the budget is held until the work ends.
    let work = move |_: &Cancelled| work(&server, body.text());
    long(request, "preparing a prompt", work).await?
}

/// Does work of about a millisecond, on this thread.
async fn short<T>(request: &RequestGuard, work: impl FnOnce() -> T) -> Result<T, ApiError> {
    let _turn = turn(request, &request.server.turns().short).await?;
    Ok(work())
}

/// Does work that may take seconds, on a thread of its own. `name` is for the log. Until the work
/// ends it counts as a request of its sender's, even if the sender has gone away.
async fn long<T: Send + 'static>(
    request: &RequestGuard,
    name: &'static str,
    work: impl FnOnce(&Cancelled) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let turn = turn(request, &request.server.turns().long).await?;
    apart(request, turn, name, work).await
}

/// Does work like [`long`] work that needs one of the processes in which grammars are tried.
pub(crate) async fn grammar<T: Send + 'static>(
    request: &RequestGuard,
    work: impl FnOnce(&Cancelled) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let turn = turn(request, &request.server.turns().grammars).await?;
    apart(request, turn, "compiling a grammar", work).await
}

/// Does work on a thread of its own, and ends the turn with it.
async fn apart<T: Send + 'static>(
    request: &RequestGuard,
    turn: Turn,
    name: &'static str,
    work: impl FnOnce(&Cancelled) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let ticket = request.ticket.clone();
    let cancelled = Cancelled::default();
    let _cancel = CancelOnDrop(cancelled.clone());
    let work = move || {
        stand_back();
        let result = (!cancelled.is_set()).then(|| work(&cancelled));
        drop((turn, ticket));
        result
    };
    let result = tokio::task::spawn_blocking(work).await;
    let result = result.map_err(|error| {
        tracing::error!(%error, "{name} failed");
        ApiError::internal()
    });
    // Without a result it was cancelled, and then nobody is here.
    result?.ok_or_else(ApiError::internal)
}

/// Lets streams and probes have the processors first. The thread does nothing but such work.
fn stand_back() {
    // Elsewhere it would be the whole process that stands back.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "work keeps the priority that it has");
    }
}

async fn turn(request: &RequestGuard, turns: &Arc<Turns>) -> Result<Turn, ApiError> {
    let server = &request.server;
    let turn = turns.take(request.asker(), server.queue_timeout()).await;
    turn.map_err(|reason| match reason {
        NoTurn::Full => server.queue_full(),
        NoTurn::TimedOut => server.deadline_exceeded(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use backstop_engine::Lifecycle;

    use super::*;
    use crate::record::Record;
    use crate::{KeySet, KeySettings, ServerConfig};

    fn request(server: &Server) -> Result<RequestGuard, ApiError> {
        let mut headers = axum::http::HeaderMap::new();
        headers.insert(
            "x-api-key",
            axum::http::HeaderValue::from_static("a-good-key"),
        );
        let caller = server.keys().unwrap().find(&headers).unwrap();
        Ok(RequestGuard::new(
            server,
            caller.begin()?,
            Record::default(),
        ))
    }

    #[tokio::test]
    async fn work_counts_for_its_sender_until_it_ends_and_learns_that_it_is_in_vain() {
        let settings = KeySettings {
            max_concurrent_requests: Some(1),
            ..KeySettings::default()
        };
        let config = ServerConfig {
            api_keys: Some(KeySet::with_settings([("a-good-key", settings)])),
            ..ServerConfig::default()
        };
        let server = Server::new(config, Lifecycle::new());
        let guard = request(&server).unwrap();
        let (began, begun) = tokio::sync::oneshot::channel();
        let (finish, finished) = mpsc::channel::<()>();
        let (tell, told) = tokio::sync::oneshot::channel();
        let waiting = tokio::spawn(async move {
            let work = move |cancelled: &Cancelled| {
                began.send(cancelled.is_set()).unwrap();
                finished.recv().unwrap();
                tell.send(cancelled.is_set()).unwrap();
            };
            long(&guard, "a test", work).await
        });
        assert!(!begun.await.unwrap());
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        // The client is gone, its work is not.
        assert_eq!(request(&server).unwrap_err().status, 429);
        finish.send(()).unwrap();
        assert!(told.await.unwrap());
        while request(&server).is_err() {
            tokio::task::yield_now().await;
        }
    }
}
