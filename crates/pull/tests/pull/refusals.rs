//! What a hub refuses, said so that one knows what to do.

use crate::stand_in::{Fault, status, status_with};
use crate::*;

const TOKEN: &str = "hf_ThisIsMySecret";

fn error_of(
    fault: impl Fn(&stand_in::Request) -> Fault + Send + Sync + 'static,
    token: bool,
) -> String {
    let (hub, store) = (tiny(), Scratch::new());
    hub.choose(fault);
    let mut settings = settings(&hub);
    if token {
        settings = settings.with_token(TOKEN).unwrap();
    }
    let error = pull_with(&settings, &store, &[REPOSITORY]).unwrap_err();
    assert!(!error.contains(TOKEN), "{error}");
    assert!(!error.contains("signature"), "{error}");
    error
}

#[test]
fn what_must_be_asked_for_says_where_and_as_whom() {
    let error = error_of(|_| status_with(401, "x-error-code", "GatedRepo"), false);
    assert_mentions(
        &error,
        &["accept its licence at", REPOSITORY, "set HF_TOKEN"],
    );
    let error = error_of(|_| status_with(403, "x-error-code", "GatedRepo"), true);
    assert_mentions(
        &error,
        &["this token does not permit", "accept its licence at"],
    );
    let error = error_of(|_| status(401), false);
    assert_mentions(
        &error,
        &["is not there, or not for everybody", "set HF_TOKEN"],
    );
    let error = error_of(|_| status(401), true);
    assert_mentions(&error, &["this token does not permit"]);
    let small = |request: &stand_in::Request| match request.path.ends_with("config.json") {
        true => status_with(403, "x-error-code", "GatedRepo"),
        false => Fault::None,
    };
    assert_mentions(&error_of(small, false), &["accept its licence at"]);
}

#[test]
fn what_is_not_there_is_named() {
    let (hub, store) = (tiny(), Scratch::new());
    let error = |line: &[&str]| pull_with(&settings(&hub), &store, line).unwrap_err();
    assert_mentions(
        &error(&["someone/else"]),
        &["no model repository someone/else", "set HF_TOKEN"],
    );
    assert_mentions(
        &error(&[REPOSITORY, "--revision", "v9"]),
        &["no such revision"],
    );
    assert_mentions(
        &error(&["unknown"]),
        &["no model is known as", "north-mini-code-fp8"],
    );
    let gone = |request: &stand_in::Request| match request.path.ends_with("config.json") {
        true => status_with(404, "x-error-code", "EntryNotFound"),
        false => Fault::None,
    };
    assert_mentions(&error_of(gone, false), &["no such file", "config.json"]);
    assert_mentions(
        &error_of(|_| status(404), false),
        &["no such repository, revision or file"],
    );
    assert!(names(&store).is_empty(), "{:?}", names(&store));
}

#[test]
fn a_hub_that_is_not_there_is_named() {
    let (hub, store) = (tiny(), Scratch::new());
    let mut settings = Settings::of_endpoint("http://127.0.0.1:9").unwrap();
    settings.patience = crate::settings(&hub).patience;
    let error = pull_with(&settings, &store, &[REPOSITORY]).unwrap_err();
    assert_mentions(&error, &["127.0.0.1:9 cannot be asked"]);
}

#[test]
fn tokens_go_to_the_hub_and_to_nobody_else() {
    let (hub, store) = (tiny(), Scratch::new());
    let settings = settings(&hub).with_token(TOKEN).unwrap();
    pull_with(&settings, &store, &[REPOSITORY]).unwrap();
    let expected = format!("Bearer {TOKEN}");
    for request in hub.requests() {
        let found = request.header("authorization");
        let expected = (!request.is_elsewhere).then_some(expected.as_str());
        assert_eq!(found, expected, "{request:?}");
    }
    assert!(hub.requests().iter().any(|request| request.is_elsewhere));
}

#[test]
fn one_pull_at_a_time_works_on_a_model() {
    let (hub, store) = (tiny(), Scratch::new());
    let lock = std::fs::File::create(store.join(".pull-tiny.lock")).unwrap();
    lock.lock().unwrap();
    assert_mentions(&pull_tiny(&hub, &store).unwrap_err(), &["another process"]);
    drop(lock);
    pull_tiny(&hub, &store).unwrap();
    assert_is_tiny(&store);
}
