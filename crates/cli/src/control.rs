//! The control socket: how an operator speaks to a running server on its own machine.
//!
//! One line of JSON goes to the server, and one comes back. HTTP would need a client in this program, which has none on
//! purpose; and whoever may open the socket is its user or root, which the kernel vouches for.

mod client;
mod message;
mod server;

pub(crate) use self::client::{drain, reload, sleep, status, wake};
pub(crate) use self::server::{ControlSocket, Controlled};
