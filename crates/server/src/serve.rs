//! Serves HTTP/1.1 on sockets, from the start to the end of a shutdown.

mod connection;
mod door;
mod framing;
mod handshake;
mod listener;
mod peer;
mod probes;
mod registry;
mod stall;
mod strict;
mod transport;
#[cfg(unix)]
mod unix_socket;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use backstop_engine::LifecycleState;

use self::connection::ConnectionLimits;
use self::door::{Door, DoorLimits};
pub(crate) use self::framing::HeadFault;
pub use self::listener::{Listener, listen};
pub(crate) use self::peer::Peer;
pub use self::probes::{ProbeThread, serve_probes};
use self::registry::RegistryLimits;
pub(crate) use self::registry::Visit;
#[cfg(unix)]
pub use self::unix_socket::{SocketFile, UnixSocket};
use crate::gate::SAMPLE_INTERVAL;
use crate::server::Server;
use crate::status;

/// Pause between two looks at files that are followed: keys and certificates.
const FILES_INTERVAL: Duration = Duration::from_secs(2);

/// Serves `listeners` until `shutdown` resolves and the requests then running have ended. The limits of connections
/// hold for all of them together.
///
/// From the shutdown on, new requests are answered 503 while the running ones finish, so that a
/// load balancer which has not noticed yet gets an answer rather than a refusal. After
/// `drain_timeout` what still runs is cut off.
pub async fn serve(
    server: Server,
    listeners: Vec<Listener>,
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
    let mut door = Door::new(listeners, server.router(), limits, server.clone());
    if let Some(tls) = server.tls() {
        door.encrypt(tls);
    }
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

/// Looks after what changes by itself: the pace of the queue, the key file, certificates, and the records.
async fn look_after(server: &Server) {
    let sampling = async {
        loop {
            tokio::time::sleep(SAMPLE_INTERVAL).await;
            server.sample_queue();
        }
    };
    let following = async {
        loop {
            let server = server.clone();
            let look = move || {
                if let Some(keys) = server.keys() {
                    keys.reload_if_changed();
                }
                if let Some(tls) = server.tls() {
                    tls.look_after();
                }
            };
            // On a thread of its own, for files may lie on a network. A panic there would leave all as it is.
            let _ignored = tokio::task::spawn_blocking(look).await;
            tokio::time::sleep(FILES_INTERVAL).await;
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
