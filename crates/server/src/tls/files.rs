//! Reads certificates and keys, and makes of them what connections are begun with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::{ClientAuthorities, TlsFiles, certificate};

/// Longest file of certificates or of a key.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The only protocol that is spoken within TLS.
const PROTOCOL: &[u8] = b"http/1.1";
/// What tells a key that only a password opens.
const ENCRYPTED: [&str; 2] = ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The processor lacks instructions, without which the library for cryptography would panic.
    #[error(
        "TLS needs a processor with AES and AVX2 (x86) or AES and SHA2 (Arm), which this one is not: let a proxy in \
         front of this server end TLS"
    )]
    Processor,
    /// A file cannot be used.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl TlsError {
    fn file(path: &Path, reason: impl ToString) -> Self {
        Self::File {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// What files have come to.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) config: Arc<rustls::ServerConfig>,
    /// When the first of the server's certificates ends to be valid, from 1970 on.
    pub(super) not_after: Duration,
}

/// Reads all files anew.
pub(super) fn read(files: &TlsFiles) -> Result<Read, TlsError> {
    if !graviola::util::is_cpu_supported() {
        return Err(TlsError::Processor);
    }
    let chain = certificates(&files.certificate)?;
    let not_after = first_end(&chain, &files.certificate)?;
    let key = key(files.key_file())?;
    let provider = Arc::new(rustls_graviola::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| TlsError::file(&files.certificate, error))?;
    let config = match &files.clients {
        Some(clients) => config.with_client_cert_verifier(verifier(clients, provider)?),
        None => config.with_no_client_auth(),
    };
    let config = config.with_single_cert(chain, key);
    let mut config = config.map_err(|error| TlsError::file(files.key_file(), told(&error)))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Read {
        config: Arc::new(config),
        not_after,
    })
}

fn told(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            "this is not the key of the server's certificate".to_owned()
        }
        error => format!("the key cannot be used: {error}"),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = text(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let all = all.map_err(|error| TlsError::file(path, format!("no valid PEM: {error}")))?;
    match all.is_empty() {
        true => Err(TlsError::file(path, "there is no certificate in PEM")),
        false => Ok(all),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = text(path)?;
    if ENCRYPTED.iter().any(|mark| text.contains(mark)) {
        let reason = "the key is encrypted: `openssl pkey` writes it without a password";
        return Err(TlsError::file(path, reason));
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::file(path, "there is no private key in PEM"),
        error => TlsError::file(path, format!("no valid PEM: {error}")),
    })
}

fn text(path: &Path) -> Result<String, TlsError> {
    backstop_input::read_text_file(path, FILE_BYTES_MAX)
        .map_err(|error| TlsError::file(path, error))
}

fn first_end(chain: &[CertificateDer<'_>], path: &Path) -> Result<Duration, TlsError> {
    let ends: Result<Vec<Duration>, _> = chain.iter().map(certificate::not_after).collect();
    let ends = ends.map_err(|error| TlsError::file(path, format!("no certificate: {error}")))?;
    Ok(ends.into_iter().min().unwrap_or_default())
}

fn verifier(
    clients: &ClientAuthorities,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let ClientAuthorities { file, optional } = clients;
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(file)? {
        let added = authorities.add(certificate);
        added.map_err(|error| TlsError::file(file, format!("no authority: {error}")))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
    let verifier = match optional {
        true => verifier.allow_unauthenticated(),
        false => verifier,
    };
    verifier
        .build()
        .map_err(|error| TlsError::file(file, error))
}
