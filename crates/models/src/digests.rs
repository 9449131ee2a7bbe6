//! Compares a model's files with the sizes and SHA-256 digests in its manifest.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::record::FileRecords;

const BUFFER_BYTES: usize = 1 << 20;

/// How many files a message lists before it counts the rest.
const LISTED_MAX: usize = 20;

/// Directories below that of a model from which files are loaded.
const DEPTH_MAX: usize = 2;

/// Every file that is not as it was recorded.
#[derive(Debug, thiserror::Error)]
#[error("the files are not those that were recorded: {}", listing(problems))]
pub struct FilesDiffer {
    /// One entry per file.
    pub problems: Vec<String>,
}

fn listing(problems: &[String]) -> String {
    let shown = problems.iter().take(LISTED_MAX).map(String::as_str);
    let shown = shown.collect::<Vec<_>>().join("; ");
    match problems.len().saturating_sub(LISTED_MAX) {
        0 => shown,
        rest => format!("{shown}; and {rest} more"),
    }
}

fn none_or(problems: Vec<String>) -> Result<(), FilesDiffer> {
    match problems.is_empty() {
        true => Ok(()),
        false => Err(FilesDiffer { problems }),
    }
}

/// Checks that every file listed is there in its recorded size, which takes no time, and that nothing that would be
/// loaded is left out of the list.
pub fn check_sizes(directory: &Path, records: &FileRecords) -> Result<(), FilesDiffer> {
    let mut problems: Vec<String> = records
        .iter()
        .filter_map(|(name, record)| size_problem(directory, name, record.bytes))
        .collect();
    problems.extend(unlisted(directory, records));
    none_or(problems)
}

fn size_problem(directory: &Path, name: &str, expected: Option<u64>) -> Option<String> {
    match (std::fs::metadata(directory.join(name)), expected) {
        (Err(error), _) => Some(format!("{name} cannot be read: {error}")),
        (Ok(found), _) if !found.is_file() => Some(format!("{name} is not a regular file")),
        (Ok(found), Some(bytes)) if found.len() != bytes => {
            let found = found.len();
            Some(format!("{name} has {found} bytes, expected {bytes}"))
        }
        _ => None,
    }
}

/// Verifies every file listed, several at a time, and that nothing that would be loaded is left
/// out of the list.
///
/// `progress` is told the bytes done so far, from several threads, and may see them out of order.
pub fn verify_digests(
    directory: &Path,
    records: &FileRecords,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), FilesDiffer> {
    let bytes_done = AtomicU64::new(0);
    let report = |bytes: u64| {
        progress(bytes_done.fetch_add(bytes, Ordering::Relaxed) + bytes);
    };
    let mut problems: Vec<String> = records
        .par_iter()
        .filter_map(|(name, record)| {
            let problem = size_problem(directory, name, record.bytes);
            problem.or_else(|| digest_problem(directory, name, &record.sha256, &report))
        })
        .collect();
    problems.extend(unlisted(directory, records));
    none_or(problems)
}

fn digest_problem(
    directory: &Path,
    name: &str,
    expected: &str,
    report: &(dyn Fn(u64) + Sync),
) -> Option<String> {
    match digest_of(&directory.join(name), report) {
        Ok(actual) if actual.eq_ignore_ascii_case(expected) => None,
        Ok(actual) => Some(format!("{name} has digest {actual}, expected {expected}")),
        Err(error) => Some(format!("{name} cannot be read: {error}")),
    }
}

/// The SHA-256 of a file in hexadecimal; `report` is told of each piece how long it was.
pub fn digest_of(path: &Path, report: &dyn Fn(u64)) -> std::io::Result<String> {
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
    Ok(hexadecimal(&hasher.finalize()))
}

/// The SHA-256 of a text in hexadecimal.
pub fn digest_of_text(text: &str) -> String {
    hexadecimal(&Sha256::digest(text))
}

/// Two digits a byte, in lower case.
pub fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // To write to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Files that would be loaded and are not listed. Modules of sentence-transformers lie in directories of their own.
fn unlisted(directory: &Path, records: &FileRecords) -> Vec<String> {
    let mut problems = Vec::new();
    find_unlisted(directory, "", DEPTH_MAX, records, &mut problems);
    problems.sort();
    problems
}

fn find_unlisted(
    directory: &Path,
    prefix: &str,
    depth: usize,
    records: &FileRecords,
    problems: &mut Vec<String>,
) {
    let entries = match directory.read_dir() {
        Ok(entries) => entries,
        Err(error) => return problems.push(format!("{prefix}. cannot be listed: {error}")),
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{prefix}{file}");
        if path.is_dir() {
            if depth > 0 {
                find_unlisted(&path, &format!("{name}/"), depth - 1, records, problems);
            }
            continue;
        }
        let extension = path.extension().and_then(OsStr::to_str);
        let is_loaded = matches!(extension, Some("safetensors" | "gguf" | "json" | "jinja"));
        if is_loaded && !records.contains_key(&name) {
            problems.push(format!("{name} has no digest"));
        }
    }
}
