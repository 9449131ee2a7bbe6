//! The directory in which a pull works, beside the one that it makes: partial files, the journal, and what it replaces.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backstop_models::Store;

use crate::error::PullError;
use crate::journal::{self, DoneFiles, Journal};
use crate::listing::RemoteFile;

/// The directory in which a pull works. Nobody else pulls under the same name while this lives.
#[derive(Debug)]
pub(crate) struct Work {
    directory: PathBuf,
    pub(crate) journal: Journal,
    /// What was there when it was opened.
    pub(crate) done: DoneFiles,
    _lock: Lock,
}

impl Work {
    /// Opens it; what lies there of anything but `heading` is removed.
    pub(crate) fn open(
        store: &Store,
        name: &str,
        heading: &str,
        files: &BTreeMap<String, RemoteFile>,
    ) -> Result<Self, PullError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| PullError::at(&path, error)
        };
        fs::create_dir_all(store.directory()).map_err(at(store.directory()))?;
        let lock = Lock::take(&store.directory().join(format!(".pull-{name}.lock")), name)?;
        let directory = store.directory().join(format!(".pull-{name}"));
        restore(&directory, store, name).map_err(at(&directory))?;
        let path = directory.join("journal");
        let found = journal::read(&path, heading, files);
        if found.is_none() && directory.exists() {
            fs::remove_dir_all(&directory).map_err(at(&directory))?;
        }
        let mut done = found.unwrap_or_default();
        let is_moved = !files_in(&directory).exists() && !done.is_empty();
        let base = match is_moved {
            true => store.model_directory(name),
            false => files_in(&directory),
        };
        done.retain(|place, _| {
            let status = fs::symlink_metadata(base.join(place));
            let expected = files.get(place).map(|file| file.bytes);
            status.is_ok_and(|status| status.is_file() && Some(status.len()) == expected)
        });
        let is_moved = is_moved && is_whole(&done, files);
        if !is_moved {
            let files = files_in(&directory);
            // What was noted of files that are elsewhere is of no use here.
            if !files.exists() {
                done.clear();
            }
            fs::create_dir_all(&files).map_err(at(&files))?;
        }
        let journal = Journal::create(&path, heading, files, &done).map_err(at(&path))?;
        Ok(Self {
            directory,
            journal,
            done,
            _lock: lock,
        })
    }

    /// Where the files lie until they are all there.
    pub(crate) fn files(&self) -> PathBuf {
        files_in(&self.directory)
    }

    /// Whether all files were put into their place by a pull that then ended too early.
    pub(crate) fn is_moved(&self) -> bool {
        !self.files().exists()
    }

    /// A file with room for all its bytes, of which some may be there.
    pub(crate) fn partial(&self, place: &str, bytes: u64) -> io::Result<File> {
        let path = self.files().join(place);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        if file.metadata()?.len() != bytes {
            file.set_len(bytes)?;
        }
        Ok(file)
    }

    /// Takes what is replaced out of the way, puts the files into their place, and keeps the old ones until
    /// [`finish`](Self::finish).
    pub(crate) fn put_into_place(&self, store: &Store, name: &str) -> io::Result<()> {
        let (model, manifest) = (store.model_directory(name), store.manifest_path(name));
        // The manifest first: at no time does it describe other files.
        if manifest.exists() {
            fs::rename(&manifest, self.directory.join(OLD_MANIFEST))?;
        }
        if model.exists() {
            fs::rename(&model, self.directory.join(OLD_FILES))?;
        }
        fs::rename(self.files(), &model)?;
        sync_directory(store.directory())
    }

    /// Removes all that is left.
    pub(crate) fn finish(self) -> io::Result<()> {
        fs::remove_dir_all(&self.directory)
    }
}

const OLD_FILES: &str = "old";
const OLD_MANIFEST: &str = "old.toml";

/// Whether a pull ended while it exchanged a model's files, so that these are there without a manifest.
pub(crate) fn exchange_was_cut_off(store: &Store, name: &str) -> bool {
    let directory = store.directory().join(format!(".pull-{name}"));
    let is_moved = directory.exists() && !files_in(&directory).exists();
    is_moved || directory.join(OLD_MANIFEST).exists()
}

fn files_in(directory: &Path) -> PathBuf {
    directory.join("files")
}

fn is_whole(done: &DoneFiles, files: &BTreeMap<String, RemoteFile>) -> bool {
    let is_checked = |place| done.get(place).is_some_and(|done| done.sha256.is_some());
    files.keys().all(is_checked)
}

/// Puts back what a pull took out of the way that ended before it put anything into its place.
fn restore(directory: &Path, store: &Store, name: &str) -> io::Result<()> {
    if !files_in(directory).exists() {
        return Ok(());
    }
    let kept = [
        (directory.join(OLD_FILES), store.model_directory(name)),
        (directory.join(OLD_MANIFEST), store.manifest_path(name)),
    ];
    for (from, to) in kept {
        if from.exists() && !to.exists() {
            fs::rename(from, to)?;
        }
    }
    Ok(())
}

/// Makes sure that names in a directory outlast a power cut.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// That nobody else pulls the same. Ends with the process, however that ends.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(path: &Path, name: &str) -> Result<Self, PullError> {
        loop {
            let at = |error: io::Error| PullError::at(path, error);
            let file = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path);
            let file = file.map_err(at)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(PullError::new(format!(
                        "{name} is being pulled by another process"
                    )));
                }
                Err(fs::TryLockError::Error(error)) => return Err(at(error)),
            }
            // Whoever held it may have removed it meanwhile; then this is a lock on nothing.
            let mine = file.metadata().map_err(at)?;
            if fs::metadata(path).is_ok_and(|there| there.ino() == mine.ino()) {
                return Ok(Self {
                    path: path.to_owned(),
                    _file: file,
                });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked: nobody can hold it while its name goes. If it stays, it is an empty file.
        let _ignored = fs::remove_file(&self.path);
    }
}
