//! Compares a model's files with the SHA-256 digests in its manifest.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::error::Listing;

const BUFFER_BYTES: usize = 1 << 20;

/// Every file that differs from the manifest.
#[derive(Debug, thiserror::Error)]
#[error("the files are not those of the manifest: {}", Listing(problems))]
pub struct DigestError {
    /// One entry per file.
    pub problems: Vec<String>,
}

/// Verifies every file listed, several at a time, and that nothing that would be loaded is left
/// out of the list.
///
/// `progress` is told the bytes done so far, from several threads, and may see them out of order.
pub fn verify_digests(
    directory: &Path,
    digests: &BTreeMap<String, String>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), DigestError> {
    let bytes_done = AtomicU64::new(0);
    let report = |bytes: u64| {
        progress(bytes_done.fetch_add(bytes, Ordering::Relaxed) + bytes);
    };
    let mut problems: Vec<String> = digests
        .par_iter()
        .filter_map(
            |(name, expected)| match digest_of(&directory.join(name), &report) {
                Ok(actual) if actual.eq_ignore_ascii_case(expected) => None,
                Ok(actual) => Some(format!("{name} has digest {actual}, expected {expected}")),
                Err(error) => Some(format!("{name} cannot be read: {error}")),
            },
        )
        .collect();
    problems.extend(unlisted(directory, digests));
    if problems.is_empty() {
        Ok(())
    } else {
        Err(DigestError { problems })
    }
}

fn digest_of(path: &Path, report: &(dyn Fn(u64) + Sync)) -> std::io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; BUFFER_BYTES];
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..count]);
        report(count as u64);
    }
    let mut hexadecimal = String::with_capacity(64);
    for byte in hasher.finalize() {
        // To write to a string cannot fail.
        let _ = write!(hexadecimal, "{byte:02x}");
    }
    Ok(hexadecimal)
}

/// The files beside those listed that opening the checkpoint would read.
fn unlisted(directory: &Path, digests: &BTreeMap<String, String>) -> Vec<String> {
    let entries = directory.read_dir().into_iter().flatten().flatten();
    let mut problems: Vec<String> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let extension = path.extension().and_then(OsStr::to_str);
            matches!(extension, Some("safetensors" | "json" | "jinja"))
        })
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .filter(|name| !digests.contains_key(name))
        .map(|name| format!("{name} has no digest"))
        .collect();
    problems.sort();
    problems
}
