//! TLS: the server's certificate, whose clients' certificates are asked for, and how both follow their files.
//!
//! rustls speaks it, over graviola, which is written in Rust alone, so that no C compiler is needed to build the
//! server for any machine. It is used for connections that clients open, and knows no public authorities.

mod certificate;
mod files;
mod store;

use std::path::PathBuf;

pub(crate) use self::certificate::name_of;
pub use self::files::TlsError;
pub use self::store::Tls;

/// Where certificates and keys are, all in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, followed by those between it and its authority.
    pub certificate: PathBuf,
    /// The key of the certificate; `None` if it is in the same file.
    pub key: Option<PathBuf>,
    /// Whose certificates clients may show, if any are asked for.
    pub clients: Option<ClientAuthorities>,
}

/// Who vouches for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthorities {
    /// The authorities' certificates.
    pub file: PathBuf,
    /// Whether clients without a certificate are let in all the same.
    pub optional: bool,
}

impl TlsFiles {
    /// The file that has the key.
    pub fn key_file(&self) -> &PathBuf {
        self.key.as_ref().unwrap_or(&self.certificate)
    }

    /// All files, each once.
    pub fn all(&self) -> impl Iterator<Item = &PathBuf> {
        let clients = self.clients.as_ref().map(|clients| &clients.file);
        [&self.certificate]
            .into_iter()
            .chain(&self.key)
            .chain(clients)
    }
}
