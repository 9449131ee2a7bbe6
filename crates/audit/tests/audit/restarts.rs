//! Servers that were killed, and what the next one makes of it.

use std::fs;
use std::os::unix::fs::symlink;

use backstop_audit::{AuditLog, OpenError};

use crate::support::{Scratch, log_of, report, request, settings};

#[test]
fn a_log_goes_on_wherever_the_last_server_was_killed() {
    let good = log_of(2);
    let begin = good[..good.len() - 1]
        .iter()
        .rposition(|byte| *byte == b'\n');
    let begin = begin.unwrap() + 1;
    let ends = (begin..good.len() - 1).step_by(23);
    for end in ends.chain([begin + 1, good.len() - 2, good.len() - 1, good.len()]) {
        let scratch = Scratch::new();
        fs::write(scratch.log(), &good[..end]).unwrap();
        let before = report(&scratch.log());
        assert!(before.holds(), "{end}: {before:?}");
        let log = AuditLog::open(&settings(&scratch)).unwrap();
        log.recorder().record(request(7), None);
        log.close("stopped");
        let bytes = fs::read(scratch.log()).unwrap();
        assert!(bytes.starts_with(&good[..end]), "nothing is taken back");
        let after = report(&scratch.log());
        assert!(after.holds(), "{end}: {after:?}");
        // A line of which only the line break is missing is a whole line.
        let is_torn = (begin + 1..good.len() - 1).contains(&end);
        assert_eq!(after.torn.len(), usize::from(is_torn), "{end}");
    }
}

#[test]
fn start_and_stop_are_entries_and_everything_recorded_stands_between_them() {
    let scratch = Scratch::new();
    let log = AuditLog::open(&settings(&scratch)).unwrap();
    let recorder = log.recorder();
    for number in 0..3000 {
        recorder.record(request(number), None);
    }
    log.close("stopped");
    assert_eq!(recorder.state().lost, 0);
    let report = report(&scratch.log());
    assert!(report.holds(), "{report:?}");
    assert_eq!((report.entries, report.requests), (3003, 3000));
    assert_eq!(recorder.state().written, 3003);
    let text = fs::read_to_string(scratch.log()).unwrap();
    let kinds = [
        "\"kind\":\"file\"",
        "\"kind\":\"start\"",
        "\"kind\":\"stop\"",
    ];
    let lines: Vec<&str> = text.lines().collect();
    for (kind, line) in kinds.iter().zip([lines[0], lines[1], lines[3002]]) {
        assert!(line.contains(kind), "{line}");
    }
    assert!(lines[3002].contains("\"reason\":\"stopped\""));
}

#[test]
fn what_is_no_log_is_refused_and_left_as_it_is() {
    let scratch = Scratch::new();
    for content in ["", "root:x:0:0\n", "{\"sequence\":1}\n"] {
        fs::write(scratch.log(), content).unwrap();
        let refused = AuditLog::open(&settings(&scratch)).unwrap_err();
        assert!(matches!(refused, OpenError::NoEntries { .. }), "{refused}");
        assert_eq!(fs::read_to_string(scratch.log()).unwrap(), content);
    }
    fs::remove_file(scratch.log()).unwrap();
    symlink("/dev/null", scratch.log()).unwrap();
    let refused = AuditLog::open(&settings(&scratch)).unwrap_err();
    assert!(matches!(refused, OpenError::NotAFile(_)), "{refused}");
    let mut nowhere = settings(&scratch);
    nowhere.path = scratch.log().join("nowhere/audit.jsonl");
    let refused = AuditLog::open(&nowhere).unwrap_err();
    assert!(matches!(refused, OpenError::Io { .. }), "{refused}");
}

#[test]
fn two_do_not_write_one_log() {
    let scratch = Scratch::new();
    let log = AuditLog::open(&settings(&scratch)).unwrap();
    let refused = AuditLog::open(&settings(&scratch)).unwrap_err();
    assert!(matches!(refused, OpenError::InUse(_)), "{refused}");
    log.close("stopped");
    AuditLog::open(&settings(&scratch))
        .unwrap()
        .close("stopped");
    assert!(report(&scratch.log()).holds());
}

#[test]
fn texts_have_a_bound_over_all_requests() {
    let scratch = Scratch::new();
    let mut with_texts = settings(&scratch);
    with_texts.prompts = true;
    let log = AuditLog::open(&with_texts).unwrap();
    let recorder = log.recorder();
    let half = recorder.text_share(64 << 20).unwrap();
    let _other = recorder.text_share(64 << 20).unwrap();
    assert!(recorder.text_share(1).is_none());
    drop(half);
    assert!(recorder.text_share(1).is_some());
    log.close("stopped");
    let log = AuditLog::open(&settings(&scratch)).unwrap();
    assert!(
        log.recorder().text_share(1).is_none(),
        "nobody asked for texts"
    );
    log.close("stopped");
}
