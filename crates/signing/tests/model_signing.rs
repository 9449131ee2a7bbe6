//! Signatures that the package `model-signing` made (`scripts/goldens/signatures.py`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backstop_signing::{
    SignatureError, SignedFiles, Signer, Trust, TrustError, verify, verify_file,
};
use proptest::prelude::{any, prop, proptest};
use serde_json::{Value, json};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/goldens/signatures")
        .join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn trust(name: &str) -> Trust {
    Trust::read(&path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn check(signature: &str, trusted: &str) -> Result<SignedFiles, SignatureError> {
    verify_file(&path(signature), &trust(trusted))
}

/// The refusal of a signature, which names what is wrong.
fn refusal(signature: &str, trusted: &str) -> String {
    match check(signature, trusted) {
        Ok(files) => panic!("{signature} is taken: {files:?}"),
        Err(error) => error.to_string(),
    }
}

fn assert_is_expected(files: &SignedFiles, name: &str) {
    let expected: Value = serde_json::from_slice(&bytes("expected.json")).expect("JSON");
    let expected = &expected[name];
    let digests: BTreeMap<String, String> =
        serde_json::from_value(expected["digests"].clone()).expect("texts by name");
    assert_eq!(files.digests, digests);
    assert_eq!(json!(files.ignored_paths), expected["ignored_paths"]);
    assert_eq!(json!(files.model_name), expected["model_name"]);
}

/// A good bundle in which this pointer has another value.
fn with(pointer: &str, value: Value) -> Vec<u8> {
    let mut bundle: Value = serde_json::from_slice(&bytes("p256.sig")).expect("JSON");
    *bundle.pointer_mut(pointer).expect("a place") = value;
    bundle.to_string().into_bytes()
}

#[test]
fn what_a_key_signed_is_what_model_signing_reads() {
    for name in ["p256", "p384"] {
        let files = check(&format!("{name}.sig"), &format!("{name}.pub")).unwrap();
        assert_is_expected(&files, name);
        let Signer::Key { fingerprint } = &files.signer else {
            panic!("{:?}", files.signer);
        };
        assert_eq!(fingerprint.len(), 64);
    }
}

#[test]
fn what_the_holder_of_a_certificate_signed_is_what_model_signing_reads() {
    // With the intermediate certificate from the signature, and from the operator.
    for (signature, trusted) in [
        ("certificate.sig", "root.pem"),
        ("certificate.sig", "chain.pem"),
        ("certificate_alone.sig", "chain.pem"),
    ] {
        let files = check(signature, trusted).unwrap();
        assert_is_expected(&files, "certificate");
        let Signer::Certificate { subject, .. } = &files.signer else {
            panic!("{:?}", files.signer);
        };
        assert_eq!(subject, "\"CN=Signer of models,O=Example\"");
    }
}

#[test]
fn another_key_and_another_root_are_not_the_signers() {
    let by_another = refusal("p256.sig", "foreign.pub");
    assert!(by_another.contains("not by this key"), "{by_another}");
    assert!(by_another.contains("it names the key"), "{by_another}");
    assert!(refusal("p256.sig", "p384.pub").contains("not by this key"));
    assert!(refusal("p384.sig", "p256.pub").contains("not by this key"));
    assert!(refusal("certificate.sig", "foreign_root.pem").contains("trusted root"));
    assert!(refusal("certificate_alone.sig", "root.pem").contains("trusted root"));
}

#[test]
fn a_key_is_no_certificate_and_a_certificate_no_key() {
    assert!(refusal("p256.sig", "root.pem").contains("--key"));
    assert!(refusal("certificate.sig", "p256.pub").contains("--certificate"));
}

#[test]
fn a_certificate_for_something_else_signs_no_models() {
    for signature in ["tls_certificate.sig", "encryption_certificate.sig"] {
        let refusal = refusal(signature, "root.pem");
        assert!(refusal.contains("not for signing code"), "{refusal}");
    }
}

#[test]
fn only_authorities_issue_certificates() {
    // By the holder of a good certificate; the second file names that as if it were trusted.
    for trusted in ["root.pem", "leaf_and_root.pem"] {
        let refusal = refusal("issued_by_signer.sig", trusted);
        assert!(refusal.contains("no authority"), "{refusal}");
    }
    let refusal = refusal("authority.sig", "root.pem");
    assert!(refusal.contains("an authority's own"), "{refusal}");
}

#[test]
fn what_was_changed_after_signing_is_refused_before_it_is_read() {
    assert!(refusal("tampered.sig", "p256.pub").contains("changed after signing"));
    // Under the certificate of another signature.
    let mut bundle: Value = serde_json::from_slice(&bytes("certificate.sig")).unwrap();
    let other: Value = serde_json::from_slice(&bytes("p384.sig")).unwrap();
    bundle["dsseEnvelope"] = other["dsseEnvelope"].clone();
    let error = verify(bundle.to_string().as_bytes(), &trust("root.pem")).unwrap_err();
    assert!(
        matches!(error, SignatureError::OtherCertificate(_)),
        "{error}"
    );
}

#[test]
fn what_was_signed_in_other_ways_is_refused_by_name() {
    assert!(refusal("shards.sig", "p256.pub").contains("\"shards\""));
    assert!(refusal("blake2.sig", "p256.pub").contains("\"blake2b\""));
    assert!(refusal("blake3.sig", "p256.pub").contains("\"blake3\""));
    assert!(refusal("single_file.sig", "p256.pub").contains("single file"));
    assert!(refusal("payload_type.sig", "p256.pub").contains("\"text/plain\""));
    assert!(refusal("no_json.sig", "p256.pub").contains("signed statement is not JSON"));
}

#[test]
fn keyless_signatures_are_refused_with_what_to_do_instead() {
    let certificate = json!({"certificate": {"rawBytes": ""}, "tlogEntries": [{"logIndex": "1"}]});
    let chain = json!({"x509CertificateChain": {"certificates": []}, "tlogEntries": [{}]});
    for material in [certificate, chain] {
        let error =
            verify(&with("/verificationMaterial", material), &trust("p256.pub")).unwrap_err();
        assert!(
            error.to_string().contains("model_signing sign key"),
            "{error}"
        );
    }
}

#[test]
fn bundles_of_another_shape_are_refused_by_name() {
    let cases = [
        (
            "/mediaType",
            json!("application/vnd.dev.sigstore.bundle+json;version=0.2"),
            "version=0.2",
        ),
        (
            "/verificationMaterial",
            json!({}),
            "no /verificationMaterial",
        ),
        (
            "/verificationMaterial",
            json!(1),
            "no /verificationMaterial",
        ),
        ("/dsseEnvelope/signatures", json!([]), "0 signatures"),
        ("/dsseEnvelope/signatures", json!([{}, {}]), "2 signatures"),
        (
            "/dsseEnvelope/signatures/0",
            json!({}),
            "no /dsseEnvelope/signatures/0/sig",
        ),
        (
            "/dsseEnvelope/payload",
            json!("*"),
            "/dsseEnvelope/payload is not base64",
        ),
        ("/dsseEnvelope", json!(null), "no /dsseEnvelope"),
        (
            "/verificationMaterial",
            json!({"x509CertificateChain": {"certificates": vec![json!({}); 17]}}),
            "16",
        ),
        ("", json!(vec![0; 1024]), "too many values"),
    ];
    for (pointer, value, expected) in cases {
        let error = verify(&with(pointer, value), &trust("p256.pub"))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{pointer}: {error}");
    }
}

#[test]
fn a_chain_without_certificates_or_with_bytes_that_are_none_is_refused() {
    for certificates in [
        json!([]),
        json!([{"rawBytes": ""}]),
        json!([{"rawBytes": "MAA="}]),
    ] {
        let chain = json!({"x509CertificateChain": {"certificates": certificates}});
        assert!(verify(&with("/verificationMaterial", chain), &trust("root.pem")).is_err());
    }
}

#[test]
fn a_missing_file_and_a_long_one_are_refused_with_a_reason() {
    assert!(refusal("nothing.sig", "p256.pub").contains("there is no signature"));
    assert!(refusal(".", "p256.pub").contains("not a regular file"));
    let long = vec![b' '; (8 << 20) + 1];
    let error = verify(&long, &trust("p256.pub")).unwrap_err();
    assert!(matches!(error, SignatureError::TooLong), "{error}");
}

#[test]
fn keys_of_other_kinds_are_refused_by_name() {
    let refusal = |name| Trust::read(&path(name)).unwrap_err().to_string();
    assert!(refusal("p521.pub").contains("on the curve P-521"));
    assert!(refusal("ed25519.pub").contains("Ed25519"));
    assert!(refusal("intermediate.pem").contains("none of the certificates is a root"));
    assert!(refusal("p256.sig").contains("neither a public key"));
    assert!(refusal("nothing.pub").contains("cannot read"));
}

#[test]
fn a_file_of_trust_says_one_thing_and_no_secrets() {
    let refusal = |pem: &[u8]| Trust::from_pem(pem).unwrap_err();
    let (key, root) = (bytes("p256.pub"), bytes("root.pem"));
    assert!(matches!(
        refusal(&[key.clone(), root].concat()),
        TrustError::Ambiguous
    ));
    assert!(matches!(
        refusal(&[key.clone(), key].concat()),
        TrustError::Ambiguous
    ));
    for label in ["PRIVATE KEY", "EC PRIVATE KEY"] {
        let pem = format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n");
        assert!(matches!(refusal(pem.as_bytes()), TrustError::PrivateKey));
    }
    for label in ["PUBLIC KEY", "CERTIFICATE"] {
        let pem = format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n");
        assert!(
            refusal(pem.as_bytes())
                .to_string()
                .contains("cannot be read")
        );
        let pem = format!("-----BEGIN {label}-----\nMAA=\n");
        assert!(matches!(refusal(pem.as_bytes()), TrustError::Pem(_)));
    }
}

proptest! {
    #[test]
    fn any_byte_of_a_signature_may_be_another_and_it_says_the_same_or_nothing(
        is_key in any::<bool>(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let (signature, trusted) = match is_key {
            true => ("p256.sig", "p256.pub"),
            false => ("certificate.sig", "root.pem"),
        };
        let mut signature = bytes(signature);
        let good = verify(&signature, &trust(trusted)).unwrap();
        let at = at.index(signature.len());
        signature[at] = byte;
        if let Ok(files) = verify(&signature, &trust(trusted)) {
            assert_eq!(files, good);
        }
    }

    #[test]
    fn any_byte_of_a_certificate_may_be_another_and_nothing_is_taken_that_was_not_signed(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        for name in ["chain.pem", "p256.pub"] {
            let mut pem = bytes(name);
            let (at, cut) = (at.index(pem.len()), cut.index(pem.len()));
            let _may_be_taken = Trust::from_pem(&pem[..cut]);
            pem[at] = byte;
            if let Ok(trust) = Trust::from_pem(&pem)
                && let Ok(files) = verify(&bytes("certificate.sig"), &trust)
            {
                assert_is_expected(&files, "certificate");
            }
        }
    }
}
