//! The thread that writes a log, and what hands it entries.
//!
//! Nobody waits for the disk: entries wait in a queue of bounded length, and are counted where it is full. The thread
//! writes what has come at once; another has the disk confirm it a few times a second, once for all that came in between.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crate::entry::Entry;
use crate::files::{Files, OpenError, Rotation};
use crate::hash::Hash;
use crate::ledger::Ledger;
use crate::sync::Syncer;
use crate::tail;

/// Entries that may wait to be written. More than twice as many as there are connections, of which each has one request.
const QUEUE_ENTRIES: usize = 16_384;
/// Entries that the thread takes out of the queue while the disk takes none.
const TAKEN_MAX: usize = 1024;
/// Bytes of texts, of requests that run and in entries that wait.
const TEXT_BYTES_MAX: usize = 128 << 20;
/// Pause between two attempts to write.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long the end of a server waits for the disk.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Where a log is written, and how.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// The present file. Its directory is there, and may be written to.
    pub path: PathBuf,
    /// When another file is begun.
    pub rotation: Rotation,
    /// Requests are let in only while entries can be written.
    pub required: bool,
    /// Prompts and answers are written down.
    pub prompts: bool,
    /// Of the program.
    pub version: &'static str,
}

/// A log that is being written.
#[derive(Debug)]
pub struct AuditLog {
    recorder: AuditRecorder,
    ended: Receiver<(u64, Hash)>,
    thread: JoinHandle<()>,
}

/// Hands entries to the log; cheap to clone.
#[derive(Clone, Debug)]
pub struct AuditRecorder {
    queue: SyncSender<Queued>,
    shared: Arc<Shared>,
}

/// What a log has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditState {
    /// Entries that were written since the start.
    pub written: u64,
    /// Entries that were lost since the start.
    pub lost: u64,
    /// The disk took what it was given last.
    pub writable: bool,
}

#[derive(Debug)]
struct Shared {
    required: bool,
    prompts: bool,
    written: AtomicU64,
    lost: AtomicU64,
    /// Entries in the queue.
    queued: AtomicUsize,
    writable: AtomicBool,
    text_bytes: Arc<AtomicUsize>,
    /// Why the log is closed.
    closing: Mutex<Option<&'static str>>,
}

#[derive(Debug)]
enum Queued {
    Entry(SystemTime, Entry, Option<TextShare>),
    /// There is something else to see.
    Wake,
}

/// Memory for texts, until it is dropped.
#[derive(Debug)]
pub struct TextShare {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for TextShare {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl AuditLog {
    /// Opens a log, or begins it, and writes that a server starts.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened or made, is another process's, or is no log. A disk without room is no error: what is
    /// to be written waits, as it does later.
    pub fn open(settings: &AuditSettings) -> Result<Self, OpenError> {
        let now = SystemTime::now();
        let mut ledger = tail::open(&settings.path, settings.rotation, now)?;
        let start = Entry::Start {
            version: settings.version.to_owned(),
            required: settings.required,
            prompts: settings.prompts,
        };
        ledger.push(now, start);
        let outcome = ledger.write(now).and_then(|()| ledger.sync());
        let (sequence, hash) = ledger.head();
        let path = settings.path.display();
        tracing::info!("writing the audit log {path}: entry {sequence}, {hash}");
        let shared = Arc::new(Shared {
            required: settings.required,
            prompts: settings.prompts,
            written: AtomicU64::new(ledger.written()),
            lost: AtomicU64::new(0),
            queued: AtomicUsize::new(0),
            writable: AtomicBool::new(true),
            text_bytes: Arc::default(),
            closing: Mutex::default(),
        });
        shared.note(outcome, ledger.waiting());
        let (queue, queued) = sync_channel(QUEUE_ENTRIES);
        let (end, ended) = sync_channel(1);
        let writer = Writer {
            ledger,
            queued,
            shared: Arc::clone(&shared),
            told_lost: 0,
            syncer: Syncer::start().map_err(OpenError::io(&settings.path))?,
        };
        let thread = std::thread::Builder::new().name("audit".to_owned());
        let thread = thread.spawn(move || {
            // Who waits for it may have given up.
            let _ignored = end.send(writer.run());
        });
        Ok(Self {
            recorder: AuditRecorder { queue, shared },
            ended,
            thread: thread.map_err(OpenError::io(&settings.path))?,
        })
    }

    /// What hands it entries.
    pub fn recorder(&self) -> AuditRecorder {
        self.recorder.clone()
    }

    /// Writes what waits, and that the server stops, and why. A disk that does not answer is not waited for long.
    pub fn close(self, reason: &'static str) {
        let shared = &self.recorder.shared;
        *shared.closing() = Some(reason);
        // If the queue is full, the thread is not asleep.
        let _ignored = self.recorder.queue.try_send(Queued::Wake);
        match self.ended.recv_timeout(CLOSE_PATIENCE) {
            Ok((sequence, hash)) => {
                // It has nothing left to do.
                let _ignored = self.thread.join();
                tracing::info!("the audit log ends with entry {sequence}, {hash}");
            }
            Err(_) => tracing::error!(
                "the audit log's disk does not answer: its last entries may be missing"
            ),
        }
    }
}

impl AuditRecorder {
    /// Hands an entry over. One for which there is no room is counted.
    pub fn record(&self, entry: Entry, texts: Option<TextShare>) {
        let shared = &self.shared;
        shared.queued.fetch_add(1, Ordering::Relaxed);
        let queued = Queued::Entry(SystemTime::now(), entry, texts);
        if self.queue.try_send(queued).is_err() {
            shared.queued.fetch_sub(1, Ordering::Relaxed);
            if shared.lost.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::error!("the audit log loses entries: more come than its disk takes");
            }
        }
    }

