//! Where requests are sent, over HTTP or TLS: one connection each, so that none suffers from another, unless they are kept.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::http::uri::{PathAndQuery, Scheme};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::ClientError;
use crate::connection::{Connection, Kept, Lease, Unsent};

const AGENT: &str = concat!("backstop/", env!("CARGO_PKG_VERSION"));
const CERTIFICATES_BYTES_MAX: u64 = 16 << 20;

/// A server of OpenAI's API.
#[derive(Clone)]
pub struct Endpoint {
    host: String,
    port: u16,
    authority: String,
    /// What stands before `/v1`.
    prefix: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    authorization: Option<HeaderValue>,
    kept: Option<Arc<Kept>>,
    silence_max: Option<Duration>,
}

/// An answer that has begun; its connection ends with it, or is kept.
pub struct Exchange {
    /// Its head, and its body as it comes.
    pub response: Response<Incoming>,
    // Dropped after the body, so that a connection is only used again if nothing is left in it.
    _lease: Lease,
}

trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

impl Endpoint {
    /// An address with or without `/v1` at its end. `ca_file` has the authorities to trust (PEM) instead of the system's.
    ///
    /// # Errors
    ///
    /// If the address or the key is none, or the authorities cannot be read.
    pub fn new(
        url: &str,
        api_key: Option<&str>,
        ca_file: Option<&Path>,
    ) -> Result<Self, ClientError> {
        let refuse =
            |reason: &str| ClientError::new(format!("{url:?} is no address of a server: {reason}"));
        let uri: Uri = url
            .parse()
            .map_err(|_| refuse("expected http://HOST:PORT"))?;
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(refuse("it must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| refuse("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("a key belongs into --api-key-file"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let tls = if is_tls {
            let name =
                ServerName::try_from(host.clone()).map_err(|_| refuse("its host is no name"))?;
            Some((connector(ca_file)?, name))
        } else {
            None
        };
        let path = uri.path().trim_end_matches('/');
        Ok(Self {
            port: authority
                .port_u16()
                .unwrap_or(if is_tls { 443 } else { 80 }),
            authority: authority.to_string(),
            prefix: path.strip_suffix("/v1").unwrap_or(path).to_owned(),
            tls,
            authorization: api_key.map(bearer).transpose()?,
            host,
            kept: None,
            silence_max: None,
        })
    }

    /// Keeps at most so many connections that are not in use, for later requests. Clones share them.
    pub fn keeping(self, connections_max: usize) -> Self {
        Self {
            kept: Some(Arc::new(Kept::new(connections_max))),
            ..self
        }
    }

    /// Takes the server for dead if it says nothing for so long. An answer fails then with
    /// [`FailureKind::Timeout`](crate::FailureKind::Timeout).
    pub fn with_silence_max(self, silence_max: Duration) -> Self {
        Self {
            silence_max: Some(silence_max),
            ..self
        }
    }

    pub(crate) fn silence_max(&self) -> Option<Duration> {
        self.silence_max
    }

    /// Sends a request and waits for the head of its answer. The caller bounds the wait.
    ///
    /// # Errors
    ///
    /// If there is no answer. Errors are for people.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Exchange, String> {
        let mut request = self
            .request(method, path, body)
            .map_err(|error| error.to_string())?;
        if let Some(kept) = &self.kept {
            while let Some(mut connection) = kept.take().await {
                match connection.send(request).await {
                    Ok(response) => return Ok(self.exchange(response, connection)),
                    // The server had closed it: nothing was sent.
                    Err(Unsent {
                        request: Some(returned),
                        ..
                    }) => request = returned,
                    Err(Unsent { error, .. }) => return Err(error),
                }
            }
        }
        let mut connection = self.connect().await?;
        let response = connection.send(request).await;
        let response = response.map_err(|unsent| unsent.error)?;
        Ok(self.exchange(response, connection))
    }

    async fn connect(&self) -> Result<Connection, String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| format!("cannot connect: {error}"))?;
        // Small requests go out at once.
        let _ = stream.set_nodelay(true);
        let pipe: Box<dyn Pipe> = match &self.tls {
            None => Box::new(stream),
            Some((connector, name)) => {
                let encrypted = connector.connect(name.clone(), stream).await;
                Box::new(encrypted.map_err(|error| format!("TLS: {error}"))?)
            }
        };
        let handshake = http1::handshake(TokioIo::new(pipe)).await;
        let (sender, connection) = handshake.map_err(|error| error.to_string())?;
        Ok(Connection::new(sender, async move {
            // Its errors reach whoever reads the answer.
            let _ = connection.await;
        }))
    }

    fn exchange(&self, response: Response<Incoming>, connection: Connection) -> Exchange {
        Exchange {
            response,
            _lease: Lease::new(connection, self.kept.clone()),
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let target: PathAndQuery = format!("{}{path}", self.prefix).parse()?;
        let mut request = Request::builder()
            .method(method)
            .uri(Uri::from(target))
            .header(HOST, &self.authority)
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, "*/*")
            .header(CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.body(Full::from(body))
    }
}

/// What went wrong, and why.
pub fn explain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn bearer(api_key: &str) -> Result<HeaderValue, ClientError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {api_key}"))
        .map_err(|_| ClientError::new("a key has characters that no header can carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, ClientError> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities(ca_file)? {
        roots
            .add(certificate)
            .map_err(|error| ClientError::new(format!("a certificate cannot be used: {error}")))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::new(format!("TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn authorities(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let Some(path) = ca_file else {
        let found = rustls_native_certs::load_native_certs().certs;
        return if found.is_empty() {
            Err(ClientError::new(
                "the system knows no certificate authorities; --ca-file names some",
            ))
        } else {
            Ok(found)
        };
    };
    let text = backstop_input::read_text_file(path, CERTIFICATES_BYTES_MAX)
        .map_err(|error| ClientError::at(path, error))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let read = read.map_err(|error| ClientError::at(path, format!("no PEM: {error}")))?;
    if read.is_empty() {
        return Err(ClientError::at(path, "it has no certificate"));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_with_and_without_v1() {
        for (url, host, port, prefix) in [
            ("http://127.0.0.1:4000", "127.0.0.1", 4000, ""),
            ("http://gateway.example/v1/", "gateway.example", 80, ""),
            ("http://[::1]:8/llm/v1", "::1", 8, "/llm"),
        ] {
            let endpoint = Endpoint::new(url, Some("key"), None).unwrap();
            assert_eq!((endpoint.host.as_str(), endpoint.port), (host, port));
            assert_eq!(endpoint.prefix, prefix);
        }
        for url in [
            "gateway:4000",
            "ftp://gateway",
            "",
            "http://user:key@gateway",
        ] {
            assert!(Endpoint::new(url, None, None).is_err(), "{url}");
        }
        assert!(Endpoint::new("http://gateway", Some("a\nb"), None).is_err());
    }
}
