//! Where the stand-in listens, or refuses connections without giving its port away.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

const BACKLOG: u32 = 1024;

/// A port. While it is closed a socket is bound to it that does not listen, so that connections are refused and no other
/// program gets the port.
pub(super) struct Door {
    address: SocketAddr,
    open: Option<TcpListener>,
    reserve: TcpSocket,
}

impl Door {
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        if address.port() != 0 {
            // Sharing a port is meant for our own two sockets: another program that listens there is an error.
            drop(std::net::TcpListener::bind(address)?);
        }
        let listener = bind(address)?.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok(Self {
            address,
            open: Some(listener),
            reserve: bind(address)?,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn set_open(&mut self, is_open: bool) -> io::Result<()> {
        match (is_open, self.open.is_some()) {
            (true, false) => {
                let next = bind(self.address)?;
                self.open = Some(std::mem::replace(&mut self.reserve, next).listen(BACKLOG)?);
            }
            (false, true) => self.open = None,
            (true, true) | (false, false) => {}
        }
        Ok(())
    }

    /// The next connection; none comes while it is closed.
    pub(super) async fn accept(&self) -> io::Result<TcpStream> {
        match &self.open {
            Some(listener) => listener.accept().await.map(|(stream, _)| stream),
            None => std::future::pending().await,
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Connections of an earlier run that linger are no reason not to start.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}
