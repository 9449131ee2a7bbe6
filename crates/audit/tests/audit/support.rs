//! A disk that fails on command, a directory for each test, and entries to write.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backstop_audit::{
    AuditSettings, Confirm, Entry, Ledger, Medium, NextFile, Report, RequestEntry, Rotation, verify,
};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory that is gone after the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("backstop-audit-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("audit.jsonl")
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// What becomes of a log with this content.
    pub(crate) fn verify(&self, bytes: &[u8]) -> Report {
        fs::write(self.log(), bytes).unwrap();
        report(&self.log())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ignored = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn report(log: &Path) -> Report {
    verify(&[log.to_owned()], &[]).unwrap()
}

pub(crate) fn settings(scratch: &Scratch) -> AuditSettings {
    AuditSettings {
        path: scratch.log(),
        rotation: Rotation {
            bytes_max: u64::MAX,
            age_max: None,
            files_max: None,
        },
        required: false,
        prompts: false,
        version: "0.0.0",
    }
}

/// A disk in memory.
pub(crate) struct Disk {
    pub(crate) bytes: Vec<u8>,
    /// Bytes that it still takes.
    pub(crate) room: usize,
    /// It confirms what it took.
    pub(crate) confirms: bool,
}

impl Disk {
    pub(crate) fn with_room() -> Self {
        Self {
            bytes: Vec::new(),
            room: usize::MAX,
            confirms: true,
        }
    }
}

impl Medium for Disk {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.room.min(bytes.len());
        if taken == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.room -= taken;
        self.bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn confirm(&self) -> io::Result<Confirm> {
        let confirms = self.confirms;
        Ok(Box::new(move || match confirms {
            true => Ok(()),
            false => Err(io::Error::other("the disk is broken")),
        }))
    }

    fn next_file(&self) -> Option<io::Result<NextFile>> {
        None
    }

    fn begin(&mut self, _: &NextFile, first_line: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(first_line);
        Ok(())
    }
}

pub(crate) fn noon() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A request with a number.
pub(crate) fn request(number: usize) -> Entry {
    Entry::Request(Box::new(RequestEntry {
        request_id: format!("request-{number}"),
        route: "/v1/chat/completions",
        key: Some("somebody".to_owned()),
        status: Some(200),
        ..RequestEntry::default()
    }))
}

/// The bytes of a log with these requests.
pub(crate) fn log_of(requests: usize) -> Vec<u8> {
    let mut ledger = Ledger::begin(Disk::with_room(), noon()).unwrap();
    for number in 0..requests {
        ledger.push(noon(), request(number));
    }
    ledger.write(noon()).unwrap();
    std::mem::take(&mut ledger.medium().bytes)
}

/// The numbers of the requests in a log, in its order.
pub(crate) fn requests_in(bytes: &[u8]) -> Vec<usize> {
    let text = String::from_utf8_lossy(bytes);
    let number = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        value["request_id"]
            .as_str()?
            .strip_prefix("request-")?
            .parse()
            .ok()
    };
    text.lines().filter_map(number).collect()
}
