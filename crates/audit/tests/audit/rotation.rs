//! Logs of several files.

use std::fs;
use std::time::Duration;

use backstop_audit::{AuditLog, AuditSettings, Rotation, verify};

use crate::support::{Scratch, report, request, settings};

fn small(scratch: &Scratch, files_max: Option<u32>) -> AuditSettings {
    AuditSettings {
        rotation: Rotation {
            bytes_max: 2000,
            age_max: None,
            files_max,
        },
        ..settings(scratch)
    }
}

/// Runs a server again and again, which writes some entries each time.
fn run(settings: &AuditSettings, times: usize) {
    for _ in 0..times {
        let log = AuditLog::open(settings).unwrap();
        for number in 0..5 {
            log.recorder().record(request(number), None);
        }
        log.close("stopped");
    }
}

#[test]
fn the_chain_goes_on_from_file_to_file() {
    let scratch = Scratch::new();
    run(&small(&scratch, None), 6);
    let names = scratch.names();
    assert!(names.len() > 2, "{names:?}");
    assert_eq!(names[..2], ["audit.jsonl", "audit.jsonl.000001"]);
    let report = report(&scratch.log());
    assert!(report.holds(), "{report:?}");
    assert_eq!((report.requests, report.files.len()), (30, names.len()));
    let text = fs::read_to_string(scratch.log()).unwrap();
    let last = names.last().unwrap();
    assert!(
        text.lines()
            .next()
            .unwrap()
            .contains(&format!("\"after\":\"{last}\""))
    );
    // Files may be named one by one, and in any order.
    let mut all: Vec<_> = names
        .iter()
        .map(|name| scratch.log().with_file_name(name))
        .collect();
    all.reverse();
    assert_eq!(verify(&all, &[]).unwrap(), report);
}

#[test]
fn a_file_that_is_missing_in_between_is_found() {
    let scratch = Scratch::new();
    run(&small(&scratch, None), 6);
    let names = scratch.names();
    fs::remove_file(scratch.log().with_file_name(&names[2])).unwrap();
    let report = report(&scratch.log());
    assert_eq!(report.faults.len(), 1, "{report:?}");
    assert_eq!(report.faults[0].line, 1);
}

#[test]
fn the_newest_files_are_kept_and_the_first_line_says_which_went() {
    let scratch = Scratch::new();
    run(&small(&scratch, Some(2)), 8);
    let names = scratch.names();
    assert_eq!(names.len(), 3, "{names:?}");
    let report = report(&scratch.log());
    assert!(report.holds(), "{report:?}");
    assert!(report.first.unwrap().sequence > 1);
    let text = fs::read_to_string(scratch.log()).unwrap();
    assert!(text.contains("\"removes\":[\"audit.jsonl.0"), "{text}");
}

#[test]
fn a_log_whose_present_file_is_gone_goes_on_behind_the_last() {
    let scratch = Scratch::new();
    let settings = small(&scratch, None);
    run(&settings, 6);
    // As after a power cut between the two renamings.
    fs::rename(
        scratch.log(),
        scratch.log().with_file_name("audit.jsonl.000099"),
    )
    .unwrap();
    fs::write(
        scratch.log().with_file_name("audit.jsonl.next"),
        "half a li",
    )
    .unwrap();
    run(&settings, 1);
    let report = report(&scratch.log());
    assert!(report.holds(), "{report:?}");
    assert_eq!(report.requests, 35);
}

#[test]
fn a_file_that_is_old_is_put_aside() {
    let scratch = Scratch::new();
    let mut settings = settings(&scratch);
    settings.rotation.age_max = Some(Duration::ZERO);
    run(&settings, 2);
    assert!(scratch.names().len() > 1);
    assert!(report(&scratch.log()).holds());
}
