//! Public keys: ECDSA on P-256 with SHA-256 and on P-384 with SHA-384, as model-signing pairs them.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use webpki::RawPublicKeyEntity;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::oid::db::rfc5912::{
    ID_EC_PUBLIC_KEY, RSA_ENCRYPTION, SECP_256_R_1, SECP_384_R_1, SECP_521_R_1,
};
use x509_cert::der::oid::db::rfc8410::ID_ED_25519;
use x509_cert::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

use crate::{ecdsa, hexadecimal};

/// The first byte of a point that is written with both of its coordinates (SEC 1, 2.3.3).
const UNCOMPRESSED: u8 = 4;
/// Length of a line of PEM (RFC 7468, section 2).
const PEM_LINE_CHARACTERS: usize = 64;

/// A public key, and what its signatures are made with.
pub(crate) struct PublicKey {
    key: SubjectPublicKeyInfoDer<'static>,
    algorithm: &'static dyn SignatureVerificationAlgorithm,
}

impl PublicKey {
    /// A key from its DER (RFC 5280, `SubjectPublicKeyInfo`), or what it is instead of one that is
    /// supported.
    pub(crate) fn new(key: SubjectPublicKeyInfoDer<'static>) -> Result<Self, String> {
        let parsed = SubjectPublicKeyInfoRef::from_der(&key)
            .map_err(|error| format!("one that cannot be read ({error})"))?;
        let algorithm = algorithm_of(&parsed.algorithm)?;
        if parsed.subject_public_key.raw_bytes().first() != Some(&UNCOMPRESSED) {
            return Err("one with a compressed point".to_owned());
        }
        Ok(Self { key, algorithm })
    }

    /// Whether the signature, in DER, is by this key and over this message.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        RawPublicKeyEntity::try_from(&self.key)
            .and_then(|key| key.verify_signature(self.algorithm, message, signature))
            .is_ok()
    }

    pub(crate) fn fingerprint(&self) -> String {
        hexadecimal::sha256(&self.key)
    }

    /// SHA-256 of the key's PEM text, by which model-signing's bundles name keys.
    pub(crate) fn pem_fingerprint(&self) -> String {
        let text = BASE64_STANDARD.encode(&self.key);
        let mut pem = b"-----BEGIN PUBLIC KEY-----\n".to_vec();
        for line in text.as_bytes().chunks(PEM_LINE_CHARACTERS) {
            pem.extend_from_slice(line);
            pem.push(b'\n');
        }
        pem.extend_from_slice(b"-----END PUBLIC KEY-----\n");
        hexadecimal::sha256(&pem)
    }
}

fn algorithm_of(
    algorithm: &AlgorithmIdentifierRef<'_>,
) -> Result<&'static dyn SignatureVerificationAlgorithm, String> {
    let curve = match algorithm.oid {
        ID_EC_PUBLIC_KEY => algorithm.parameters_oid().ok(),
        other => return Err(name_of(other)),
    };
    match curve {
        Some(SECP_256_R_1) => Ok(&ecdsa::P256_SHA256),
        Some(SECP_384_R_1) => Ok(&ecdsa::P384_SHA384),
        Some(SECP_521_R_1) => Err("on the curve P-521".to_owned()),
        Some(other) => Err(format!("on the curve {other}")),
        None => Err("on a curve without a name".to_owned()),
    }
}

fn name_of(algorithm: ObjectIdentifier) -> String {
    match algorithm {
        RSA_ENCRYPTION => "RSA".to_owned(),
        ID_ED_25519 => "Ed25519".to_owned(),
        other => format!("of the kind {other}"),
    }
}
