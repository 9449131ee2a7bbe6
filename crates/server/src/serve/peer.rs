//! Who is at the other end of a connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The other end of a connection, as requests on it see it.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// `None` over a Unix socket, whose other end is a process of this machine.
    pub(crate) address: Option<SocketAddr>,
    /// Whose certificate it has shown.
    pub(crate) certificate: Option<Arc<str>>,
}

impl Peer {
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip().to_canonical())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(formatter),
            None => formatter.write_str("unix"),
        }
    }
}
