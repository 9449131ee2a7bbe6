//! TLS: how connections begin, and that those which never do cost nobody else anything.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backstop_server::{Tls, TlsFiles};
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{Fixture, Options, eventually};

const ASKED: &[u8] = b"GET /v1/models HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that speaks TLS, and what its clients trust.
struct Secure {
    fixture: Fixture,
    certificate: CertificateDer<'static>,
    directory: PathBuf,
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ignored = std::fs::remove_dir_all(&self.directory);
    }
}

impl Secure {
    async fn start(name: &str, options: Options) -> Self {
        let directory = format!("backstop-tls-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(directory);
        std::fs::create_dir_all(&directory).unwrap();
        let (files, certificate) = write_certificate(&directory);
        let tls = Tls::open(files).unwrap();
        let options = options.config(|config| config.tls = Some(Arc::new(tls)));
        Self {
            fixture: Fixture::ready(options).await,
            certificate,
            directory,
        }
    }

    fn address(&self) -> SocketAddr {
        self.fixture.address
    }

    async fn connect(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut authorities = RootCertStore::empty();
        authorities.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls_graviola::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(authorities)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
        let stream = TcpStream::connect(self.address()).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.unwrap()
    }

    async fn metric(&self, name: &str) -> f64 {
        let asked = b"GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
        let text = exchange(self.connect().await, asked).await;
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

fn write_certificate(directory: &Path) -> (TlsFiles, CertificateDer<'static>) {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let path = directory.join("both.pem");
    std::fs::write(&path, certificate.pem() + &key.serialize_pem()).unwrap();
    let files = TlsFiles {
        certificate: path,
        key: None,
        clients: None,
    };
    (files, certificate.der().clone())
}

/// Says something, and returns all that is said to it.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, said: &[u8]) -> String {
    stream.write_all(said).await.unwrap();
    let mut heard = Vec::new();
    let hearing = stream.read_to_end(&mut heard);
    let _cut_off = tokio::time::timeout(PATIENCE, hearing).await.unwrap();
    String::from_utf8(heard).unwrap()
}

#[tokio::test]
async fn http_1_is_spoken_within_tls() {
    let server = Secure::start("spoken", Options::default()).await;
    let stream = server.connect().await;
    assert_eq!(
        stream.get_ref().1.alpn_protocol(),
        Some(b"http/1.1".as_ref())
    );
    let answer = exchange(stream, ASKED).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        server
            .metric("backstop:certificate_expiry_timestamp_seconds")
            .await
            > 1.7e9
    );
}

#[tokio::test]
async fn who_speaks_plainly_is_told_so_whatever_they_say() {
    let server = Secure::start("plain", Options::default()).await;
    for said in [ASKED, b"POST /v1/chat", &[b'A'; 100_000]] {
        let stream = TcpStream::connect(server.address()).await.unwrap();
        let answer = exchange(stream, said).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{answer}"
        );
        assert!(answer.contains("\r\nx-request-id: "), "{answer}");
        assert!(answer.contains("https_required"), "{answer}");
    }
    // It was no fault of TLS's.
    assert_eq!(
        server.metric("backstop:tls_handshakes_failed_total").await,
        0.0
    );
}

#[tokio::test]
async fn what_is_neither_is_cut_off_and_counted() {
    let server = Secure::start("neither", Options::default()).await;
    let stream = TcpStream::connect(server.address()).await.unwrap();
    // A record of TLS whose content is none.
    let answer = exchange(stream, b"\x16\x03\x01\x00\x05hello").await;
    assert!(!answer.contains("HTTP"), "{answer}");
    assert_eq!(
        server.metric("backstop:tls_handshakes_failed_total").await,
        1.0
    );
}

#[tokio::test]
async fn who_does_not_begin_is_cut_off_in_time() {
    let limit = Duration::from_millis(200);
    let options = Options::default().config(|config| config.head_read_timeout = limit);
    let server = Secure::start("silent", options).await;
    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    let mut half = TcpStream::connect(server.address()).await.unwrap();
    half.write_all(b"\x16\x03\x01").await.unwrap();
    for stream in [&mut silent, &mut half] {
        let mut byte = [0];
        let end = tokio::time::timeout(PATIENCE, stream.read(&mut byte)).await;
        assert!(matches!(end.unwrap(), Ok(0) | Err(_)));
    }
    assert_eq!(
        server.metric("backstop:tls_handshakes_failed_total").await,
        2.0
    );
}

#[tokio::test]
async fn a_crowd_that_never_begins_makes_room() {
    let options = Options::default().config(|config| {
        config.max_connections = 20;
        config.max_stranger_connections_per_address = 5;
    });
    let server = Secure::start("crowd", options).await;
    let mut crowd = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        // It may have had to make room already.
        let _ignored = stream.write_all(b"\x16\x03\x01").await;
        crowd.push(stream);
    }
    let answer = exchange(server.connect().await, ASKED).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    eventually("all but the share are gone", || {
        let is_open = |stream: &&TcpStream| {
            let mut byte = [0];
            matches!(stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        };
        crowd.iter().filter(is_open).count() <= 5
    })
    .await;
}
