//! Where connections come in: TCP ports and Unix sockets, any number of both.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use tokio::net::{TcpListener, TcpSocket};

use super::peer::Peer;
use super::transport::Transport;
#[cfg(unix)]
use super::unix_socket::UnixSocket;

/// Connections that wait to be accepted; the operating system may allow fewer (on Linux
/// net.core.somaxconn, by default 4096).
const BACKLOG: u32 = 4096;

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

/// A socket that clients connect to.
#[derive(Debug)]
pub struct Listener(Socket);

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixSocket),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self(Socket::Tcp(listener))
    }
}

#[cfg(unix)]
impl From<UnixSocket> for Listener {
    fn from(socket: UnixSocket) -> Self {
        Self(Socket::Unix(socket))
    }
}

/// A connection that has been accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: Transport,
    pub(super) peer: Peer,
}

impl Listener {
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match &self.0 {
            Socket::Tcp(listener) => listener.poll_accept(context).map_ok(|accepted| {
                let (stream, address) = accepted;
                Accepted {
                    stream: Transport::Tcp(stream),
                    peer: Peer {
                        address: Some(address),
                        certificate: None,
                    },
                }
            }),
            #[cfg(unix)]
            Socket::Unix(socket) => socket.poll_accept(context).map_ok(|stream| Accepted {
                stream: Transport::Unix(stream),
                peer: Peer {
                    address: None,
                    certificate: None,
                },
            }),
        }
    }
}

/// All listeners of a door, which are looked at in turn, so that a crowd at one does not keep others waiting.
#[derive(Debug)]
pub(super) struct Listeners {
    all: Vec<Listener>,
    first: usize,
}

impl Listeners {
    pub(super) fn new(all: Vec<Listener>) -> Self {
        Self { all, first: 0 }
    }

    /// The next connection at any of them. Nothing is lost if this is dropped.
    pub(super) async fn accept(&mut self) -> io::Result<Accepted> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let count = self.all.len();
        for index in (self.first..count).chain(0..self.first) {
            if let Poll::Ready(accepted) = self.all[index].poll_accept(context) {
                self.first = (index + 1) % count;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }
}