    /// Whether a request may be let in. Where the log is required, there must be room for its entry, and for those of
    /// all that are in.
    pub fn admits(&self) -> bool {
        let shared = &self.shared;
        let has_room = || shared.queued.load(Ordering::Relaxed) < QUEUE_ENTRIES / 2;
        !shared.required || (shared.writable.load(Ordering::Relaxed) && has_room())
    }

    /// Memory for a request's texts; `None` if they are not written down, or if there is none.
    pub fn text_share(&self, bytes: usize) -> Option<TextShare> {
        let used = &self.shared.text_bytes;
        let share = self.shared.prompts.then(|| {
            let before = used.fetch_add(bytes, Ordering::Relaxed);
            let used = Arc::clone(used);
            (before, TextShare { used, bytes })
        });
        share.and_then(|(before, share)| (before + bytes <= TEXT_BYTES_MAX).then_some(share))
    }

    /// Whether prompts and answers are written down.
    pub fn keeps_texts(&self) -> bool {
        self.shared.prompts
    }

    /// What it has come to.
    pub fn state(&self) -> AuditState {
        let shared = &self.shared;
        AuditState {
            written: shared.written.load(Ordering::Relaxed),
            lost: shared.lost.load(Ordering::Relaxed),
            writable: shared.writable.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    fn closing(&self) -> std::sync::MutexGuard<'_, Option<&'static str>> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what the disk did.
    fn note(&self, outcome: std::io::Result<()>, waiting: usize) {
        let was_writable = self.writable.swap(outcome.is_ok(), Ordering::Relaxed);
        match outcome {
            Err(error) if was_writable => {
                let what = match self.required {
                    true => "requests are refused until it can",
                    false => "requests are answered all the same",
                };
                tracing::error!(
                    "the audit log cannot be written ({error}); {waiting} entries wait, {what}"
                );
            }
            Ok(()) if !was_writable => {
                let lost = self.lost.load(Ordering::Relaxed);
                tracing::warn!(
                    "the audit log is written again; {lost} entries were lost since the start"
                );
            }
            _ => {}
        }
    }
}

/// What the thread has.
struct Writer {
    ledger: Ledger<Files>,
    queued: Receiver<Queued>,
    shared: Arc<Shared>,
    /// Lost entries that the ledger knows of.
    told_lost: u64,
    syncer: Syncer,
}

impl Writer {
    /// Writes until the log is closed; number and hash of the last entry.
    fn run(mut self) -> (u64, Hash) {
        loop {
            self.wait();
            let closing = *self.shared.closing();
            let outcome = match closing {
                Some(reason) => self.write_last(reason),
                None => self.write_next().map(drop),
            };
            let confirmed = self.syncer.look_after(&mut self.ledger);
            let written = self.ledger.written();
            self.shared.written.store(written, Ordering::Relaxed);
            self.shared
                .note(outcome.and(confirmed), self.ledger.waiting());
            if closing.is_some() {
                if self.ledger.is_due() {
                    let missing = self.ledger.waiting();
                    tracing::error!("the audit log ends without its last {missing} entries");
                }
                return self.ledger.head();
            }
        }
    }

    /// Waits for an entry, or until there is something else to do.
    fn wait(&mut self) {
        if !self.shared.writable.load(Ordering::Relaxed) {
            // What comes waits in the queue.
            std::thread::sleep(RETRY_INTERVAL);
            return;
        }
        match self.queued.recv_timeout(self.syncer.patience(&self.ledger)) {
            Ok(queued) => self.put(queued),
            Err(RecvTimeoutError::Timeout) => {}
            // The log was dropped and nobody records: that is its end, too.
            Err(RecvTimeoutError::Disconnected) => {
                self.shared.closing().get_or_insert("dropped");
            }
        }
    }

    /// Writes what has come, or a part of it; whether there was anything in the queue.
    fn write_next(&mut self) -> std::io::Result<bool> {
        let mut has_come = false;
        while self.ledger.waiting() < TAKEN_MAX
            && let Ok(queued) = self.queued.try_recv()
        {
            has_come = true;
            self.put(queued);
        }
        let lost = self.shared.lost.load(Ordering::Relaxed);
        self.ledger.lose(lost - self.told_lost);
        self.told_lost = lost;
        let outcome = self.ledger.write(SystemTime::now());
        outcome.map(|()| has_come)
    }

    /// Writes all that has come, and that the server stops.
    fn write_last(&mut self, reason: &'static str) -> std::io::Result<()> {
        while self.write_next()? {}
        self.ledger.push(SystemTime::now(), Entry::Stop { reason });
        self.ledger.write(SystemTime::now())?;
        self.ledger.sync()
    }

    fn put(&mut self, queued: Queued) {
        if let Queued::Entry(time, entry, texts) = queued {
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            self.ledger.push_with(time, entry, texts);
        }
    }
}
