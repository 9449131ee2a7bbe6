//! What is written after what: entries in order, and between them what went wrong.
//!
//! A disk may take a part of what it is given, or nothing. Nothing that it took is taken back. A line of which it took
//! only a part is torn: its entry is written anew, behind an entry that tells of the part. Entries wait here until the
//! disk took them.

use std::collections::VecDeque;
use std::io;
use std::time::SystemTime;

use crate::entry::{Entry, FORMAT};
use crate::files::NextFile;
use crate::hash::Hash;
use crate::line::Chain;
use crate::log::TextShare;
use crate::torn::Torn;

/// Bytes that are handed to the disk at once, and one entry more.
const BATCH_BYTES: usize = 1 << 20;

/// Has a disk confirm what it took, on whatever thread: returns when a power cut cannot take it any more.
pub type Confirm = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// Where lines go.
pub trait Medium {
    /// Takes some of `bytes` behind what it has, and says how many, as [`io::Write::write`] does.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// What has all confirmed that was taken so far. More may be taken meanwhile.
    fn confirm(&self) -> io::Result<Confirm>;

    /// Whether another file is to be begun, and what it is to say of the others.
    fn next_file(&self) -> Option<io::Result<NextFile>>;

    /// Begins another file with this line. If this fails, everything is as it was.
    fn begin(&mut self, next: &NextFile, first_line: &[u8]) -> io::Result<()>;
}

/// Entries on their way to a medium.
#[derive(Debug)]
pub struct Ledger<M> {
    medium: M,
    chain: Chain,
    waiting: VecDeque<Waiting>,
    torn: Option<Torn>,
    /// Entries that did not come to wait, and of which no entry tells yet.
    lost: u64,
    /// Entries that the disk failed to confirm, and of which no entry tells yet.
    doubtful: u64,
    /// Entries that were written since the disk was last asked to confirm them.
    unsynced: u64,
    /// The medium ends with a line break, or is empty.
    at_line_start: bool,
    /// No other file could be begun the last time.
    stuck: bool,
    /// Entries that were written in all.
    written: u64,
}

#[derive(Debug)]
struct Waiting {
    time: SystemTime,
    entry: Entry,
    /// Given back when the entry is written.
    _texts: Option<TextShare>,
}

/// Lines that are handed over together.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    lines: Vec<Line>,
}

struct Line {
    /// Where it ends in the text, without its line break.
    end: usize,
    /// Where the chain is after it.
    chain: Chain,
    pays: Pays,
}

/// What is done when a line is written.
#[derive(Clone, Copy)]
enum Pays {
    Torn,
    Doubtful,
    Waiting,
    Lost,
}

impl<M: Medium> Ledger<M> {
    /// A ledger that begins a log on an empty medium.
    pub fn begin(medium: M, now: SystemTime) -> io::Result<Self> {
        let mut ledger = Self::continuing(medium, Chain::BEGIN, None, true);
        ledger.begin_file(now, &NextFile::default())?;
        Ok(ledger)
    }

    /// A ledger that goes on where the chain is, behind what was torn there.
    pub(crate) fn continuing(
        medium: M,
        chain: Chain,
        torn: Option<Torn>,
        at_line_start: bool,
    ) -> Self {
        Self {
            medium,
            chain,
            waiting: VecDeque::new(),
            torn,
            lost: 0,
            doubtful: 0,
            unsynced: 0,
            at_line_start,
            stuck: false,
            written: 0,
        }
    }

    /// Lets an entry wait.
    pub fn push(&mut self, time: SystemTime, entry: Entry) {
        self.push_with(time, entry, None);
    }

    pub(crate) fn push_with(&mut self, time: SystemTime, entry: Entry, texts: Option<TextShare>) {
        self.waiting.push_back(Waiting {
            time,
            entry,
            _texts: texts,
        });
    }

    /// Counts entries that had no room to wait.
    pub fn lose(&mut self, entries: u64) {
        self.lost += entries;
    }

    /// Entries that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there is anything to write.
    pub fn is_due(&self) -> bool {
        let owes = self.lost > 0 || self.doubtful > 0 || self.torn.is_some();
        owes || !self.waiting.is_empty()
    }

    /// Entries that were written and that a power cut might take.
    pub fn unsynced(&self) -> u64 {
        self.unsynced
    }

    /// Entries that were written in all.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Number and hash of the last line that was written.
    pub fn head(&self) -> (u64, Hash) {
        (self.chain.sequence, self.chain.hash)
    }

    /// The medium.
    pub fn medium(&mut self) -> &mut M {
        &mut self.medium
    }

    /// Writes all that is due. After an error the rest waits.
    pub fn write(&mut self, now: SystemTime) -> io::Result<()> {
        while self.is_due() {
            self.begin_file_if_wanted(now);
            let batch = self.batch(now)?;
            let (bytes, outcome) = append_all(&mut self.medium, &batch.text);
            self.settle(&batch, bytes);
            outcome?;
        }
        Ok(())
    }

