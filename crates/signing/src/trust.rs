//! Whose signatures count.

use std::fmt;
use std::path::Path;

use crate::bundle::{Bundle, Material};
use crate::certificates::TrustedCertificates;
use crate::fields::quoted;
use crate::key::PublicKey;
use crate::pem::{self, PemContent};
use crate::{Envelope, SignatureError, Signer, TrustError};

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

    /// The name that signatures by the trusted key give as their `keyid`: the SHA-256 of its PEM file, as bundles have it.
    pub fn key_id(&self) -> Option<String> {
        match &self.0 {
            Trusted::Key(key) => Some(key.pem_fingerprint()),
            Trusted::Certificates(_) => None,
        }
    }

    /// Who signed an envelope, which names no certificates, if that counts.
    pub(crate) fn check_envelope(&self, envelope: &Envelope) -> Result<Signer, SignatureError> {
        let Trusted::Key(key) = &self.0 else {
            return Err(SignatureError::SignedWithKey);
        };
        let message = envelope.signed_bytes();
        let signatures = &envelope.signatures;
        if signatures
            .iter()
            .any(|signature| key.has_signed(&message, &signature.signature))
        {
            return Ok(Signer::Key {
                fingerprint: key.fingerprint(),
            });
        }
        let hints: Vec<&str> = signatures
            .iter()
            .filter_map(|signature| signature.key_id.as_deref())
            .collect();
        Err(key_mismatch(key, &hints))
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
    Err(key_mismatch(key, hint.as_slice()))
}

/// Anybody can write any hint: it only says which of two refusals is more helpful.
fn key_mismatch(key: &PublicKey, hints: &[&str]) -> SignatureError {
    let own = key.pem_fingerprint();
    if hints.contains(&own.as_str()) {
        return SignatureError::Changed;
    }
    SignatureError::OtherKey {
        fingerprint: key.fingerprint(),
        hint: hints.first().map(|hint| quoted(hint)),
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Trusted::Key(key) => write!(formatter, "Trust(key {})", key.fingerprint()),
            Trusted::Certificates(_) => write!(formatter, "Trust(certificates)"),
        }
    }
}
