//! The accept loop: lets connections in, within limits, and ends them at shutdown.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use backstop_protocol::ApiError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::connection::{Connection, ConnectionLimits};
use super::listener::{Accepted, Listener, Listeners};
use super::registry::{Registry, RegistryLimits};
use crate::provenance::Provenance;
use crate::server::Server;
use crate::tls::Tls;

/// Connections that have made room and are not closed yet. This bounds the descriptors in use;
/// waiting for such a connection is waiting for the runtime, never for a client.
const CLOSING_MAX: usize = 64;
/// Pause after the operating system refused a connection, for instance for want of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);
/// Time that connections get to send their last bytes after the requests have ended.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// Advice to who comes while all connections run requests: one of them may end at any moment.
const FULL_RETRY_S: u32 = 1;

/// The limits of one door.
#[derive(Clone, Copy, Debug)]
pub(super) struct DoorLimits {
    pub(super) registry: RegistryLimits,
    pub(super) connection: ConnectionLimits,
}

/// A connection that has been accepted.
struct Newcomer {
    accepted: Accepted,
    permit: OwnedSemaphorePermit,
}

/// Listeners and their connections.
pub(super) struct Door {
    listeners: Listeners,
    routes: Router,
    limits: ConnectionLimits,
    registry: Arc<Registry>,
    permits: Arc<Semaphore>,
    close: watch::Sender<bool>,
    connections: JoinSet<()>,
    /// What TCP connections are encrypted with.
    tls: Option<Arc<Tls>>,
    /// Knows where answers come from.
    server: Server,
}

impl Door {
    pub(super) fn new(
        listeners: Vec<Listener>,
        routes: Router,
        limits: DoorLimits,
        server: Server,
    ) -> Self {
        let open_max = limits.registry.connections.saturating_add(CLOSING_MAX);
        Self {
            listeners: Listeners::new(listeners),
            routes,
            limits: limits.connection,
            registry: Registry::new(limits.registry),
            permits: Arc::new(Semaphore::new(open_max.min(Semaphore::MAX_PERMITS))),
            close: watch::Sender::new(false),
            connections: JoinSet::new(),
            tls: None,
            server,
        }
    }

    /// Encrypts TCP connections.
    pub(super) fn encrypt(&mut self, tls: &Arc<Tls>) {
        self.tls = Some(Arc::clone(tls));
    }

    /// Lets connections in for as long as it is polled.
    pub(super) async fn open(&mut self) {
        loop {
            tokio::select! {
                Some(_) = self.connections.join_next() => {}
                newcomer = accept(&mut self.listeners, &self.permits) => self.let_in(newcomer),
            }
        }
    }

    fn let_in(&mut self, newcomer: Newcomer) {
        let Newcomer { accepted, permit } = newcomer;
        let Accepted { stream, peer } = accepted;
        let Some(stay) = self.registry.admit(peer.ip()) else {
            tracing::warn!("all connections are in use: another was refused");
            // A fresh socket has room for it. Otherwise, and where the client expects TLS, the connection is just closed.
            if self.tls.is_none() || peer.ip().is_none() {
                let _ignored = stream.try_write(full(self.server.provenance()).as_bytes());
            }
            return;
        };
        let connection = Connection {
            routes: self.routes.clone(),
            limits: self.limits,
            close: self.close.subscribe(),
            stay,
            peer,
            tls: self.tls.clone(),
            permit,
        };
        self.connections.spawn(connection.run(stream));
    }

    /// Lets nobody in any more, and waits a little for those who are.
    pub(super) async fn close(self) {
        let Self {
            listeners,
            close,
            mut connections,
            ..
        } = self;
        drop(listeners);
        close.send_replace(true);
        let all_closed = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSE_GRACE, all_closed).await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "cutting off connections at shutdown"
            );
        }
    }
}

/// The answer to who comes while all connections run requests.
fn full(provenance: &Provenance) -> String {
    let body = ApiError::queue_full(FULL_RETRY_S).to_json_string();
    format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nretry-after: {FULL_RETRY_S}\r\n{}connection: close\r\n\r\n{body}",
        body.len(),
        provenance.head_line()
    )
}

async fn accept(listeners: &mut Listeners, permits: &Arc<Semaphore>) -> Newcomer {
    let Ok(permit) = Arc::clone(permits).acquire_owned().await else {
        // The semaphore is never closed.
        std::future::pending().await
    };
    loop {
        match listeners.accept().await {
            Ok(accepted) => return Newcomer { accepted, permit },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}