    /// Has the disk confirm what was written, and waits for it.
    pub fn sync(&mut self) -> io::Result<()> {
        let (entries, confirm) = self.begin_sync();
        let outcome = confirm();
        if outcome.is_err() {
            self.doubt(entries);
        }
        outcome
    }

    /// What has the disk confirm what was written, and how many entries that is about. If it fails, they are to be
    /// [doubted](Self::doubt).
    pub fn begin_sync(&mut self) -> (u64, Confirm) {
        let entries = std::mem::take(&mut self.unsynced);
        let confirm = self.medium.confirm();
        (
            entries,
            confirm.unwrap_or_else(|error| Box::new(|| Err(error))),
        )
    }

    /// Tells in the log that the disk did not confirm so many entries. The kernel says so once: the next time it would
    /// confirm what it lost.
    pub fn doubt(&mut self, entries: u64) {
        self.doubtful += entries;
    }

    /// Begins another file if it is time to. If that fails, the present one is written on.
    fn begin_file_if_wanted(&mut self, now: SystemTime) {
        if self.torn.is_some() || !self.at_line_start {
            return;
        }
        let Some(next) = self.medium.next_file() else {
            return;
        };
        let begun = next.and_then(|next| self.begin_file(now, &next));
        let was_stuck = std::mem::replace(&mut self.stuck, begun.is_err());
        if let (Err(error), false) = (begun, was_stuck) {
            tracing::warn!("the audit log's next file cannot be begun: {error}");
        }
    }

    /// Begins another file.
    pub(crate) fn begin_file(&mut self, now: SystemTime, next: &NextFile) -> io::Result<()> {
        if self.unsynced > 0 {
            self.sync()?;
        }
        let entry = Entry::File {
            format: FORMAT,
            previous: self.chain.hash,
            after: next.after.clone(),
            removes: next.removes.clone(),
        };
        let (mut line, chain) = self.chain.seal(now, &entry)?;
        line.push(b'\n');
        self.medium.begin(next, &line)?;
        self.chain = chain;
        self.written += 1;
        if let Some(after) = &next.after {
            let Chain { sequence, hash } = chain;
            tracing::info!("the audit log goes on behind {after}: entry {sequence}, {hash}");
        }
        Ok(())
    }

    /// The next lines, in the order in which they are written.
    fn batch(&self, now: SystemTime) -> io::Result<Batch> {
        let mut batch = Batch::default();
        if !self.at_line_start {
            batch.text.push(b'\n');
        }
        let mut chain = self.chain;
        let mut add = |time, entry: &Entry, pays| {
            let (line, next) = chain.seal(time, entry)?;
            chain = next;
            batch.text.extend_from_slice(&line);
            let end = batch.text.len();
            batch.text.push(b'\n');
            batch.lines.push(Line { end, chain, pays });
            Ok::<_, serde_json::Error>(end)
        };
        if let Some(torn) = &self.torn {
            add(now, &torn.entry(), Pays::Torn)?;
        }
        if self.doubtful > 0 {
            let entries = self.doubtful;
            add(now, &Entry::Unsynced { entries }, Pays::Doubtful)?;
        }
        for Waiting { time, entry, .. } in &self.waiting {
            if add(*time, entry, Pays::Waiting)? > BATCH_BYTES {
                return Ok(batch);
            }
        }
        // They found no room because of those that waited.
        if self.lost > 0 {
            let entries = self.lost;
            add(now, &Entry::Lost { entries }, Pays::Lost)?;
        }
        Ok(batch)
    }

    /// Takes note of what the medium took of a batch.
    fn settle(&mut self, batch: &Batch, bytes: usize) {
        let mut rest = &batch.text[..bytes];
        for line in batch.lines.iter().take_while(|line| line.end <= bytes) {
            self.chain = line.chain;
            match line.pays {
                Pays::Torn => self.torn = None,
                Pays::Doubtful => self.doubtful = 0,
                Pays::Lost => self.lost = 0,
                Pays::Waiting => drop(self.waiting.pop_front()),
            }
            self.written += 1;
            self.unsynced += 1;
            self.at_line_start = false;
            rest = &batch.text[line.end..bytes];
        }
        self.leave(rest);
    }

    /// Takes note of what the medium took behind the last whole line.
    fn leave(&mut self, mut rest: &[u8]) {
        let Some(torn) = &mut self.torn else {
            if !self.at_line_start
                && let Some(after) = rest.strip_prefix(b"\n")
            {
                self.at_line_start = true;
                rest = after;
            }
            if !rest.is_empty() {
                let mut torn = Torn::default();
                torn.extend(rest);
                self.at_line_start = torn.ends_line;
                self.torn = Some(torn);
            }
            return;
        };
        torn.extend(rest);
        self.at_line_start = torn.ends_line;
    }
}

fn append_all(medium: &mut impl Medium, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match medium.append(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}
