//! Writes the file of a cache: under another name, on to the storage, and only then under its own.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::file::FileLayout;

/// What a file that is not whole is called behind its name.
const UNFINISHED: &str = "unfinished";
/// Bytes after which the storage has to have what was written, so that it is never far behind: whoever else writes
/// would wait for all of it.
const SYNCED_BYTES: u64 = 128 << 20;

/// See [`WeightCache::write`](super::WeightCache::write).
pub(super) fn replace(
    path: &Path,
    digest: &str,
    parts: &[&[u8]],
    go_on: &mut dyn FnMut() -> bool,
) -> io::Result<Option<u64>> {
    let unfinished = unfinished(path);
    let Some(file) = claim(&unfinished)? else {
        return Ok(None);
    };
    let written = write(&file, digest, parts, go_on).and_then(|written| {
        if written.is_some() {
            fs::rename(&unfinished, path)?;
            // The name, too, has to outlast a loss of power.
            File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        }
        Ok(written)
    });
    if !matches!(written, Ok(Some(_))) {
        // It is in nobody's way: the next one who writes begins anew.
        let _ignored = fs::remove_file(&unfinished);
    }
    written
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(UNFINISHED);
    PathBuf::from(name)
}

/// An empty file that this process alone writes; `None` if another process does. A file that is there and not locked
/// was left behind by a process that died. It is removed, not shortened, which a confined process may not do.
fn claim(path: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().write(true).open(path) {
        Ok(left_behind) if !locked(path, &left_behind)? => return Ok(None),
        Ok(_) => fs::remove_file(path)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => Ok(locked(path, &file)?.then_some(file)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error),
    }
}

/// Locks a file, unless another process has, or has given it its proper name or removed it in the meantime.
fn locked(path: &Path, file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let own = file.metadata()?;
    let same = |status: fs::Metadata| (status.dev(), status.ino()) == (own.dev(), own.ino());
    Ok(fs::metadata(path).is_ok_and(same))
}

fn write(
    file: &File,
    digest: &str,
    parts: &[&[u8]],
    go_on: &mut dyn FnMut() -> bool,
) -> io::Result<Option<u64>> {
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let layout = FileLayout::new(&lengths);
    let mut checksums = Vec::with_capacity(layout.pieces.len());
    let mut not_synced = 0;
    for piece in &layout.pieces {
        if !go_on() {
            return Ok(None);
        }
        let bytes = &parts[piece.part][piece.within.clone()];
        checksums.push(crc32fast::hash(bytes));
        file.write_all_at(bytes, piece.offset)?;
        not_synced += bytes.len() as u64;
        if not_synced >= SYNCED_BYTES {
            file.sync_data()?;
            not_synced = 0;
        }
    }
    file.write_all_at(&layout.header(digest, &checksums), 0)?;
    file.sync_all()?;
    Ok(Some(layout.bytes))
}
