//! Fetches the parts of files with several threads, each checked to be what was asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use ureq::Body;
use ureq::http::Response;

use crate::digests::checked;
use crate::error::PullError;
use crate::hub::{Files, Hub};
use crate::listing::RemoteFile;
use crate::patience::{Failure, Failures, Halt};
use crate::progress::Bars;
use crate::tasks::{Part, Task, Tasks};
use crate::work::Work;

const BUFFER_BYTES: usize = 256 << 10;
/// A request that brought as much was no failure, even if it broke off.
const WORTH_BYTES: u64 = 1 << 20;

/// One pull's way from the hub to the disk.
pub(crate) struct Transfer<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) urls: &'a Files,
    pub(crate) files: &'a BTreeMap<String, RemoteFile>,
    pub(crate) work: &'a Work,
    pub(crate) tasks: &'a Tasks<'a>,
    pub(crate) bars: &'a Bars,
    pub(crate) workers: usize,
}

/// SHA-256 by where files are to lie.
type Digests = BTreeMap<String, String>;

/// What the threads share.
#[derive(Default)]
struct Shared {
    halt: Halt,
    digests: Mutex<Digests>,
    error: Mutex<Option<PullError>>,
}

impl Transfer<'_> {
    /// Does all that is left, until the first error.
    pub(crate) fn run(&self) -> Result<Digests, PullError> {
        let shared = Shared::default();
        std::thread::scope(|scope| {
            for _ in 0..self.workers {
                scope.spawn(|| {
                    if let Err(error) = self.work_off(&shared) {
                        shared.halt.set();
                        let mut first = shared.error.lock().unwrap_or_else(PoisonError::into_inner);
                        first.get_or_insert(error);
                    }
                });
            }
        });
        let error = shared
            .error
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let digests = shared
            .digests
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        match error {
            Some(error) => Err(error),
            None => Ok(digests),
        }
    }

    fn work_off(&self, shared: &Shared) -> Result<(), PullError> {
        while !shared.halt.is_set()
            && let Some(task) = self.tasks.take()
        {
            let place = match task {
                Task::Check(place) => place,
                Task::Fetch(place, part) => {
                    let is_whole = self.fetch(place, part, &shared.halt)?;
                    if !(is_whole && self.tasks.is_last(place)) {
                        continue;
                    }
                    place
                }
            };
            let label = format!("checking {place}");
            self.bars.begin(&label);
            let sha256 = self.check(place);
            self.bars.end(&label);
            let sha256 = sha256?;
            let mut digests = shared
                .digests
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            digests.insert(place.to_owned(), sha256);
        }
        Ok(())
    }

    fn file(&self, place: &str) -> Result<&RemoteFile, PullError> {
        let file = self.files.get(place);
        file.ok_or_else(|| PullError::new(format!("internal error: {place} was not asked for")))
    }

    fn partial(&self, place: &str, bytes: u64) -> Result<File, PullError> {
        let file = self.work.partial(place, bytes);
        file.map_err(|error| PullError::at(&self.work.files().join(place), error))
    }

    /// Fetches a part; false if another thread failed meanwhile.
    fn fetch(&self, place: &str, part: Part, halt: &Halt) -> Result<bool, PullError> {
        let file = self.file(place)?;
        let out = self.partial(place, file.bytes)?;
        self.bars.begin(place);
        let fetched = self.fetch_into(&out, file, part, halt);
        self.bars.end(place);
        if !fetched.map_err(|reason| PullError::new(format!("{place}: {reason}")))? {
            return Ok(false);
        }
        // On disk before it is noted.
        let noted = out
            .sync_data()
            .and_then(|()| self.work.journal.part(place, file, part.number));
        noted.map_err(|error| PullError::at(&self.work.files().join(place), error))?;
        Ok(true)
    }

    /// Asks until all of a part is there; false if another thread failed meanwhile.
    fn fetch_into(
        &self,
        out: &File,
        file: &RemoteFile,
        part: Part,
        halt: &Halt,
    ) -> Result<bool, String> {
        let mut receiver = Receiver {
            out,
            file,
            part,
            at: part.start,
            bars: self.bars,
        };
        let mut failures = Failures::new(&self.hub.patience);
        while receiver.at < part.end {
            let before = receiver.at;
            let received = receiver.receive(self.hub, &self.urls.url(&file.name), halt);
            if receiver.at.saturating_sub(before) >= WORTH_BYTES {
                failures.forget();
            }
            if halt.is_set() {
                return Ok(false);
            }
            let Err(failure) = received else {
                continue;
            };
            let Some(wait) = failures.wait(failure.again) else {
                return Err(failure.reason);
            };
            let seconds = wait.as_secs_f64();
            self.bars.note(&format!(
                "{}: {}; again in {seconds:.0} s",
                file.name, failure.reason
            ));
            if halt.wait(wait) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Compares a whole file with its digest; what is wrong is removed.
    fn check(&self, place: &str) -> Result<String, PullError> {
        let file = self.file(place)?;
        let path = self.work.files().join(place);
        let at = |error| PullError::at(&path, error);
        // Files without any bytes have no parts.
        self.partial(place, file.bytes)?.sync_all().map_err(at)?;
        match checked(&path, file).map_err(at)? {
            Ok(sha256) => {
                self.work
                    .journal
                    .checked(place, file, &sha256)
                    .map_err(at)?;
                Ok(sha256)
            }
            Err(found) => {
                std::fs::remove_file(&path).map_err(at)?;
                Err(PullError::new(format!(
                    "{place} is not what the hub lists: its digest is {found}, not {}; it was removed, and will be \
                     fetched anew if you pull again",
                    file.digest.text()
                )))
            }
        }
    }
}

/// Writes what comes of a part.
struct Receiver<'a> {
    out: &'a File,
    file: &'a RemoteFile,
    part: Part,
    /// Where the next byte belongs.
    at: u64,
    bars: &'a Bars,
}

