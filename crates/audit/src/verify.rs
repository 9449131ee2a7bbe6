//! Whether a log is as it was written.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::files::{is_fresh, put_aside};
use crate::hash::Hash;
use crate::line::{Chain, Fields, LINE_BYTES_MAX, ReadLine};
use crate::torn::Torn;

/// Places that are told one by one.
const PLACES_MAX: usize = 1000;

/// What became of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The files, in order.
    pub files: Vec<PathBuf>,
    /// Lines that are entries.
    pub entries: u64,
    /// Those of them that are requests.
    pub requests: u64,
    /// The first entry.
    pub first: Option<Mark>,
    /// The hash that the first entry follows; 64 zeros if it is the first of all.
    pub previous: Option<Hash>,
    /// The last entry.
    pub last: Option<Mark>,
    /// Entries that were lost for want of room, as other entries say.
    pub lost: u64,
    /// Entries that a power cut may have taken, as other entries say.
    pub unsynced: u64,
    /// Parts of entries, as a killed process or a full disk leaves them.
    pub torn: Vec<Place>,
    /// What is not as it was written.
    pub faults: Vec<Place>,
    /// Faults beyond those that are listed.
    pub more_faults: u64,
    /// Hashes that were to be there, and are not.
    pub missing: Vec<Hash>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// Its number.
    pub sequence: u64,
    /// When it was written, as RFC 3339 writes it.
    pub time: String,
    /// Its hash.
    pub hash: Hash,
}

/// A line, and what is to be said of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Its file.
    pub file: PathBuf,
    /// Its number in that file, from 1.
    pub line: u64,
    /// What is the matter.
    pub what: String,
}

impl Report {
    /// Whether everything is as it was written, and everything expected is there.
    pub fn holds(&self) -> bool {
        self.faults.is_empty() && self.missing.is_empty() && self.entries > 0
    }
}

/// Reads logs, each with the files that were put aside of it, in order, and checks every line. `expected` are hashes of
/// entries that are known to have been written.
///
/// # Errors
///
/// If a file cannot be read. What is wrong with its content is in the report.
pub fn verify(paths: &[PathBuf], expected: &[Hash]) -> io::Result<Report> {
    let mut walk = Walk {
        missing: expected.to_vec(),
        ..Walk::default()
    };
    for path in in_order(paths)? {
        walk.file(&path).map_err(|error| in_file(&path, error))?;
    }
    Ok(walk.finish())
}

/// The files behind these names, each once, by the number of their first entry.
fn in_order(paths: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let others = put_aside(path).map_err(|error| in_file(path, error))?;
        files.extend(
            others
                .into_iter()
                .map(|(_, name)| path.with_file_name(name)),
        );
        files.push(path.clone());
    }
    files.retain(|path| !is_fresh(path));
    let numbered = files.into_iter().map(|path| {
        let first = first_sequence(&path).map_err(|error| in_file(&path, error))?;
        Ok((first, path))
    });
    let mut numbered: Vec<(u64, PathBuf)> = numbered.collect::<io::Result<_>>()?;
    numbered.sort();
    numbered.dedup();
    Ok(numbered.into_iter().map(|(_, path)| path).collect())
}

/// The number of a file's first entry; of a file without one, a number behind all others.
fn first_sequence(path: &Path) -> io::Result<u64> {
    let mut line = Vec::new();
    next_line(&mut BufReader::new(File::open(path)?), &mut line)?;
    let entry = ReadLine::read(line.strip_suffix(b"\n").unwrap_or(&line));
    Ok(entry.map_or(u64::MAX, |entry| entry.fields.sequence))
}

fn in_file(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Reads a line with its line break, or a part of one that is too long.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    line.clear();
    reader.take(LINE_BYTES_MAX as u64).read_until(b'\n', line)
}

/// Goes through the lines of all files.
#[derive(Default)]
struct Walk {
    report: Report,
    /// `None` before the first entry.
    chain: Option<Chain>,
    /// Lines that are no entries, and where they begin. An entry may tell of them.
    torn: Option<(Place, Torn)>,
    missing: Vec<Hash>,
}

