//! DSSE envelopes (<https://github.com/secure-systems-lab/dsse/blob/v1.0.0/envelope.md>): bytes, what they are, and who signed
//! them.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::bundle::{decode, expect, parse_json};
use crate::fields::Document;
use crate::{SignatureError, Signer, Trust};

/// What in-toto's statements call themselves.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// An envelope has four values and keys, and three for each signature.
const VALUES_MAX: usize = 256;
const SIGNATURES_MAX: usize = 16;

/// An envelope of which nothing is known to be true yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// What the payload is.
    pub payload_type: String,
    /// What is signed.
    pub payload: Vec<u8>,
    /// By whom; an envelope that others have signed as well is as good.
    pub signatures: Vec<EnvelopeSignature>,
}

/// One signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeSignature {
    /// A hint which key it is by; anybody can write any.
    pub key_id: Option<String>,
    /// The signature.
    pub signature: Vec<u8>,
}

impl Envelope {
    /// Reads an envelope.
    ///
    /// # Errors
    ///
    /// If it is none, or has no signatures or too many.
    pub fn parse(json: &[u8]) -> Result<Self, SignatureError> {
        let value = parse_json("envelope", json, VALUES_MAX)?;
        let document = Document {
            name: "envelope",
            value: &value,
        };
        let signatures = document.list("/signatures")?;
        if signatures.is_empty() || signatures.len() > SIGNATURES_MAX {
            return Err(SignatureError::SignatureCount(signatures.len()));
        }
        let signature = |value| {
            let document = Document {
                name: "envelope's signature",
                value,
            };
            let key_id = value.get("keyid").and_then(Value::as_str);
            Ok(EnvelopeSignature {
                key_id: key_id.map(str::to_owned),
                signature: decode(&document, "/sig")?,
            })
        };
        Ok(Self {
            payload_type: document.text("/payloadType")?.to_owned(),
            payload: decode(&document, "/payload")?,
            signatures: signatures.iter().map(signature).collect::<Result<_, _>>()?,
        })
    }

    /// Its JSON.
    pub fn to_json(&self) -> Value {
        let signatures = self.signatures.iter().map(|signature| {
            let bytes = BASE64_STANDARD.encode(&signature.signature);
            json!({"keyid": signature.key_id.as_deref().unwrap_or_default(), "sig": bytes})
        });
        json!({
            "payloadType": self.payload_type,
            "payload": BASE64_STANDARD.encode(&self.payload),
            "signatures": signatures.collect::<Vec<_>>(),
        })
    }

    /// The bytes that signatures are over.
    pub fn signed_bytes(&self) -> Vec<u8> {
        signed_bytes(&self.payload_type, &self.payload)
    }

    /// Who signed, if that is whom `trust` says and the payload is an in-toto statement.
    ///
    /// # Errors
    ///
    /// If none of the signatures is by the trusted key.
    pub fn verify(&self, trust: &Trust) -> Result<Signer, SignatureError> {
        let signer = trust.check_envelope(self)?;
        expect("payload type", &self.payload_type, IN_TOTO)?;
        Ok(signer)
    }
}

/// DSSE's pre-authentication encoding (<https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md>).
pub(crate) fn signed_bytes(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let (type_bytes, payload_bytes) = (payload_type.len(), payload.len());
    let head = format!("DSSEv1 {type_bytes} {payload_type} {payload_bytes} ");
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            payload_type: "http://example.com/HelloWorld".into(),
            payload: b"hello world".to_vec(),
            signatures: vec![EnvelopeSignature {
                key_id: Some("k".into()),
                signature: vec![1, 2, 3],
            }],
        }
    }

    #[test]
    fn what_is_signed_is_as_the_specification_has_it() {
        // The example of DSSE's protocol.md.
        let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(envelope().signed_bytes(), expected);
    }

    #[test]
    fn envelopes_are_written_and_read() {
        let json = envelope().to_json().to_string();
        assert_eq!(Envelope::parse(json.as_bytes()).unwrap(), envelope());
        for (from, to) in [
            ("\"sig\":\"AQID\"", "\"sig\":\"AQI\""),
            ("payloadType", "payload_type"),
            ("\"signatures\":[", "\"signatures\":[],\"x\":["),
        ] {
            assert!(json.contains(from), "{from}");
            assert!(
                Envelope::parse(json.replace(from, to).as_bytes()).is_err(),
                "{to}"
            );
        }
    }
}
