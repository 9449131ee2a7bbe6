//! Connections, and those that are kept for later requests.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response};
use tokio::task::JoinSet;

use crate::endpoint::explain;

/// How long a kept connection may take to be ready. One whose last answer was not read to its end never is.
const READY_WITHIN: Duration = Duration::from_millis(5);

/// A connection, which ends when it is dropped.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _running: JoinSet<()>,
}

/// Why there is no answer, and the request if not a byte of it was sent.
pub(crate) struct Unsent {
    pub(crate) error: String,
    pub(crate) request: Option<Request<Full<Bytes>>>,
}

impl Connection {
    pub(crate) fn new(
        sender: SendRequest<Full<Bytes>>,
        run: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let mut running = JoinSet::new();
        running.spawn(run);
        Self {
            sender,
            _running: running,
        }
    }

    pub(crate) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Unsent> {
        let sent = self.sender.try_send_request(request).await;
        sent.map_err(|mut unsent| Unsent {
            request: unsent.take_message(),
            error: explain(unsent.error()),
        })
    }

    async fn is_ready(&mut self) -> bool {
        let ready = tokio::time::timeout(READY_WITHIN, self.sender.ready()).await;
        matches!(ready, Ok(Ok(())))
    }
}

/// Connections that are not in use.
pub(crate) struct Kept {
    idle: Mutex<Vec<Connection>>,
    idle_max: usize,
}

impl Kept {
    pub(crate) fn new(idle_max: usize) -> Self {
        Self {
            idle: Mutex::default(),
            idle_max,
        }
    }

    /// The one that was used last, as servers close those that are idle for long.
    pub(crate) async fn take(&self) -> Option<Connection> {
        loop {
            let mut connection = self.lock().pop()?;
            if connection.is_ready().await {
                return Some(connection);
            }
        }
    }

    fn put(&self, connection: Connection) {
        let mut idle = self.lock();
        if idle.len() < self.idle_max && !connection.sender.is_closed() {
            idle.push(connection);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in use; it is kept afterwards if there is where to keep it.
pub(crate) struct Lease {
    connection: Option<Connection>,
    kept: Option<Arc<Kept>>,
}

impl Lease {
    pub(crate) fn new(connection: Connection, kept: Option<Arc<Kept>>) -> Self {
        Self {
            connection: Some(connection),
            kept,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (Some(connection), Some(kept)) = (self.connection.take(), &self.kept) {
            kept.put(connection);
        }
    }
}
