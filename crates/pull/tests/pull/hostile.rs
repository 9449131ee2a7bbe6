//! A hub, or somebody in its place, that means ill.

use crate::stand_in::{COMMIT, Fault, status_with};
use crate::*;

fn error_of_listing(json: Vec<u8>) -> String {
    let (hub, store) = (tiny(), Scratch::new());
    hub.choose(move |request| match request.is_listing() {
        true => Fault::Answer(200, Vec::new(), json.clone()),
        false => Fault::None,
    });
    let error = pull_tiny(&hub, &store).unwrap_err();
    assert!(names(&store).is_empty(), "{:?}", names(&store));
    error
}

#[test]
fn lists_without_end_and_without_sense_are_refused() {
    let long = vec![b' '; (32 << 20) + 1];
    assert_mentions(&error_of_listing(long), &["longer than"]);
    let many = format!("[{}0]", "0,".repeat(1 << 20));
    assert_mentions(&error_of_listing(many.into()), &["too many values"]);
    let deep = "[".repeat(100_000);
    assert_mentions(&error_of_listing(deep.into()), &["cannot be used"]);
    assert_mentions(&error_of_listing(b"<html>".to_vec()), &["cannot be used"]);
    assert_mentions(
        &error_of_listing(b"{\"sha\":\"../x\",\"siblings\":[]}".to_vec()),
        &["no commit"],
    );
}

#[test]
fn names_that_lead_out_of_the_directory_are_refused() {
    for name in [
        "../../outside.jinja",
        "/etc/passwd",
        "a/../../b",
        "..\\\\x",
        "a\\u0000b",
    ] {
        let digest = "0".repeat(40);
        let file = format!("{{\"rfilename\":\"{name}\",\"size\":1,\"blobId\":\"{digest}\"}}");
        let json = format!("{{\"sha\":\"{COMMIT}\",\"siblings\":[{file}]}}");
        assert_mentions(
            &error_of_listing(json.into()),
            &["is not a path within a directory"],
        );
    }
}

#[test]
fn sizes_that_no_disk_has_are_refused_before_anything_is_written() {
    let file = |name: &str, bytes: u64| {
        let digest = "0".repeat(64);
        format!("{{\"rfilename\":\"{name}\",\"lfs\":{{\"sha256\":\"{digest}\",\"size\":{bytes}}}}}")
    };
    let json = |files: &[String]| {
        format!(
            "{{\"sha\":\"{COMMIT}\",\"siblings\":[{}]}}",
            files.join(",")
        )
    };
    for bytes in [u64::MAX, (1 << 46) - 1] {
        let two = [file("model.safetensors", bytes), file("LICENSE", 2)];
        assert_mentions(
            &error_of_listing(json(&two).into()),
            &["sizes that no model has"],
        );
    }
    let (hub, store) = (tiny(), Scratch::new());
    let one = json(&[file("model.safetensors", 1 << 46)]);
    hub.choose(move |request| match request.is_listing() {
        true => Fault::Answer(200, Vec::new(), one.clone().into()),
        false => Fault::None,
    });
    let error = pull_tiny(&hub, &store).unwrap_err();
    assert_mentions(&error, &["are needed: make room"]);
    assert_eq!(hub.requests().len(), 1);
}

#[test]
fn redirects_end_and_lead_only_to_servers() {
    let redirect = |location: &'static str| {
        let (hub, store) = (tiny(), Scratch::new());
        hub.choose(move |_| status_with(302, "location", location));
        let error = pull_tiny(&hub, &store).unwrap_err();
        (error, hub.requests().len())
    };
    let (error, requests) = redirect("/api/again");
    assert_mentions(&error, &["more than 10 redirects"]);
    assert_eq!(requests, 11);
    for location in [
        "file:///etc/passwd",
        "",
        "http://",
        "http:///x",
        "\u{e9}",
        "x y",
    ] {
        let (error, _) = redirect(location);
        assert!(
            error.contains("redirects to something") || error.contains("makes no sense"),
            "{location}: {error}"
        );
    }
}

#[test]
fn packed_answers_and_endless_ones_are_refused() {
    for (header, part) in [("gzip", "gzip"), ("identity", "digest")] {
        let (hub, store) = (tiny(), Scratch::new());
        hub.choose(move |request| match request.path.ends_with("config.json") {
            true => Fault::Answer(
                200,
                vec![("content-encoding", header.to_owned())],
                vec![b'x'; CONFIG.len()],
            ),
            false => Fault::None,
        });
        assert_mentions(
            &pull_tiny(&hub, &store).unwrap_err(),
            &["config.json", part],
        );
    }
    let (hub, store) = (tiny(), Scratch::new());
    hub.choose(move |request| match request.path.ends_with("config.json") {
        true => Fault::Answer(200, Vec::new(), vec![b'x'; 1 << 20]),
        false => Fault::None,
    });
    assert_mentions(
        &pull_tiny(&hub, &store).unwrap_err(),
        &["1048576", "where the hub lists"],
    );
}
