//! The accept loop of one listener: lets connections in, within limits, and ends them at shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use backstop_protocol::ApiError;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::connection::{Connection, ConnectionLimits};
use super::registry::{Registry, RegistryLimits};
use crate::provenance::Provenance;
use crate::server::Server;

/// Connections that have made room and are not closed yet. This bounds the descriptors in use;
/// waiting for such a connection is waiting for the runtime, never for a client.
const CLOSING_MAX: usize = 64;
/// Pause after the operating system refused a connection, for instance for want of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);
/// Time that connections get to send their last bytes after the requests have ended.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// Advice to who comes while all connections run requests: one of them may end at any moment.
const FULL_RETRY_S: u32 = 1;

/// The limits of one listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct DoorLimits {
    pub(super) registry: RegistryLimits,
    pub(super) connection: ConnectionLimits,
}

/// A connection that has been accepted.
struct Newcomer {
    stream: TcpStream,
    address: SocketAddr,
    permit: OwnedSemaphorePermit,
}

/// One listener and its connections.
pub(super) struct Door {
    listener: TcpListener,
    routes: Router,
    limits: ConnectionLimits,
    registry: Arc<Registry>,
    permits: Arc<Semaphore>,
    close: watch::Sender<bool>,
    connections: JoinSet<()>,
    /// Knows where answers come from.
    server: Server,
}

impl Door {
    pub(super) fn new(
        listener: TcpListener,
        routes: Router,
        limits: DoorLimits,
        server: Server,
    ) -> Self {
        let open_max = limits.registry.connections.saturating_add(CLOSING_MAX);
        Self {
            listener,
            routes,
            limits: limits.connection,
            registry: Registry::new(limits.registry),
            permits: Arc::new(Semaphore::new(open_max.min(Semaphore::MAX_PERMITS))),
            close: watch::Sender::new(false),
            connections: JoinSet::new(),
            server,
        }
    }

    /// Lets connections in for as long as it is polled.
    pub(super) async fn open(&mut self) {
        loop {
            tokio::select! {
                Some(_) = self.connections.join_next() => {}
                newcomer = accept(&self.listener, &self.permits) => self.let_in(newcomer),
            }
        }
    }

    fn let_in(&mut self, newcomer: Newcomer) {
        let Newcomer {
            stream,
            address,
            permit,
        } = newcomer;
        let Some(stay) = self.registry.admit(address.ip()) else {
            tracing::warn!("all connections are in use: another was refused");
            // A fresh socket has room for it, or else the connection is just closed.
            let _ignored = stream.try_write(full(self.server.provenance()).as_bytes());
            return;
        };
        let connection = Connection {
            routes: self.routes.clone(),
            limits: self.limits,
            close: self.close.subscribe(),
            stay,
            permit,
        };
        self.connections.spawn(connection.run(stream));
    }

    /// Lets nobody in any more, and waits a little for those who are.
    pub(super) async fn close(self) {
        let Self {
            listener,
            close,
            mut connections,
            ..
        } = self;
        drop(listener);
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

async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> Newcomer {
    let Ok(permit) = Arc::clone(permits).acquire_owned().await else {
        // The semaphore is never closed.
        std::future::pending().await
    };
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                return Newcomer {
                    stream,
                    address,
                    permit,
                };
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}
