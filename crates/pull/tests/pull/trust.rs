//! Whom a pull believes, over TLS.

use crate::stand_in::{Fault, status_with};
use crate::*;

fn encrypted() -> (StandIn, String) {
    let weights = bytes(5500, 1);
    StandIn::encrypted(&[("config.json", CONFIG), ("*model.safetensors", &weights)])
}

fn trusting(hub: &StandIn, certificates: &Path) -> Result<Settings, String> {
    let settings = settings(hub).with_authorities(certificates);
    settings.map_err(|error| error.to_string())
}

#[test]
fn a_private_authority_is_believed_when_it_is_named_and_not_otherwise() {
    let ((hub, certificate), scratch) = (encrypted(), Scratch::new());
    let store = scratch.join("store");
    let error = pull_tiny(&hub, &store).unwrap_err();
    assert_mentions(&error, &["no trusted connection to 127.0.0.1", "--ca-file"]);
    assert!(hub.requests().is_empty());

    let path = scratch.join("authority.pem");
    std::fs::write(&path, certificate).unwrap();
    let settings = trusting(&hub, &path).unwrap();
    pull_with(&settings, &store, &[REPOSITORY]).unwrap();
    assert_is_tiny(&store);
}

#[test]
fn a_file_without_certificates_is_refused() {
    let ((hub, _), scratch) = (encrypted(), Scratch::new());
    let path = scratch.join("authority.pem");
    for (text, part) in [
        ("", "holds no certificate"),
        (
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
            "not PEM",
        ),
    ] {
        std::fs::write(&path, text).unwrap();
        assert_mentions(
            &trusting(&hub, &path).unwrap_err(),
            &["authority.pem", part],
        );
    }
    let error = trusting(&hub, &scratch.join("absent.pem")).unwrap_err();
    assert_mentions(&error, &["absent.pem", "No such file"]);
}

#[test]
fn encryption_is_never_given_up() {
    let ((hub, certificate), scratch, plain) = (encrypted(), Scratch::new(), tiny());
    let path = scratch.join("authority.pem");
    std::fs::write(&path, certificate).unwrap();
    let location = format!("{}/x", plain.url);
    hub.choose(move |request| match request.path.contains("/resolve/") {
        true => status_with(302, "location", &location),
        false => Fault::None,
    });
    let settings = trusting(&hub, &path).unwrap();
    let error = pull_with(&settings, &scratch.join("store"), &[REPOSITORY]).unwrap_err();
    assert_mentions(&error, &["from HTTPS to plain HTTP"]);
    assert!(plain.requests().is_empty());
}
