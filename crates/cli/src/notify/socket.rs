//! The service manager's socket.

use std::ffi::OsStr;
use std::io;

/// A connected socket of datagrams.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct Socket(std::os::unix::net::UnixDatagram);

#[cfg(unix)]
impl Socket {
    /// By its path, or by a name in no file system, which begins with `@`.
    pub(super) fn open(name: &OsStr) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixDatagram::unbound()?;
        match name.as_encoded_bytes() {
            [b'/', ..] => socket.connect(name)?,
            [b'@', name @ ..] => socket.connect_addr(&abstract_address(name)?)?,
            _ => return Err(unsupported("neither a path nor a name that begins with @")),
        }
        // A manager that is busy must not stop the server. The next message says as much.
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    pub(super) fn send(&self, message: &str) -> io::Result<()> {
        self.0.send(message.as_bytes()).map(drop)
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<std::os::unix::net::SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    std::os::unix::net::SocketAddr::from_abstract_name(name)
}

#[cfg(all(unix, not(target_os = "linux")))]
fn abstract_address(_name: &[u8]) -> io::Result<std::os::unix::net::SocketAddr> {
    Err(unsupported("only Linux has such names"))
}

fn unsupported(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, reason)
}

/// There is none here.
#[cfg(not(unix))]
#[derive(Debug)]
pub(super) enum Socket {}

#[cfg(not(unix))]
impl Socket {
    pub(super) fn open(_name: &OsStr) -> io::Result<Self> {
        Err(unsupported("this system has no such sockets"))
    }

    pub(super) fn send(&self, _message: &str) -> io::Result<()> {
        match *self {}
    }
}