impl Receiver<'_> {
    /// One request for what is missing.
    fn receive(&mut self, hub: &Hub, url: &str, halt: &Halt) -> Result<(), Failure> {
        let is_whole_file = self.part.bytes() == self.file.bytes;
        // Not every server knows ranges, and what is small needs none.
        let range = (!is_whole_file || self.at > self.part.start)
            .then(|| format!("bytes={}-{}", self.at, self.part.end - 1));
        let mut response = hub.get(url, range.as_deref())?;
        if range.is_some() && response.status() == 200 && is_whole_file {
            self.bars.retreat(self.at - self.part.start);
            self.at = self.part.start;
        } else {
            self.check_range(&response, range.is_some())?;
        }
        self.check_length(&response)?;
        self.copy(&mut response, halt)
    }

    fn check_range(&self, response: &Response<Body>, is_range: bool) -> Result<(), Failure> {
        match (response.status().as_u16(), is_range) {
            (200, false) => Ok(()),
            (206, true) => {
                let (start, end, bytes) = (self.at, self.part.end - 1, self.file.bytes);
                let expected = format!("bytes {start}-{end}/{bytes}");
                match header(response, "content-range") {
                    Some(range) if range == expected => Ok(()),
                    found => Err(Failure::never(format!(
                        "the server sent another range than was asked for: {:?} instead of {expected:?}",
                        found.unwrap_or_default()
                    ))),
                }
            }
            (200, true) => Err(Failure::never(
                "the server ignores ranges, so that a large file cannot be fetched in parts; use another endpoint, or \
                 none of the proxies between",
            )),
            (status, _) => Err(Failure::never(format!("the server answered {status}"))),
        }
    }

    fn check_length(&self, response: &Response<Body>) -> Result<(), Failure> {
        let expected = self.part.end - self.at;
        match header(response, "content-length") {
            Some(length) if length.parse() != Ok(expected) => Err(Failure::never(format!(
                "the server sends {length:?} bytes where the hub lists {expected}"
            ))),
            _ => Ok(()),
        }
    }

    fn copy(&mut self, response: &mut Response<Body>, halt: &Halt) -> Result<(), Failure> {
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0_u8; BUFFER_BYTES];
        while !halt.is_set() {
            let count = match body.read(&mut buffer) {
                Ok(0) if self.at == self.part.end => return Ok(()),
                Ok(0) => return Err(Failure::soon("the connection ended too early")),
                Ok(count) => count,
                Err(error) => {
                    return Err(Failure::soon(format!("the connection broke off: {error}")));
                }
            };
            if count as u64 > self.part.end - self.at {
                return Err(Failure::never("the server sends more than was asked for"));
            }
            self.out
                .write_all_at(&buffer[..count], self.at)
                .map_err(|error| Failure::never(format!("cannot be written: {error}")))?;
            self.at += count as u64;
            self.bars.advance(count as u64);
        }
        Ok(())
    }
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}
