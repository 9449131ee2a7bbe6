//! The accept loop: HTTP/1.1 connections within limits, and the end of them at shutdown.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use backstop_engine::LifecycleState;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};

use crate::config::ServerConfig;
use crate::gate::SAMPLE_INTERVAL;
use crate::server::Server;

/// Header fields in a request's head.
const HEADERS_MAX: usize = 100;
/// Bytes that a connection buffers for reading a head and for writing.
const CONNECTION_BUFFER_BYTES: usize = 64 << 10;
/// Connections that wait to be accepted; the operating system may allow fewer (on Linux
/// net.core.somaxconn, by default 4096).
const BACKLOG: u32 = 4096;
/// Pause after the operating system refused a connection, for instance for want of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);
/// Pause between two looks at the key file.
const KEY_FILE_INTERVAL: Duration = Duration::from_secs(2);
/// Time that connections get to send their last bytes after the requests have ended.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

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
    let service = server.router();
    let permits = Arc::new(Semaphore::new(server.config().max_connections));
    let (closing, close) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut drained = pin!(drained(&server, shutdown));
    let mut watching = pin!(look_after(&server));
    loop {
        tokio::select! {
            () = &mut drained => break,
            () = &mut watching => {}
            Some(_) = connections.join_next() => {}
            (stream, permit) = accept(&listener, &permits) => {
                let connection =
                    Connection::new(server.config(), service.clone(), close.clone(), permit);
                connections.spawn(connection.run(stream));
            }
        }
    }
    drop(listener);
    // Every receiver may be gone already.
    let _ignored = closing.send(true);
    let all_closed = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(CLOSE_GRACE, all_closed).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "cutting off connections at shutdown"
        );
    }
    Ok(())
}

/// Looks after what changes by itself: the pace of the queue, and the key file.
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
    tokio::join!(sampling, following);
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

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    let Ok(permit) = Arc::clone(permits).acquire_owned().await else {
        // The semaphore is never closed.
        std::future::pending().await
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// One client's connection, before it is read from.
struct Connection {
    service: Router,
    close: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
    head_read_timeout: Duration,
    write_stall_timeout: Duration,
}

impl Connection {
    fn new(
        config: &ServerConfig,
        service: Router,
        close: watch::Receiver<bool>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            service,
            close,
            permit,
            head_read_timeout: config.head_read_timeout,
            write_stall_timeout: config.write_stall_timeout,
        }
    }

    async fn run(mut self, stream: TcpStream) {
        // Tokens go out one by one; waiting to fill a packet would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let io = TokioIo::new(StallLimit::new(stream, self.write_stall_timeout));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_read_timeout)
            .max_headers(HEADERS_MAX)
            .max_buf_size(CONNECTION_BUFFER_BYTES)
            .serve_connection(io, TowerToHyperService::new(self.service));
        let mut connection = pin!(connection);
        let early = tokio::select! {
            result = &mut connection => Some(result),
            () = closing(&mut self.close) => None,
        };
        let result = match early {
            Some(result) => result,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            // Clients that hang up or send no HTTP are everyday events.
            tracing::debug!(%error, "connection ended");
        }
        drop(self.permit);
    }
}

async fn closing(close: &mut watch::Receiver<bool>) {
    // An error means that the accept loop is gone, which closes connections as well.
    let _ignored = close.wait_for(|closing| *closing).await;
}

/// A stream whose writes fail once the other side has refused to read for too long.
struct StallLimit<S> {
    stream: S,
    limit: Duration,
    /// Runs only while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> StallLimit<S> {
    fn new(stream: S, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            deadline: None,
        }
    }

    fn check<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.deadline = None;
            return result;
        }
        let limit = self.limit;
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client does not read",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallLimit<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallLimit<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.check(context, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(context, buffers);
        this.check(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_flush(context);
        this.check(context, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_shutdown(context);
        this.check(context, result)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_reader_that_stalls_ends_the_connection() {
        let (near, _far) = tokio::io::duplex(16);
        let mut limited = StallLimit::new(near, Duration::from_millis(20));
        let error = limited.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
