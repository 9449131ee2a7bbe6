//! Disks that have no room, or do not confirm what they took.

use backstop_audit::Ledger;

use crate::support::{Disk, Scratch, log_of, noon, request, requests_in};

const REQUESTS: usize = 2;

#[test]
fn wherever_a_disk_stops_each_entry_is_written_once_and_in_order() {
    let scratch = Scratch::new();
    let whole = log_of(REQUESTS).len();
    for first in 0..whole {
        // The second time it stops within what tells of the first.
        for second in [1, 40] {
            let bytes = written_with_stops(&[first, second]);
            let expected: Vec<usize> = (0..REQUESTS).collect();
            assert_eq!(requests_in(&bytes), expected, "{first} {second}");
            let report = scratch.verify(&bytes);
            assert!(report.holds(), "{first} {second}: {report:?}");
            assert!(report.torn.len() <= 2, "{first} {second}: {report:?}");
        }
    }
}

/// What is on a disk that took so many bytes and then none, several times.
fn written_with_stops(rooms: &[usize]) -> Vec<u8> {
    let mut ledger = Ledger::begin(Disk::with_room(), noon()).unwrap();
    for number in 0..REQUESTS {
        ledger.push(noon(), request(number));
    }
    for room in rooms {
        ledger.medium().room = *room;
        // It has no more room than that, or everything is written.
        let _ignored = ledger.write(noon());
    }
    ledger.medium().room = usize::MAX;
    ledger.write(noon()).unwrap();
    assert_eq!((ledger.waiting(), ledger.is_due()), (0, false));
    std::mem::take(&mut ledger.medium().bytes)
}

#[test]
fn lost_entries_are_counted_in_the_log_behind_what_waited() {
    let scratch = Scratch::new();
    let mut ledger = Ledger::begin(Disk::with_room(), noon()).unwrap();
    ledger.medium().room = 0;
    ledger.push(noon(), request(0));
    ledger.lose(2);
    ledger.write(noon()).unwrap_err();
    ledger.lose(5);
    assert_eq!(ledger.waiting(), 1);
    ledger.medium().room = usize::MAX;
    ledger.write(noon()).unwrap();
    let bytes = &ledger.medium().bytes;
    let last = String::from_utf8_lossy(bytes)
        .lines()
        .last()
        .unwrap()
        .to_owned();
    assert!(last.contains("\"kind\":\"lost\",\"entries\":7"), "{last}");
    let report = scratch.verify(bytes);
    assert_eq!((report.holds(), report.lost), (true, 7));
}

#[test]
fn what_a_disk_did_not_confirm_is_told_in_the_log() {
    let scratch = Scratch::new();
    let mut ledger = Ledger::begin(Disk::with_room(), noon()).unwrap();
    ledger.push(noon(), request(0));
    ledger.push(noon(), request(1));
    ledger.write(noon()).unwrap();
    assert_eq!(ledger.unsynced(), 2);
    ledger.medium().confirms = false;
    ledger.sync().unwrap_err();
    assert!(ledger.is_due());
    ledger.write(noon()).unwrap();
    let report = scratch.verify(&ledger.medium().bytes);
    assert_eq!((report.holds(), report.unsynced), (true, 2));
    ledger.medium().confirms = true;
    ledger.sync().unwrap();
    assert_eq!((ledger.unsynced(), ledger.is_due()), (0, false));
}
