//! Sigstore bundles, as far as model-signing writes them
//! (<https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_bundle.proto>, in
//! protobuf's JSON).

use backstop_input::ValueAllowance;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::CertificateDer;
use serde_json::Value;

use crate::SignatureError;
use crate::envelope::{IN_TOTO, signed_bytes};
use crate::fields::{Document, quoted};

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// A bundle has some twenty values and keys, and three for each certificate.
const VALUES_MAX: usize = 1024;
/// Certificates from the signer's towards the root.
const CERTIFICATES_MAX: usize = 16;

/// A bundle of which nothing is known to be true yet.
pub(crate) struct Bundle {
    pub(crate) material: Material,
    pub(crate) signature: Vec<u8>,
    payload_type: String,
    pub(crate) payload: Vec<u8>,
}

/// What a bundle says that it can be verified with.
pub(crate) enum Material {
    /// A key, by the SHA-256 of its PEM file.
    Key { hint: Option<String> },
    /// The signer's certificate, and those between it and a root.
    Certificates(Vec<CertificateDer<'static>>),
}

impl Bundle {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, SignatureError> {
        let value = parse_json("signature", json, VALUES_MAX)?;
        let document = Document {
            name: "signature",
            value: &value,
        };
        let media_type = document.text("/mediaType")?;
        if media_type != MEDIA_TYPE {
            return Err(SignatureError::MediaType(quoted(media_type)));
        }
        let signatures = document.list("/dsseEnvelope/signatures")?;
        if signatures.len() != 1 {
            return Err(SignatureError::SignatureCount(signatures.len()));
        }
        Ok(Self {
            material: Material::read(&document)?,
            signature: decode(&document, "/dsseEnvelope/signatures/0/sig")?,
            payload_type: document.text("/dsseEnvelope/payloadType")?.to_owned(),
            payload: decode(&document, "/dsseEnvelope/payload")?,
        })
    }

    /// The bytes that the signature is over.
    pub(crate) fn signed_bytes(&self) -> Vec<u8> {
        signed_bytes(&self.payload_type, &self.payload)
    }

    pub(crate) fn check_payload_type(&self) -> Result<(), SignatureError> {
        expect("payload type", &self.payload_type, IN_TOTO)
    }
}

impl Material {
    fn read(document: &Document<'_>) -> Result<Self, SignatureError> {
        let has = |pointer| document.value.pointer(pointer).is_some();
        let log_entries = document.list_if_any("/verificationMaterial/tlogEntries")?;
        if has("/verificationMaterial/certificate") || !log_entries.is_empty() {
            return Err(SignatureError::Keyless);
        }
        if has("/verificationMaterial/publicKey") {
            let hint = document
                .value
                .pointer("/verificationMaterial/publicKey/hint");
            let hint = hint.and_then(Value::as_str).map(str::to_owned);
            return Ok(Self::Key { hint });
        }
        let certificates =
            document.list("/verificationMaterial/x509CertificateChain/certificates")?;
        if certificates.len() > CERTIFICATES_MAX {
            return Err(SignatureError::TooManyCertificates(CERTIFICATES_MAX));
        }
        let certificate = |value| {
            let document = Document {
                name: "certificate",
                value,
            };
            decode(&document, "/rawBytes").map(CertificateDer::from)
        };
        let certificates: Result<_, _> = certificates.iter().map(certificate).collect();
        Ok(Self::Certificates(certificates?))
    }
}

/// A document within its limits.
pub(crate) fn parse_json(
    document: &'static str,
    json: &[u8],
    values_max: usize,
) -> Result<Value, SignatureError> {
    let parsed = ValueAllowance::new(values_max).parse(json);
    parsed.map_err(|error| SignatureError::Json {
        document,
        reason: error.to_string(),
    })
}

/// Refuses any other type.
pub(crate) fn expect(
    what: &'static str,
    found: &str,
    expected: &'static str,
) -> Result<(), SignatureError> {
    match found == expected {
        true => Ok(()),
        false => Err(SignatureError::Type {
            what,
            found: quoted(found),
            expected,
        }),
    }
}

/// The bytes that stand there in base64.
pub(crate) fn decode(
    document: &Document<'_>,
    pointer: &'static str,
) -> Result<Vec<u8>, SignatureError> {
    let text = document.text(pointer)?;
    let decoded = BASE64_STANDARD.decode(text);
    decoded.map_err(|_| SignatureError::Base64(pointer))
}
