//! Puts a state of the repository into a directory: a commit's files, with some replaced.
//!
//! Everything is written once into an empty directory, links last, so that nothing is ever written through one.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::QualifyError;
use crate::scratch::Scratch;

use super::git::{Entry, Kind, Repository, Tree};
use super::paths;

/// Files that differ from a commit's.
#[derive(Clone, Debug, Default)]
pub(super) struct Overlay(BTreeMap<String, Content>);

#[derive(Clone, Debug)]
enum Content {
    Gone,
    Blob(Entry),
    Text(String),
}

impl Overlay {
    /// These paths are as in another commit, where they may be missing.
    pub(super) fn take(&mut self, paths: &[String], from: &Tree) {
        for path in paths {
            let content = from.get(path).cloned().map_or(Content::Gone, Content::Blob);
            self.0.insert(path.clone(), content);
        }
    }

    /// A file has this text.
    pub(super) fn write(&mut self, path: &str, text: String) {
        self.0.insert(path.to_owned(), Content::Text(text));
    }
}

/// A path that would have to be a file and a directory, or that leads through a link.
pub(super) fn conflict<'a>(base: &'a Tree, overlay: &'a Overlay) -> Option<&'a str> {
    let remains = |path: &str| match overlay.0.get(path) {
        Some(content) => !matches!(content, Content::Gone),
        None => base.contains_key(path),
    };
    let is_below = |path: &str| {
        let within = format!("{path}/");
        let of_base = base.range(within.clone()..).map(|(other, _)| other);
        let of_overlay = overlay.0.range(within.clone()..).map(|(other, _)| other);
        let starts = |other: &&String| other.starts_with(&within);
        of_base.take_while(starts).any(|other| remains(other))
            || of_overlay.take_while(starts).any(|other| remains(other))
    };
    let is_above = |path: &str| path.match_indices('/').any(|(at, _)| remains(&path[..at]));
    overlay
        .0
        .keys()
        .filter(|path| remains(path))
        .find(|path| is_below(path) || is_above(path))
        .map(String::as_str)
}

/// Makes a directory with a commit's files, and what differs from them.
pub(super) fn check_out(
    repository: &Repository,
    base: &Tree,
    overlay: &Overlay,
) -> Result<Scratch, QualifyError> {
    let directory = Scratch::make("work-tree")?;
    let root = &tree_of(&directory);
    // Whoever runs the tests may be somebody else.
    make_directory(root)?;
    let mut blobs: Vec<(&str, &Entry)> = base
        .iter()
        .filter(|(path, _)| !overlay.0.contains_key(*path))
        .map(|(path, entry)| (path.as_str(), entry))
        .collect();
    for (path, content) in &overlay.0 {
        match content {
            Content::Gone => {}
            Content::Blob(entry) => blobs.push((path, entry)),
            Content::Text(text) => {
                let executable = base
                    .get(path)
                    .is_some_and(|entry| entry.kind == Kind::Executable);
                write(root, path, text.as_bytes(), executable)?;
            }
        }
    }
    let (files, others): (Vec<_>, Vec<_>) = blobs
        .into_iter()
        .partition(|(_, entry)| matches!(entry.kind, Kind::File | Kind::Executable));
    repository.contents(&files, |path, entry, content| {
        write(root, path, content, entry.kind == Kind::Executable)
    })?;
    let (links, submodules): (Vec<_>, Vec<_>) = others
        .into_iter()
        .partition(|(_, entry)| entry.kind == Kind::Link);
    for (path, _) in submodules {
        make_directory(&root.join(path))?;
    }
    let mut targets = Vec::new();
    repository.contents(&links, |path, _, content| {
        targets.push((path, String::from_utf8_lossy(content).into_owned()));
        Ok(())
    })?;
    for (path, target) in targets {
        if stays_within(path, &target) {
            let place = root.join(path);
            make_parent(&place)?;
            symlink(&target, &place).map_err(|error| QualifyError::at(&place, error))?;
        }
    }
    Ok(directory)
}

/// Where the files lie in it.
pub(super) fn tree_of(directory: &Scratch) -> PathBuf {
    directory.path().join("tree")
}

/// Whether a link leads to somewhere in the repository, also by way of other links: it goes up first, and only then down.
fn stays_within(path: &str, target: &str) -> bool {
    if target.starts_with('/') || target.is_empty() || target.contains('\0') {
        return false;
    }
    let up = target.split('/').take_while(|part| *part == "..").count();
    let is_up_again = target.split('/').skip(up).any(|part| part == "..");
    up <= path.matches('/').count() && !is_up_again
}

fn write(root: &Path, path: &str, content: &[u8], executable: bool) -> Result<(), QualifyError> {
    paths::check(path).map_err(QualifyError::new)?;
    let place = root.join(path);
    make_parent(&place)?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(if executable { 0o755 } else { 0o644 })
        .open(&place);
    let written = file.and_then(|mut file| file.write_all(content));
    written.map_err(|error| QualifyError::at(&place, error))
}

fn make_parent(place: &Path) -> Result<(), QualifyError> {
    place.parent().map_or(Ok(()), make_directory)
}

fn make_directory(place: &Path) -> Result<(), QualifyError> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(place);
    made.map_err(|error| QualifyError::at(place, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_out_are_known() {
        for (path, target) in [("a", "b"), ("x/a", "../b"), ("x/y/a", "../../z/./b")] {
            assert!(stays_within(path, target), "{path} -> {target}");
        }
        for (path, target) in [
            ("a", "../b"),
            ("a", "/etc/passwd"),
            ("x/a", "../../b"),
            ("x/a", "../x/../b"),
            ("a", ""),
        ] {
            assert!(!stays_within(path, target), "{path} -> {target}");
        }
    }
}
