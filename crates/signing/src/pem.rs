//! PEM files (RFC 7468) with a public key or certificates.

use rustls_pki_types::pem::{PemObject as _, SectionKind};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};

use crate::TrustError;

/// Certificates of one file; operating systems bring some 150.
const CERTIFICATES_MAX: usize = 1024;

/// What is in a PEM file.
pub(crate) enum PemContent {
    /// One public key.
    Key(SubjectPublicKeyInfoDer<'static>),
    /// At least one certificate.
    Certificates(Vec<CertificateDer<'static>>),
}

/// Reads a PEM file. Sections that say nothing about whom to trust are passed over.
pub(crate) fn parse(pem: &[u8]) -> Result<PemContent, TrustError> {
    let (mut keys, mut certificates) = (Vec::new(), Vec::new());
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, bytes) = section.map_err(|error| TrustError::Pem(error.to_string()))?;
        match kind {
            SectionKind::PublicKey => keys.push(SubjectPublicKeyInfoDer::from(bytes)),
            SectionKind::Certificate => certificates.push(CertificateDer::from(bytes)),
            SectionKind::PrivateKey | SectionKind::EcPrivateKey | SectionKind::RsaPrivateKey => {
                return Err(TrustError::PrivateKey);
            }
            _ => {}
        }
        if certificates.len() > CERTIFICATES_MAX {
            return Err(TrustError::TooManyCertificates(CERTIFICATES_MAX));
        }
    }
    match (keys.pop(), keys.is_empty(), certificates.is_empty()) {
        (Some(key), true, true) => Ok(PemContent::Key(key)),
        (None, _, false) => Ok(PemContent::Certificates(certificates)),
        (None, _, true) => Err(TrustError::Empty),
        (Some(_), ..) => Err(TrustError::Ambiguous),
    }
}
