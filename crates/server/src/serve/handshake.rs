//! How a connection begins where TLS is spoken.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::transport::Transport;
use crate::tls::{Tls, name_of};

/// What a connection turned out to be.
pub(super) enum Begun {
    /// What is encrypted, and whose certificate the client has shown.
    Secure {
        stream: Transport,
        client_name: Option<String>,
    },
    /// Somebody speaks plain HTTP.
    Plain(Transport),
}

/// Begins a connection, in whose way nobody stands: TCP's alone is encrypted. `None` if it came to nothing.
pub(super) async fn begin(stream: Transport, tls: Option<&Tls>, limit: Duration) -> Option<Begun> {
    let (stream, tls) = match (stream, tls) {
        (Transport::Tcp(stream), Some(tls)) => (stream, tls),
        (stream, _) => {
            let client_name = None;
            return Some(Begun::Secure {
                stream,
                client_name,
            });
        }
    };
    let outcome = timeout(limit, shake_hands(stream, tls)).await;
    match outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(begun) => Some(begun),
        Err(error) => {
            // Scanners, and clients that do not trust the certificate, are everyday events.
            tracing::debug!(%error, "no TLS came about");
            tls.failed_handshakes.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

async fn shake_hands(stream: TcpStream, tls: &Tls) -> io::Result<Begun> {
    if begins_plainly(&stream).await? {
        return Ok(Begun::Plain(Transport::Tcp(stream)));
    }
    let stream = TlsAcceptor::from(tls.config()).accept(stream).await?;
    let client_name = client_name(&stream);
    if let Some(name) = &client_name {
        tracing::debug!(name, "a client has shown its certificate");
    }
    Ok(Begun::Secure {
        stream: Transport::Tls(Box::new(stream)),
        client_name,
    })
}

/// Whether what comes first is a method of HTTP, which nothing in TLS begins like.
async fn begins_plainly(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0].is_ascii_alphabetic()),
    }
}

fn client_name(stream: &TlsStream<TcpStream>) -> Option<String> {
    let (_, session) = stream.get_ref();
    let certificates = session.peer_certificates()?;
    certificates.first().and_then(name_of)
}
