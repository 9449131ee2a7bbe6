//! Files of results: found, read within limits, and kept as measures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::QualifyError;
use crate::record::Measure;

const FILE_BYTES_MAX: u64 = 1 << 30;
const FILES_MAX: usize = 100_000;
const DEPTH_MAX: usize = 12;

/// Files below a path, or the path itself, whose names are wanted, in order. Links are not followed.
pub(super) fn find(
    path: &Path,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Vec<PathBuf>, QualifyError> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let (mut found, mut seen) = (Vec::new(), 0);
    let mut left = vec![(path.to_owned(), 0)];
    while let Some((directory, depth)) = left.pop() {
        let at = |error| QualifyError::at(&directory, error);
        for entry in std::fs::read_dir(&directory).map_err(at)? {
            let entry = entry.map_err(at)?;
            seen += 1;
            if seen > FILES_MAX {
                return Err(QualifyError::at(
                    path,
                    format!("it has more than {FILES_MAX} files"),
                ));
            }
            let kind = entry.file_type().map_err(at)?;
            if kind.is_dir() && depth < DEPTH_MAX {
                left.push((entry.path(), depth + 1));
            } else if kind.is_file() && entry.file_name().to_str().is_some_and(&is_wanted) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A file's JSON.
pub(super) fn json(file: &Path) -> Result<Value, QualifyError> {
    let bytes = bytes(file)?;
    serde_json::from_slice(&bytes).map_err(|error| QualifyError::at(file, error))
}

/// The JSON of a file's first line.
pub(super) fn first_line(file: &Path) -> Result<Value, QualifyError> {
    let bytes = bytes(file)?;
    let line = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    serde_json::from_slice(line).map_err(|error| QualifyError::at(file, error))
}

fn bytes(file: &Path) -> Result<Vec<u8>, QualifyError> {
    backstop_input::read_file(file, FILE_BYTES_MAX).map_err(|error| QualifyError::at(file, error))
}

/// Keeps measures. Earlier ones of the same suite and metric, under the same settings, are replaced; others stay.
pub(super) fn keep(
    into: &Path,
    name: &str,
    measures: Vec<Measure>,
) -> Result<PathBuf, QualifyError> {
    let directory = into.join("measures");
    let file = directory.join(format!("{name}.json"));
    let mut all: Vec<Measure> = if file.exists() {
        serde_json::from_slice(&bytes(&file)?).map_err(|error| QualifyError::at(&file, error))?
    } else {
        Vec::new()
    };
    let is_same = |one: &Measure, other: &Measure| {
        one.suite == other.suite && one.metric == other.metric && one.settings == other.settings
    };
    all.retain(|old| !measures.iter().any(|new| is_same(old, new)));
    all.extend(measures);
    let at = |error| QualifyError::at(&file, error);
    std::fs::create_dir_all(&directory).map_err(at)?;
    let text = serde_json::to_vec_pretty(&all).map_err(|error| QualifyError::at(&file, error))?;
    let new = directory.join(format!("{name}.json.new"));
    std::fs::write(&new, text)
        .and_then(|()| std::fs::rename(&new, &file))
        .map_err(at)?;
    Ok(file)
}

/// Settings without those that there are none of.
pub(super) fn settings<const N: usize>(all: [(&str, Value); N]) -> BTreeMap<String, Value> {
    all.into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// `NAME VERSION`, as far as the version is known.
pub(super) fn source(name: &str, version: Option<&str>) -> String {
    match version {
        Some(version) => format!("{name} {version}"),
        None => format!("{name}, version not recorded"),
    }
}

/// A digest of a file that decides what was asked.
pub(super) fn digest(file: &Path) -> Result<Value, QualifyError> {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(bytes(file)?);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(json!(hex))
}
