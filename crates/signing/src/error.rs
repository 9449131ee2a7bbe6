//! Why a key or certificate is not taken, and why a signature is not.

use std::io;
use std::path::PathBuf;

/// Why what signatures are checked with cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The text is not PEM.
    #[error("it is not PEM: {0}")]
    Pem(String),
    /// There is neither a public key nor a certificate.
    #[error("it holds neither a public key (-----BEGIN PUBLIC KEY-----) nor certificates")]
    Empty,
    /// There is a private key, which has no business here.
    #[error(
        "it holds a private key, which belongs to the signer alone: give the public key \
         (openssl pkey -in KEY -pubout)"
    )]
    PrivateKey,
    /// There are several keys, or a key and certificates.
    #[error(
        "it holds more than one public key, or a key and certificates: give one key, or certificates"
    )]
    Ambiguous,
    /// Keys of this kind are not supported.
    #[error("the key is {0}: only ECDSA keys on the curves P-256 and P-384 are supported")]
    UnsupportedKey(String),
    /// There are more certificates than are taken.
    #[error(
        "it holds more than {0} certificates: give those of the authority that signers have theirs from"
    )]
    TooManyCertificates(usize),
    /// A certificate cannot be read.
    #[error("certificate {number} cannot be read: {reason}")]
    Certificate {
        /// Which, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// No certificate is one that others can be traced to.
    #[error("none of the certificates is a root (its own issuer): add the root to the file")]
    NoRoot,
}

/// Why a signature does not say what was signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// There is no such file.
    #[error(
        "there is no signature {path}: sign the model with the package model-signing, or say where \
         its signature is (--signature)"
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file could not be read.
    #[error("cannot read the signature {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The signature is longer than any that is taken.
    #[error("the signature is longer than {} bytes", crate::SIGNATURE_BYTES_MAX)]
    TooLong,
    /// A document in the signature is not JSON, or has too many values.
    #[error("the {document} is not JSON that can be read: {reason}")]
    Json {
        /// The document.
        document: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A field is missing or of another type.
    #[error("the {document} has no {field}, or not of the type that it should have")]
    Field {
        /// The document.
        document: &'static str,
        /// The field, as a JSON pointer.
        field: &'static str,
    },
    /// Bytes are not base64.
    #[error("{0} is not base64")]
    Base64(&'static str),
    /// It is no Sigstore bundle, or one of another version.
    #[error("it is a bundle of type {0}: sign the model with model-signing 1.0 or later")]
    MediaType(String),
    /// It is signed with Sigstore's keyless mode.
    #[error(
        "it is a keyless Sigstore signature, which can only be checked with logs and roots from the \
         network: have the model signed with a key (model_signing sign key) or a certificate \
         (model_signing sign certificate)"
    )]
    Keyless,
    /// It is by a key, but certificates are trusted.
    #[error(
        "it is signed with a key, not with a certificate: give the signer's public key (--key)"
    )]
    SignedWithKey,
    /// It is by a certificate, but a key is trusted.
    #[error(
        "it is signed with a certificate, not with a key: give the root certificate of the signer's \
         authority (--certificate)"
    )]
    SignedWithCertificate,
    /// There is not exactly one signature.
    #[error("it has {0} signatures where there should be one")]
    SignatureCount(usize),
    /// The signature is not by the trusted key.
    #[error(
        "the signature is not by this key (SHA-256 {fingerprint}){}",
        hint.as_ref().map_or(String::new(), |hint| format!(
            ": it names the key whose PEM file has the SHA-256 {hint}"
        ))
    )]
    OtherKey {
        /// The trusted key's fingerprint.
        fingerprint: String,
        /// What the signature calls its key.
        hint: Option<String>,
    },
    /// The signature names the trusted key, but that did not sign this.
    #[error(
        "the signature names this key, but was changed after signing: get it from the signer again"
    )]
    Changed,
    /// The signature is not by the certificate that comes with it.
    #[error(
        "the signature is not by the certificate of {0} that comes with it, or what it is over was changed"
    )]
    OtherCertificate(String),
    /// The certificate's key is of a kind that is not supported.
    #[error(
        "the certificate's key is {0}: only ECDSA keys on the curves P-256 and P-384 are supported"
    )]
    UnsupportedKey(String),
    /// There are more certificates than are taken.
    #[error("it brings more than {0} certificates")]
    TooManyCertificates(usize),
    /// A certificate cannot be read.
    #[error("certificate {number} of the signature cannot be read: {reason}")]
    Certificate {
        /// Which, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate cannot be traced to a trusted one.
    #[error("the certificate of {subject} does not lead to a trusted root: {reason}")]
    Chain {
        /// Whose certificate.
        subject: String,
        /// What was in the way.
        reason: String,
    },
    /// The certificate is for something else.
    #[error(
        "the certificate of {0}, or one above it, is not for signing code: its key usage must have \
         digitalSignature, and its extended key usage, if it has one, codeSigning"
    )]
    Usage(String),
    /// What is signed is something other than it should be.
    #[error("what is signed has the {what} {found} where {expected} is expected")]
    Type {
        /// Which of its types.
        what: &'static str,
        /// What is there.
        found: String,
        /// What should be there.
        expected: &'static str,
    },
    /// The model was not signed file by file.
    #[error(
        "the model was signed by {0}: sign it by files, which is what model-signing does unless told otherwise"
    )]
    Method(String),
    /// The digests are of another kind.
    #[error(
        "the model was signed with digests of the kind {0}: sign it with sha256, which is what \
         model-signing does unless told otherwise"
    )]
    Algorithm(String),
    /// A file was signed, not a folder of files.
    #[error("what was signed is a single file without its name: sign the folder that it is in")]
    SingleFile,
    /// Nothing was signed.
    #[error("the signature is over no files")]
    NoFiles,
    /// There is more of something than is taken.
    #[error("what is signed has more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are taken.
        max: usize,
    },
    /// A name leads somewhere else, or is no name.
    #[error("the signed file {name} {reason}")]
    FileName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A digest is no SHA-256 digest.
    #[error("the digest of {0} is not the 64 hexadecimal digits of SHA-256")]
    Digest(String),
    /// The digest of the model is not that of its files.
    #[error(
        "what is signed contradicts itself: the model's digest is not the one over its files' digests"
    )]
    ModelDigest,
}
