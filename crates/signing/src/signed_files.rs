//! What was signed, and by whom.

use std::collections::BTreeMap;
use std::fmt;

/// The files of a model, as its signer had them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedFiles {
    /// What the signer called the model: the name of its folder. It says nothing about the files.
    pub model_name: String,
    /// SHA-256 of each file in lower-case hexadecimal, by path. Paths are relative to the model's
    /// folder, stay in it, and have `/` between their parts.
    pub digests: BTreeMap<String, String>,
    /// What the signer left out, as recorded: files, and folders with all that is in them. Nothing
    /// is said about these; whoever loads one of them loads what nobody signed.
    pub ignored_paths: Vec<String>,
    /// Who signed.
    pub signer: Signer,
}

/// Who signed a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The holder of a key.
    Key {
        /// SHA-256 of the public key (DER), as `openssl pkey -pubin -outform DER | sha256sum`
        /// prints it.
        fingerprint: String,
    },
    /// The holder of a certificate.
    Certificate {
        /// The certificate's subject (RFC 4514), in quotation marks and without control characters.
        subject: String,
        /// SHA-256 of the certificate, as `openssl x509 -fingerprint -sha256` prints it, but in
        /// lower case and without colons.
        fingerprint: String,
    },
}

impl fmt::Display for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { fingerprint } => write!(formatter, "the key with SHA-256 {fingerprint}"),
            Self::Certificate {
                subject,
                fingerprint,
            } => write!(
                formatter,
                "{subject}, by the certificate with SHA-256 {fingerprint}"
            ),
        }
    }
}
