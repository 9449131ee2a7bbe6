//! Whatever is changed afterwards is found.

use std::fs;

use backstop_audit::{head, verify};

use crate::support::{Scratch, log_of, report};

#[test]
fn a_log_as_it_was_written_holds() {
    let scratch = Scratch::new();
    let report = scratch.verify(&log_of(5));
    assert!(report.holds(), "{report:?}");
    assert_eq!((report.entries, report.requests), (6, 5));
    assert_eq!(report.first.unwrap().sequence, 1);
    assert_eq!(report.last.unwrap().sequence, 6);
}

#[test]
fn a_changed_byte_is_found_wherever_it_is() {
    let scratch = Scratch::new();
    let good = log_of(3);
    fs::write(scratch.log(), &good).unwrap();
    let (_, last) = head(&scratch.log()).unwrap();
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 1;
        fs::write(scratch.log(), &changed).unwrap();
        let found = !verify(&[scratch.log()], &[last]).unwrap().holds();
        assert!(found, "byte {at} of {}", good.len());
    }
}

#[test]
fn a_fault_is_told_once_with_its_line() {
    let scratch = Scratch::new();
    let text = String::from_utf8(log_of(6)).unwrap();
    let changed = text.replacen("request-2", "request-9", 1);
    let report = scratch.verify(changed.as_bytes());
    assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
    assert_eq!(report.faults[0].line, 4);
    let lines: Vec<&str> = text.lines().collect();
    let without = [&lines[..3], &lines[4..]].concat().join("\n");
    let report = scratch.verify(without.as_bytes());
    assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
    assert_eq!(report.faults[0].line, 4);
    assert!(report.faults[0].what.contains("entry 5 where entry 4"));
}

#[test]
fn lines_that_are_moved_repeated_or_put_in_are_found() {
    let scratch = Scratch::new();
    let text = String::from_utf8(log_of(4)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let orders: [&[usize]; 4] = [
        &[0, 2, 1, 3, 4],
        &[0, 1, 1, 2, 3, 4],
        &[1, 2, 3, 4],
        &[0, 1, 2, 4],
    ];
    for order in orders {
        let moved: Vec<&str> = order.iter().map(|at| lines[*at]).collect();
        let report = scratch.verify((moved.join("\n") + "\n").as_bytes());
        assert!(!report.holds(), "{order:?}");
    }
    let with_words = text.replacen('\n', "\nnothing of the kind\n", 1);
    assert_eq!(scratch.verify(with_words.as_bytes()).faults.len(), 1);
    assert!(!scratch.verify(b"").holds());
}

#[test]
fn a_cut_off_end_is_found_by_who_kept_a_hash() {
    let scratch = Scratch::new();
    let text = String::from_utf8(log_of(4)).unwrap();
    fs::write(scratch.log(), &text).unwrap();
    let (sequence, last) = head(&scratch.log()).unwrap();
    assert_eq!(sequence, 5);
    assert!(verify(&[scratch.log()], &[last]).unwrap().holds());
    let end = text.trim_end().rfind('\n').unwrap() + 1;
    fs::write(scratch.log(), &text[..end]).unwrap();
    assert!(report(&scratch.log()).holds());
    let report = verify(&[scratch.log()], &[last]).unwrap();
    assert_eq!((report.holds(), report.missing), (false, vec![last]));
}
