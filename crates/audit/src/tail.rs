//! Where a log ends: what a server that starts continues.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::SystemTime;

use crate::files::{self, Files, NextFile, OpenError, Rotation};
use crate::hash::Hash;
use crate::ledger::Ledger;
use crate::line::{Chain, LINE_BYTES_MAX, ReadLine};
use crate::torn::Torn;

/// How much of a file's end is read: whole lines, whatever they hold.
const TAIL_BYTES: u64 = 2 * LINE_BYTES_MAX as u64;

/// The end of a file.
struct Tail {
    /// After the last line that is an entry.
    chain: Chain,
    /// What comes behind that line.
    torn: Option<Torn>,
    ends_line: bool,
    /// Entries among those read that do not follow from the one before.
    breaks: usize,
}

/// Opens a log, or begins it. What a server wrote that was killed stays as it is, and is continued.
pub(crate) fn open(
    path: &Path,
    rotation: Rotation,
    now: SystemTime,
) -> Result<Ledger<Files>, OpenError> {
    let files = Files::new(path, rotation);
    match fs::symlink_metadata(path) {
        Ok(status) if !status.is_file() => Err(OpenError::NotAFile(path.to_owned())),
        Ok(_) => open_present(path, files),
        Err(error) if error.kind() == io::ErrorKind::NotFound => begin(path, files, now),
        Err(error) => Err(OpenError::io(path)(error)),
    }
}

fn open_present(path: &Path, files: Files) -> Result<Ledger<Files>, OpenError> {
    let opened = OpenOptions::new().read(true).append(true).open(path);
    let file = opened.map_err(OpenError::io(path))?;
    let reader = file.try_clone().map_err(OpenError::io(path))?;
    // Nobody else writes from here on.
    let files = files.with_present(file)?;
    let tail = Tail::read(path, reader)?;
    tail.warn(path);
    let Tail {
        chain,
        torn,
        ends_line,
        ..
    } = tail;
    Ok(Ledger::continuing(files, chain, torn, ends_line))
}

/// Begins the present file, behind those that were put aside.
fn begin(path: &Path, files: Files, now: SystemTime) -> Result<Ledger<Files>, OpenError> {
    let others = files::put_aside(path).map_err(OpenError::io(path))?;
    let after = others.last().map(|(_, name)| name.clone());
    let chain = match &after {
        Some(name) => {
            let last = path.with_file_name(name);
            let file = File::open(&last).map_err(OpenError::io(&last))?;
            let tail = Tail::read(&last, file)?;
            tail.warn(&last);
            tail.chain
        }
        None => Chain::BEGIN,
    };
    let mut ledger = Ledger::continuing(files, chain, None, true);
    let next = NextFile {
        after,
        removes: Vec::new(),
    };
    let begun = ledger.begin_file(now, &next);
    begun.map_err(OpenError::io(path))?;
    Ok(ledger)
}

/// Number and hash of a log's last entry. Only the end of its present file is read.
///
/// # Errors
///
/// If the file cannot be read, or has no entry at its end.
pub fn head(path: &Path) -> Result<(u64, Hash), OpenError> {
    let status = fs::metadata(path).map_err(OpenError::io(path))?;
    if !status.is_file() {
        return Err(OpenError::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(OpenError::io(path))?;
    let Chain { sequence, hash } = Tail::read(path, file)?.chain;
    Ok((sequence, hash))
}

impl Tail {
    fn read(path: &Path, file: File) -> Result<Self, OpenError> {
        let bytes = end_of(file).map_err(OpenError::io(path))?;
        Self::of(&bytes).ok_or_else(|| OpenError::NoEntries {
            path: path.to_owned(),
            searched: bytes.len() as u64,
        })
    }

    /// Of the end of a file. The first line may be cut off at its beginning, so that it is no entry.
    fn of(bytes: &[u8]) -> Option<Self> {
        let mut chain: Option<Chain> = None;
        let (mut breaks, mut at, mut good) = (0, 0, 0);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            at += line.len();
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            let Some(entry) = ReadLine::read(text) else {
                continue;
            };
            breaks += usize::from(chain.is_some_and(|chain| !entry.follows(&chain)));
            chain = Some(entry.chain());
            good = at;
        }
        let torn = (good < bytes.len()).then(|| {
            let mut torn = Torn::default();
            torn.extend(&bytes[good..]);
            torn
        });
        Some(Self {
            chain: chain?,
            torn,
            ends_line: bytes.ends_with(b"\n"),
            breaks,
        })
    }

    fn warn(&self, path: &Path) {
        let path = path.display();
        if let Some(torn) = &self.torn {
            let (bytes, _) = torn.told();
            tracing::warn!(
                "{path} ends in {bytes} bytes that are no entry, as a server leaves them that was killed; they stay"
            );
        }
        if self.breaks > 0 {
            tracing::error!(
                "{path} was changed: of its last entries, {} do not follow from the one before; `backstop audit \
                 verify` says which",
                self.breaks
            );
        }
    }
}

fn end_of(mut file: File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    // It may grow meanwhile, where a server writes it.
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