impl Walk {
    fn file(&mut self, path: &Path) -> io::Result<()> {
        self.report.files.push(path.to_owned());
        let mut reader = BufReader::new(File::open(path)?);
        let mut line = Vec::new();
        let mut number = 0;
        while next_line(&mut reader, &mut line)? > 0 {
            number += 1;
            let place = |what: &str| Place {
                file: path.to_owned(),
                line: number,
                what: what.to_owned(),
            };
            let text = line.strip_suffix(b"\n");
            self.line(text.unwrap_or(&line), text.is_some(), place);
        }
        if number == 0 {
            self.fault(Place {
                file: path.to_owned(),
                line: 0,
                what: "the file is empty".to_owned(),
            });
        }
        Ok(())
    }

    fn line(&mut self, text: &[u8], is_whole: bool, place: impl Fn(&str) -> Place) {
        let Some(entry) = ReadLine::read(text) else {
            let (_, torn) = self
                .torn
                .get_or_insert_with(|| (place("no entry"), Torn::default()));
            torn.extend(text);
            if is_whole {
                torn.extend(b"\n");
            }
            return;
        };
        let is_next = match &self.chain {
            Some(chain) => entry.follows(chain),
            None => self.is_first(&entry),
        };
        self.settle_torn(is_next, &entry.fields);
        if !is_next {
            self.fault(place(&self.complaint(&entry)));
        }
        // From here on by what the line says, so that each fault is told once.
        self.chain = Some(entry.chain());
        self.count(entry.fields);
    }

    /// Whether the first line of all is what it says it is.
    fn is_first(&mut self, entry: &ReadLine<'_>) -> bool {
        self.report.previous = entry.fields.previous;
        let before = entry.fields.previous.map(|hash| Chain {
            sequence: entry.fields.sequence.saturating_sub(1),
            hash,
        });
        before.is_some_and(|before| entry.follows(&before))
    }

    fn complaint(&self, entry: &ReadLine<'_>) -> String {
        let found = entry.fields.sequence;
        match &self.chain {
            None => "it does not follow from the hash that it names as the one before".to_owned(),
            Some(chain) if found == chain.next() => {
                "it does not follow from the line before: one of the two was changed".to_owned()
            }
            Some(chain) => format!(
                "entry {found} where entry {} should be: entries were taken out, put in or moved",
                chain.next()
            ),
        }
    }

    /// Decides about lines that were no entries, when an entry comes behind them.
    fn settle_torn(&mut self, is_next: bool, next: &Fields) {
        let Some((fault, torn)) = self.torn.take() else {
            return;
        };
        let is_told = next.kind == "torn" && next.bytes.zip(next.sha256) == Some(torn.told());
        match is_next && is_told {
            true => self.torn(fault, &torn),
            false => self.fault(fault),
        }
    }

    fn torn(&mut self, place: Place, torn: &Torn) {
        let (bytes, _) = torn.told();
        let what = format!("part of an entry, {bytes} bytes");
        if self.report.torn.len() < PLACES_MAX {
            self.report.torn.push(Place { what, ..place });
        }
    }

    fn count(&mut self, fields: Fields) {
        let report = &mut self.report;
        report.entries += 1;
        match fields.kind.as_str() {
            "request" => report.requests += 1,
            "lost" => report.lost += fields.entries.unwrap_or(0),
            "unsynced" => report.unsynced += fields.entries.unwrap_or(0),
            _ => {}
        }
        self.missing.retain(|hash| *hash != fields.hash);
        let mark = Mark {
            sequence: fields.sequence,
            time: fields.time,
            hash: fields.hash,
        };
        report.first.get_or_insert_with(|| mark.clone());
        report.last = Some(mark);
    }

    fn fault(&mut self, fault: Place) {
        match self.report.faults.len() < PLACES_MAX {
            true => self.report.faults.push(fault),
            false => self.report.more_faults += 1,
        }
    }

    /// A part of an entry may stand at the very end, where no server has started since.
    fn finish(mut self) -> Report {
        if let Some((fault, torn)) = self.torn.take() {
            match torn.ends_line {
                true => self.fault(fault),
                false => self.torn(fault, &torn),
            }
        }
        self.report.missing = self.missing;
        self.report
    }
}
