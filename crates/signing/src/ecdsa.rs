//! ECDSA signatures for webpki, which leaves the arithmetic to others. RustCrypto's is safe Rust; what rustls brings
//! compiles C and assembly.

use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use rustls_pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
};
use sha2::{Digest, Sha256, Sha384};

/// What model-signing signs with a key on P-256.
pub(crate) static P256_SHA256: Ecdsa = Ecdsa(Curve::P256, Hash::Sha256);
/// What it signs with a key on P-384.
pub(crate) static P384_SHA384: Ecdsa = Ecdsa(Curve::P384, Hash::Sha384);
static P256_SHA384: Ecdsa = Ecdsa(Curve::P256, Hash::Sha384);
static P384_SHA256: Ecdsa = Ecdsa(Curve::P384, Hash::Sha256);

/// What certificates may be signed with.
pub(crate) static ALL: &[&dyn SignatureVerificationAlgorithm] =
    &[&P256_SHA256, &P384_SHA384, &P256_SHA384, &P384_SHA256];

/// A curve, and what is signed of a message (FIPS 186-5, section 6.4).
#[derive(Debug)]
pub(crate) struct Ecdsa(Curve, Hash);

#[derive(Debug)]
enum Curve {
    P256,
    P384,
}

#[derive(Debug)]
enum Hash {
    Sha256,
    Sha384,
}

impl SignatureVerificationAlgorithm for Ecdsa {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let digest = match self.1 {
            Hash::Sha256 => Sha256::digest(message).to_vec(),
            Hash::Sha384 => Sha384::digest(message).to_vec(),
        };
        let is_valid = match self.0 {
            Curve::P256 => {
                use p256::ecdsa::{Signature, VerifyingKey};
                let key = VerifyingKey::from_sec1_bytes(public_key);
                let signature = Signature::from_der(signature);
                key.and_then(|key| key.verify_prehash(&digest, &signature?))
            }
            Curve::P384 => {
                use p384::ecdsa::{Signature, VerifyingKey};
                let key = VerifyingKey::from_sec1_bytes(public_key);
                let signature = Signature::from_der(signature);
                key.and_then(|key| key.verify_prehash(&digest, &signature?))
            }
        };
        is_valid.map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        match self.0 {
            Curve::P256 => alg_id::ECDSA_P256,
            Curve::P384 => alg_id::ECDSA_P384,
        }
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        match self.1 {
            Hash::Sha256 => alg_id::ECDSA_SHA256,
            Hash::Sha384 => alg_id::ECDSA_SHA384,
        }
    }
}
