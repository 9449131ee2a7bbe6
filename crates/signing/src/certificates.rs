//! Certificates that are trusted, and the way from a signer's certificate to one of them.

use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::Certificate;
use x509_cert::der::oid::db::rfc5280::ID_KP_CODE_SIGNING;
use x509_cert::der::{self, Decode as _};
use x509_cert::ext::pkix;

use crate::ecdsa;
use crate::fields::quoted;
use crate::hexadecimal;
use crate::key::PublicKey;
use crate::{SignatureError, Signer, TrustError};

/// Certificates from the operator.
pub(crate) struct TrustedCertificates {
    /// Those that are their own issuers.
    roots: Vec<TrustAnchor<'static>>,
    /// Others, which may lie between a signer's certificate and a root; trusted no more than those
    /// that a signature brings.
    intermediates: Vec<CertificateDer<'static>>,
}

/// A signer whose certificate leads to a root.
pub(crate) struct CertifiedSigner {
    pub(crate) key: PublicKey,
    pub(crate) subject: String,
    fingerprint: String,
}

impl TrustedCertificates {
    pub(crate) fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, TrustError> {
        let mut trusted = Self {
            roots: Vec::new(),
            intermediates: Vec::new(),
        };
        for (index, certificate) in certificates.into_iter().enumerate() {
            let taken = trusted.add(certificate);
            taken.map_err(|reason| TrustError::Certificate {
                number: index + 1,
                reason,
            })?;
        }
        match trusted.roots.is_empty() {
            true => Err(TrustError::NoRoot),
            false => Ok(trusted),
        }
    }

    fn add(&mut self, certificate: CertificateDer<'static>) -> Result<(), String> {
        // A certificate that is not its own issuer may be a signer's; as a root, it could issue.
        let parsed = Certificate::from_der(&certificate).map_err(|error| error.to_string())?;
        let parsed = parsed.tbs_certificate();
        if parsed.subject() != parsed.issuer() {
            self.intermediates.push(certificate);
            return Ok(());
        }
        let root = anchor_from_trusted_cert(&certificate).map_err(|error| error.to_string())?;
        self.roots.push(root.to_owned());
        Ok(())
    }

    /// Who holds the first of these certificates, if it leads to a root by way of the others.
    pub(crate) fn certify(
        &self,
        chain: &[CertificateDer<'static>],
    ) -> Result<CertifiedSigner, SignatureError> {
        let (leaf, others) = chain.split_first().ok_or(SignatureError::Field {
            document: "signature",
            field: "/verificationMaterial/x509CertificateChain/certificates/0",
        })?;
        let unreadable = |error: der::Error| SignatureError::Certificate {
            number: 1,
            reason: error.to_string(),
        };
        let parsed = Certificate::from_der(leaf).map_err(unreadable)?;
        let subject = quoted(&parsed.tbs_certificate().subject().to_string());
        let key = self
            .trace(leaf, others, signing_time(&parsed))
            .map_err(|error| refusal(error, &subject))?;
        if !is_for_signing(&parsed).map_err(unreadable)? {
            return Err(SignatureError::Usage(subject));
        }
        Ok(CertifiedSigner {
            key: PublicKey::new(key).map_err(SignatureError::UnsupportedKey)?,
            subject,
            fingerprint: hexadecimal::sha256(leaf),
        })
    }

    /// The key of the first certificate, if that leads to a root.
    fn trace(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'static>],
        time: UnixTime,
    ) -> Result<SubjectPublicKeyInfoDer<'static>, webpki::Error> {
        let intermediates = [others, &self.intermediates].concat();
        let leaf = EndEntityCert::try_from(leaf)?;
        leaf.verify_for_usage(
            ecdsa::ALL,
            &self.roots,
            &intermediates,
            time,
            // A certificate that lists purposes must list this one, at every step.
            KeyUsage::required_if_present(ID_KP_CODE_SIGNING.as_bytes()),
            None,
            None,
        )?;
        Ok(leaf.subject_public_key_info())
    }
}

impl CertifiedSigner {
    pub(crate) fn into_signer(self) -> Signer {
        Signer::Certificate {
            subject: self.subject,
            fingerprint: self.fingerprint,
        }
    }
}

/// What was in the way to a root, in words for what happens most.
fn refusal(error: webpki::Error, subject: &str) -> SignatureError {
    use webpki::Error;
    let reason = match error {
        Error::RequiredEkuNotFoundContext(_) => return SignatureError::Usage(subject.to_owned()),
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => {
            "no trusted root issued it, or a certificate between them is missing".to_owned()
        }
        Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "an authority on its way signs with something else than ECDSA on P-256 or P-384"
                .to_owned()
        }
        Error::CaUsedAsEndEntity => "it is an authority's own, not a signer's".to_owned(),
        Error::EndEntityUsedAsCa => "it was issued by somebody who is no authority".to_owned(),
        other => other.to_string(),
    };
    SignatureError::Chain {
        subject: subject.to_owned(),
        reason,
    }
}

/// When the certificate became valid. The signature does not say when it was made, and what was
/// signed does not become wrong when the certificate expires; model-signing takes this time too.
fn signing_time(certificate: &Certificate) -> UnixTime {
    let not_before = certificate.tbs_certificate().validity().not_before;
    UnixTime::since_unix_epoch(not_before.to_unix_duration())
}

/// Whether the certificate says that its key is for signatures: model-signing's rule. `webpki` does
/// not look at key usage.
fn is_for_signing(certificate: &Certificate) -> Result<bool, der::Error> {
    let certificate = certificate.tbs_certificate();
    let key_usage = certificate.get_extension::<pkix::KeyUsage>()?;
    let purposes = certificate.get_extension::<pkix::ExtendedKeyUsage>()?;
    let may_sign = key_usage.is_some_and(|(_, usage)| usage.digital_signature());
    let signs_code = purposes.is_some_and(|(_, list)| list.0.contains(&ID_KP_CODE_SIGNING));
    Ok(may_sign || signs_code)
}
