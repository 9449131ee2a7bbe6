//! Serves HTTP/1.1 on sockets, from the start to the end of a shutdown.

mod connection;
mod door;
mod framing;
mod probes;
mod registry;
mod stall;
mod strict;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use backstop_engine::LifecycleState;
use tokio::net::{TcpListener, TcpSocket};

use self::connection::ConnectionLimits;
use self::door::{Door, DoorLimits};
pub(crate) use self::framing::HeadFault;
pub use self::probes::{ProbeThread, serve_probes};
use self::registry::RegistryLimits;
pub(crate) use self::registry::Visit;
use crate::gate::SAMPLE_INTERVAL;
use crate::server::Server;
use crate::status;

/// Connections that wait to be accepted; the operating system may allow fewer (on Linux
/// net.core.somaxconn, by default 4096).
const BACKLOG: u32 = 4096;
/// Pause between two looks at the key file.
const KEY_FILE_INTERVAL: Duration = Duration::from_secs(2);

/// Listens on `address`, with room for a crowd that arrives in one moment: a connection for which
/// there is none would try again only after a second.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Else a restart would have to wait for the connections of the last run to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves `listener` until `shutdown` resolves and the requests then running have ended.
///
/// From the shutdown on, new requests are answered 503 while the running ones finish, so that a
/// load balancer which has not noticed yet gets an answer rather than a refusal. After
/// `drain_timeout` what still runs is cut off.
pub async fn serve(
    server: Server,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let config = server.config();
    let limits = DoorLimits {
        registry: RegistryLimits {
            connections: config.max_connections,
            strangers_per_address: config.max_stranger_connections_per_address,
        },
        connection: ConnectionLimits {
            head: config.head_read_timeout,
            idle: config.idle_timeout,
            write_stall: config.write_stall_timeout,
        },
    };
    let mut door = Door::new(listener, server.router(), limits, server.clone());
    let mut drained = pin!(drained(&server, shutdown));
    let mut watching = pin!(look_after(&server));
    tokio::select! {
        () = &mut drained => {}
        () = &mut watching => {}
        () = door.open() => {}
    }
    door.close().await;
    Ok(())
}

/// Looks after what changes by itself: the pace of the queue, the key file, and the records.
async fn look_after(server: &Server) {
    let sampling = async {
        loop {
            tokio::time::sleep(SAMPLE_INTERVAL).await;
            server.sample_queue();
        }
    };
    let following = async {
        loop {
            tokio::time::sleep(KEY_FILE_INTERVAL).await;
            if let Some(keys) = server.keys().cloned() {
                // On a thread of its own, for the file may lie on a network. A panic there would
                // leave the keys as they are.
                let _ignored = tokio::task::spawn_blocking(move || keys.reload_if_changed()).await;
            }
        }
    };
    tokio::join!(sampling, following, status::keep(server));
}

async fn drained(server: &Server, shutdown: impl Future<Output = ()>) {
    shutdown.await;
    server.lifecycle().advance(LifecycleState::Draining);
    let running = server.requests_in_flight();
    tracing::info!(running, "draining: no new requests are admitted");
    if tokio::time::timeout(server.config().drain_timeout, server.idle())
        .await
        .is_err()
    {
        tracing::warn!(running = server.requests_in_flight(), "drain timed out");
    }
}
