//! What a signature of a model says was signed.
//!
//! The format is that of OpenSSF model-signing 1.0 (the Python package `model-signing`,
//! <https://github.com/sigstore/model-transparency>): a Sigstore bundle around a DSSE envelope
//! around an in-toto statement, which lists the files of a model with their digests. This crate
//! reads no weights: whoever has its answer compares the digests with those of the files.
//!
//! [`Envelope`] is what it is in without the bundle, for others who sign statements, such as reports.
//!
//! Signatures by a key or by a certificate are checked offline. Sigstore's keyless signatures
//! need logs and roots from the network, and are refused.

mod bundle;
mod certificates;
mod ecdsa;
mod envelope;
mod error;
mod fields;
mod file_name;
mod hexadecimal;
mod key;
mod pem;
mod signed_files;
mod statement;
mod trust;

use std::io::ErrorKind;
use std::path::Path;

pub use envelope::{Envelope, EnvelopeSignature, IN_TOTO};
pub use error::{SignatureError, TrustError};
pub use signed_files::{SignedFiles, Signer};
pub use trust::Trust;

use bundle::Bundle;

/// The longest signature: 16,384 files with names of ordinary length.
pub const SIGNATURE_BYTES_MAX: u64 = 8 << 20;
/// What model-signing calls a signature unless it is told otherwise.
pub const SIGNATURE_FILE_NAME: &str = "model.sig";

/// What was signed, if the signature is by whom `trust` says.
pub fn verify(signature: &[u8], trust: &Trust) -> Result<SignedFiles, SignatureError> {
    if signature.len() as u64 > SIGNATURE_BYTES_MAX {
        return Err(SignatureError::TooLong);
    }
    let bundle = Bundle::parse(signature)?;
    // Nothing of the payload is looked at before it is known whose it is.
    let signer = trust.check(&bundle)?;
    bundle.check_payload_type()?;
    statement::read(&bundle.payload, signer)
}

/// As [`verify`], for a file.
pub fn verify_file(path: &Path, trust: &Trust) -> Result<SignedFiles, SignatureError> {
    let bytes = backstop_input::read_file(path, SIGNATURE_BYTES_MAX).map_err(|source| {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::NotFound => SignatureError::Missing { path },
            _ => SignatureError::Unreadable { path, source },
        }
    })?;
    verify(&bytes, trust)
}
