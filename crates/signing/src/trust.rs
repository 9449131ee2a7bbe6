//! Whose signatures count.

use std::fmt;
use std::path::Path;

use crate::bundle::{Bundle, Material};
use crate::certificates::TrustedCertificates;
use crate::fields::quoted;
use crate::key::PublicKey;
use crate::pem::{self, PemContent};
use crate::{SignatureError, Signer, TrustError};

/// The longest PEM file; operating systems' roots take a quarter of it.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Whose signatures count: those by one key, or by whoever has a certificate of an authority.
pub struct Trust(Trusted);

enum Trusted {
    Key(PublicKey),
    Certificates(TrustedCertificates),
}

impl Trust {
    /// Takes a public key (ECDSA on P-256 or P-384) or certificates from PEM (RFC 7468): one
    /// `PUBLIC KEY`, or any number of `CERTIFICATE`s. Those that are their own issuers are trusted
    /// as roots; others may lie between these and signers' certificates.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TrustError> {
        Ok(Self(match pem::parse(pem)? {
            PemContent::Key(key) => {
                Trusted::Key(PublicKey::new(key).map_err(TrustError::UnsupportedKey)?)
            }
            PemContent::Certificates(certificates) => {
                Trusted::Certificates(TrustedCertificates::new(certificates)?)
            }
        }))
    }

    /// As [`Trust::from_pem`], for a file.
    pub fn read(path: &Path) -> Result<Self, TrustError> {
        let bytes = backstop_input::read_file(path, PEM_BYTES_MAX);
        Self::from_pem(&bytes.map_err(|source| TrustError::Unreadable {
            path: path.to_owned(),
            source,
        })?)
    }

    /// Whether it is a key, and not certificates.
    pub fn is_key(&self) -> bool {
        matches!(self.0, Trusted::Key(_))
    }

    /// Who signed the payload, if that counts.
    pub(crate) fn check(&self, bundle: &Bundle) -> Result<Signer, SignatureError> {
        match (&self.0, &bundle.material) {
            (Trusted::Key(key), Material::Key { hint }) => check_key(key, bundle, hint.as_deref()),
            (Trusted::Certificates(trusted), Material::Certificates(chain)) => {
                let signer = trusted.certify(chain)?;
                match signer
                    .key
                    .has_signed(&bundle.signed_bytes(), &bundle.signature)
                {
                    true => Ok(signer.into_signer()),
                    false => Err(SignatureError::OtherCertificate(signer.subject)),
                }
            }
            (Trusted::Certificates(_), Material::Key { .. }) => Err(SignatureError::SignedWithKey),
            (Trusted::Key(_), Material::Certificates(_)) => {
                Err(SignatureError::SignedWithCertificate)
            }
        }
    }
}

fn check_key(
    key: &PublicKey,
    bundle: &Bundle,
    hint: Option<&str>,
) -> Result<Signer, SignatureError> {
    let fingerprint = key.fingerprint();
    if key.has_signed(&bundle.signed_bytes(), &bundle.signature) {
        return Ok(Signer::Key { fingerprint });
    }
    // Anybody can write any hint: it only says which of two refusals is more helpful.
    Err(match hint {
        Some(hint) if hint == key.pem_fingerprint() => SignatureError::Changed,
        _ => SignatureError::OtherKey {
            fingerprint,
            hint: hint.map(quoted),
        },
    })
}

impl fmt::Debug for Trust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Trusted::Key(key) => write!(formatter, "Trust(key {})", key.fingerprint()),
            Trusted::Certificates(_) => write!(formatter, "Trust(certificates)"),
        }
    }
}
