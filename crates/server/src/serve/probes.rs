//! Probes on an address of their own, which nothing that happens on the main one can delay.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::connection::ConnectionLimits;
use super::door::{Door, DoorLimits};
use super::registry::RegistryLimits;
use crate::server::Server;

/// Few connections and short waits: a probe is one small request.
const LIMITS: DoorLimits = DoorLimits {
    registry: RegistryLimits {
        connections: 64,
        strangers_per_address: 64,
    },
    connection: ConnectionLimits {
        head: Duration::from_secs(5),
        idle: Duration::from_secs(5),
        write_stall: Duration::from_secs(5),
    },
};

/// The thread that answers probes, until this is dropped.
#[derive(Debug)]
pub struct ProbeThread {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Answers `/health`, `/ready` and `/ping` on `listener`, and nothing else: a scrape of the metrics
/// must not delay a probe. It has a thread and a runtime of its own, so that busy ones cannot either.
pub fn serve_probes(server: &Server, listener: TcpListener) -> io::Result<ProbeThread> {
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listener = {
        let _entered = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let routes = server.probe_router();
    let server = server.clone();
    let (end, ended) = oneshot::channel();
    let work = move || {
        let mut door = Door::new(vec![listener.into()], routes, LIMITS, server);
        runtime.block_on(async {
            tokio::select! {
                // Sent or dropped, it is the end.
                _ = ended => {}
                () = door.open() => {}
            }
        });
    };
    let thread = std::thread::Builder::new()
        .name("probes".to_owned())
        .spawn(work)?;
    Ok(ProbeThread {
        end: Some(end),
        thread: Some(thread),
    })
}

impl Drop for ProbeThread {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It panicked, and said so.
            let _ignored = thread.join();
        }
    }
}
