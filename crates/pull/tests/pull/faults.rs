//! What passes by itself is waited for, and what comes wrong is not kept.

use std::time::Instant;

use crate::stand_in::{Fault, status, status_with};
use crate::*;

/// Something that goes wrong once with each request for a range.
fn once(fault: Fault) -> StandIn {
    let hub = tiny();
    hub.choose(
        move |request| match request.is_elsewhere && request.before == 0 {
            true => fault.clone(),
            false => Fault::None,
        },
    );
    hub
}

#[test]
fn what_passes_is_waited_for() {
    let faults = [
        Fault::CutAfter(0),
        Fault::CutAfter(333),
        Fault::StallAfter(0),
        Fault::StallAfter(333),
        status(500),
        status(503),
        status(408),
        // A signature that is too old: the hub makes a new one.
        status(403),
        status_with(429, "retry-after", 0),
        status_with(429, "retry-after", "in a while"),
    ];
    std::thread::scope(|scope| {
        for fault in faults {
            scope.spawn(move || {
                let (hub, store) = (once(fault.clone()), Scratch::new());
                pull_tiny(&hub, &store).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
                assert_is_tiny(&store);
            });
        }
    });
}

#[test]
fn the_list_and_small_files_are_waited_for_too() {
    for part in ["/api/", "config.json"] {
        for fault in [
            Fault::CutAfter(7),
            status(502),
            status_with(429, "retry-after", 0),
        ] {
            let (hub, store) = (tiny(), Scratch::new());
            hub.choose(move |request| {
                let is_first = request.before == 0 && request.header("range").is_none();
                match is_first && request.path.contains(part) {
                    true => fault.clone(),
                    false => Fault::None,
                }
            });
            pull_tiny(&hub, &store).unwrap();
            assert_is_tiny(&store);
        }
    }
}

#[test]
fn a_request_ends_after_a_while_though_nothing_else_ends_it() {
    let (hub, store) = (once(Fault::StallAfter(333)), Scratch::new());
    let mut settings = settings(&hub);
    settings.patience.silence = Duration::from_secs(600);
    settings.patience.request = Duration::from_secs(1);
    pull_with(&settings, &store, &[REPOSITORY]).unwrap();
    assert_is_tiny(&store);
}

#[test]
fn after_a_cut_only_the_rest_is_asked_for() {
    let (hub, store) = (once(Fault::CutAfter(333)), Scratch::new());
    pull_tiny(&hub, &store).unwrap();
    let ranges: Vec<String> = hub
        .requests()
        .iter()
        .filter_map(|request| request.header("range").map(str::to_owned))
        .collect();
    assert!(ranges.contains(&"bytes=1333-1999".to_owned()), "{ranges:?}");
}

#[test]
fn a_server_that_names_a_time_is_left_alone_until_then() {
    let (hub, store) = (once(status_with(429, "retry-after", 1)), Scratch::new());
    let start = Instant::now();
    pull_tiny(&hub, &store).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn what_does_not_pass_ends_the_pull_and_the_next_goes_on() {
    let (hub, store) = (tiny(), Scratch::new());
    hub.choose(|request| match request.header("range") {
        Some("bytes=4000-4999") => status(500),
        _ => Fault::None,
    });
    let error =
        pull_with(&settings(&hub), &store, &[REPOSITORY, "--max-workers", "1"]).unwrap_err();
    assert_mentions(&error, &["model.safetensors", "answered 500"]);
    let sent = hub.bytes_sent();
    hub.choose(|_| Fault::None);
    pull_tiny(&hub, &store).unwrap();
    assert_is_tiny(&store);
    // Two parts of weights, and what came after them.
    assert_eq!(hub.bytes_sent() - sent, 1500 + 300);
}

#[test]
fn wrong_bytes_are_removed_and_fetched_anew() {
    for (file, digits) in [("model.safetensors", 64), ("config.json", 40)] {
        let (hub, store) = (tiny(), Scratch::new());
        hub.choose(move |request| match (file, request.is_elsewhere) {
            ("config.json", false) if request.path.ends_with(file) => Fault::WrongByte,
            ("model.safetensors", true) if request.header("range") == Some("bytes=2000-2999") => {
                Fault::WrongByte
            }
            _ => Fault::None,
        });
        let error = pull_tiny(&hub, &store).unwrap_err();
        assert_mentions(&error, &[file, "is not what the hub lists"]);
        let digest = error.split("not ").last().unwrap();
        assert_eq!(digest.find(';'), Some(digits), "{error}");
        assert!(!store.join(".pull-tiny/files").join(file).exists());
        hub.choose(|_| Fault::None);
        pull_tiny(&hub, &store).unwrap();
        assert_is_tiny(&store);
    }
}

#[test]
fn answers_that_are_not_what_was_asked_for_are_refused() {
    for (fault, part) in [
        (Fault::Whole, "ignores ranges"),
        (Fault::WrongRange, "another range than was asked for"),
        (Fault::Short, "another range than was asked for"),
        (status(416), "answered 416"),
        (status(204), "answered 204"),
    ] {
        let (hub, store) = (tiny(), Scratch::new());
        hub.choose(move |request| match request.header("range") {
            Some(_) => fault.clone(),
            None => Fault::None,
        });
        assert_mentions(
            &pull_tiny(&hub, &store).unwrap_err(),
            &["model.safetensors", part],
        );
    }
    let (hub, store) = (tiny(), Scratch::new());
    hub.choose(|request| match request.path.ends_with("config.json") {
        true => Fault::Short,
        false => Fault::None,
    });
    assert_mentions(
        &pull_tiny(&hub, &store).unwrap_err(),
        &["config.json", "where the hub lists"],
    );
}

#[test]
fn small_files_need_no_ranges() {
    let (hub, store) = (tiny(), Scratch::new());
    let mut settings = settings(&hub);
    settings.part_bytes = 1 << 20;
    hub.choose(|request| match request.before {
        0 if !request.is_listing() && request.header("range").is_none() => Fault::CutAfter(7),
        _ => Fault::Whole,
    });
    pull_with(&settings, &store, &[REPOSITORY]).unwrap();
    assert_is_tiny(&store);
}
