//! The files of a log: the present one, and those that were put aside, numbered in order.
//!
//! The present file is renamed when it is put aside, and no file is ever shortened or written over. A new file takes the
//! present one's name when its first line is on the disk, so a file without a first line is no log.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::ledger::{Confirm, Medium};

/// Digits of the numbers behind names; a longer number has more.
const NUMBER_DIGITS: usize = 6;
/// What a new file is called until its first line is on the disk.
const FRESH: &str = "next";

/// When a file is put aside, and how many of those are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A file that has come to this is put aside, when something is to be written.
    pub bytes_max: u64,
    /// The same, by a file's age.
    pub age_max: Option<Duration>,
    /// Files that are kept beside the present one, the newest; `None` keeps all.
    pub files_max: Option<u32>,
}

/// What becomes of the files when another is begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextFile {
    /// The name under which the present file is put aside.
    pub after: Option<String>,
    /// Names of files that are removed.
    pub removes: Vec<String>,
}

/// Why a log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is something else of that name.
    #[error("{0}: not a regular file; name the log's file itself, in a directory of its own")]
    NotAFile(PathBuf),
    /// Two would break the chain.
    #[error("{0}: another process writes this log; give each server one of its own")]
    InUse(PathBuf),
    /// It has no line to continue from.
    #[error(
        "{path}: no entry of an audit log in its last {searched} bytes, so there is nothing to continue; move it away \
         or name another file"
    )]
    NoEntries {
        /// The file.
        path: PathBuf,
        /// How much was read of it.
        searched: u64,
    },
    /// The operating system refused.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, error }
    }
}

/// The files of one log, of which the present one is open.
#[derive(Debug)]
pub(crate) struct Files {
    path: PathBuf,
    rotation: Rotation,
    present: Option<Present>,
}

#[derive(Debug)]
struct Present {
    file: File,
    bytes: u64,
    began: SystemTime,
}

impl Files {
    /// A log of which there is no present file.
    pub(crate) fn new(path: &Path, rotation: Rotation) -> Self {
        let (path, present) = (path.to_owned(), None);
        Self {
            path,
            rotation,
            present,
        }
    }

    /// The same, with its present file, locked.
    pub(crate) fn with_present(self, file: File) -> Result<Self, OpenError> {
        lock(&file, &self.path)?;
        let status = file.metadata().map_err(OpenError::io(&self.path))?;
        let present = Some(Present {
            file,
            bytes: status.len(),
            // Some file systems do not know it; then the file is as old as the process.
            began: status.created().unwrap_or_else(|_| SystemTime::now()),
        });
        Ok(Self { present, ..self })
    }

    fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn sibling(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }

    /// Makes a file with this first line, all of it on the disk, which does not have its name yet.
    fn fresh(&self, first_line: &[u8]) -> io::Result<(PathBuf, File)> {
        let path = self.sibling(&format!("{}.{FRESH}", self.name()));
        // What was left there by a process that ended in between has no entry but a first line.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path)?;
        lock(&file, &path).map_err(io::Error::other)?;
        file.write_all(first_line)?;
        file.sync_all()?;
        Ok((path, file))
    }
}

fn lock(file: &File, path: &Path) -> Result<(), OpenError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(OpenError::io(path)(error)),
    }
}

/// The files of a log that were put aside, with their numbers, in order.
pub(crate) fn put_aside(path: &Path) -> io::Result<Vec<(u64, String)>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut found = Vec::new();
    for entry in fs::read_dir(directory_of(path))? {
        let other = entry?.file_name().to_string_lossy().into_owned();
        let number = other.strip_prefix(&*name).and_then(|rest| {
            let digits = rest.strip_prefix('.')?;
            let is_number =
                digits.len() >= NUMBER_DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
            digits.parse().ok().filter(|_| is_number)
        });
        found.extend(number.map(|number| (number, other)));
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether this is the name of a file that has not become one of a log's.
pub(crate) fn is_fresh(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == FRESH)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    }
}

impl Medium for Files {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let present = self.present.as_mut();
        let present = present.ok_or_else(|| io::Error::other("no file was begun"))?;
        let written = present.file.write(bytes)?;
        present.bytes += written as u64;
        Ok(written)
    }

    fn confirm(&self) -> io::Result<Confirm> {
        let Some(present) = &self.present else {
            return Ok(Box::new(|| Ok(())));
        };
        let file = present.file.try_clone()?;
        Ok(Box::new(move || file.sync_data()))
    }

    fn next_file(&self) -> Option<io::Result<NextFile>> {
        let present = self.present.as_ref()?;
        let is_full = present.bytes >= self.rotation.bytes_max;
        // A clock that was put back makes no file old.
        let age = present.began.elapsed().unwrap_or_default();
        let is_old = self.rotation.age_max.is_some_and(|most| age > most);
        (is_full || is_old).then(|| self.aside())
    }

    fn begin(&mut self, next: &NextFile, first_line: &[u8]) -> io::Result<()> {
        let (fresh, file) = self.fresh(first_line)?;
        let aside = self.present.as_ref().and(next.after.as_deref());
        let aside = aside.map(|name| self.sibling(name));
        if let Some(aside) = &aside {
            fs::rename(&self.path, aside)?;
        }
        if let Err(error) = fs::rename(fresh, &self.path) {
            if let Some(aside) = &aside {
                fs::rename(aside, &self.path)?;
            }
            return Err(error);
        }
        self.present = Some(Present {
            file,
            bytes: first_line.len() as u64,
            began: SystemTime::now(),
        });
        for name in &next.removes {
            if let Err(error) = fs::remove_file(self.sibling(name)) {
                tracing::warn!("the audit log's file {name} cannot be removed: {error}");
            }
        }
        // The names, too, are to outlast a power cut.
        let synced =
            File::open(directory_of(&self.path)).and_then(|directory| directory.sync_all());
        if let Err(error) = synced {
            tracing::warn!("the audit log's directory cannot be synchronised: {error}");
        }
        Ok(())
    }
}

impl Files {
    /// The name that the present file gets, and whose turn it is to go.
    fn aside(&self) -> io::Result<NextFile> {
        let others = put_aside(&self.path)?;
        let number = others.last().map_or(1, |(number, _)| number + 1);
        let kept = self
            .rotation
            .files_max
            .map_or(usize::MAX, |most| most as usize);
        let name = format!("{}.{number:0NUMBER_DIGITS$}", self.name());
        let mut names: Vec<String> = others.into_iter().map(|(_, name)| name).collect();
        names.push(name.clone());
        // The file that is put aside now stays until the next time, for the first line names it.
        let surplus = names.len().saturating_sub(kept.max(1));
        names.truncate(surplus);
        Ok(NextFile {
            after: Some(name),
            removes: names,
        })
    }
}
