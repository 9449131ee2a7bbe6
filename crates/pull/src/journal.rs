//! What of a pull is on disk: a text of one line for each part that is, and for each file that was checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use backstop_input::read_text_file;

use crate::listing::RemoteFile;

/// A terabyte has thirty thousand parts, of a hundred bytes or two each.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;

/// What is there of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Numbers of the parts.
    pub(crate) parts: BTreeSet<u64>,
    /// Its SHA-256, once it was checked.
    pub(crate) sha256: Option<String>,
}

/// By where files are to lie in the model's directory.
pub(crate) type DoneFiles = BTreeMap<String, Done>;

/// The text, open for what comes next.
#[derive(Debug)]
pub(crate) struct Journal {
    file: Mutex<File>,
}

impl Journal {
    /// Begins a journal that has these lines already.
    pub(crate) fn create(
        path: &Path,
        heading: &str,
        files: &BTreeMap<String, RemoteFile>,
        done: &DoneFiles,
    ) -> io::Result<Self> {
        // In the place of the old one at once, whose last line may be cut off.
        let unfinished = path.with_extension("new");
        let mut text = format!("{heading}\n");
        for (place, done) in done {
            let Some(file) = files.get(place) else {
                continue;
            };
            for part in &done.parts {
                text.push_str(&part_line(place, file, *part));
            }
            if let Some(sha256) = &done.sha256 {
                text.push_str(&checked_line(place, file, sha256));
            }
        }
        let mut file = File::create(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)?;
        let file = OpenOptions::new().append(true).open(path)?;
        Ok(Self {
            file: Mutex::new(file),
        })
    }

    /// A part is on disk.
    pub(crate) fn part(&self, place: &str, file: &RemoteFile, part: u64) -> io::Result<()> {
        self.append(&part_line(place, file, part))
    }

    /// A file is whole, and what the hub knows it by.
    pub(crate) fn checked(&self, place: &str, file: &RemoteFile, sha256: &str) -> io::Result<()> {
        self.append(&checked_line(place, file, sha256))
    }

    fn append(&self, line: &str) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes())?;
        file.sync_data()
    }
}

/// What a journal says of these files; `None` if it is of something else, or not there.
pub(crate) fn read(
    path: &Path,
    heading: &str,
    files: &BTreeMap<String, RemoteFile>,
) -> Option<DoneFiles> {
    let text = read_text_file(path, JOURNAL_BYTES_MAX).ok()?;
    // What stands behind the last line's end was cut off.
    let (text, _) = text.rsplit_once('\n')?;
    let mut lines = text.split('\n');
    if lines.next() != Some(heading) {
        return None;
    }
    let mut done = DoneFiles::new();
    for line in lines {
        // A line about another size or digest is about another file.
        let _known = add(&mut done, line, files);
    }
    Some(done)
}

fn add(done: &mut DoneFiles, line: &str, files: &BTreeMap<String, RemoteFile>) -> Option<()> {
    let mut words = line.splitn(5, ' ');
    let (kind, value) = (words.next()?, words.next()?);
    let (bytes, digest, place) = (words.next()?, words.next()?, words.next()?);
    let file = files.get(place)?;
    if bytes.parse() != Ok(file.bytes) || digest != file.digest.text() {
        return None;
    }
    let entry = done.entry(place.to_owned()).or_default();
    match kind {
        "part" => {
            entry.parts.insert(value.parse().ok()?);
        }
        "checked" => entry.sha256 = Some(value.to_owned()),
        _ => {}
    }
    Some(())
}

fn part_line(place: &str, file: &RemoteFile, part: u64) -> String {
    format!(
        "part {part} {} {} {place}\n",
        file.bytes,
        file.digest.text()
    )
}

fn checked_line(place: &str, file: &RemoteFile, sha256: &str) -> String {
    let digest = file.digest.text();
    format!("checked {sha256} {} {digest} {place}\n", file.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::FileDigest;

    fn files(digest: &str) -> BTreeMap<String, RemoteFile> {
        let file = RemoteFile {
            name: "a b".to_owned(),
            bytes: 9,
            digest: FileDigest::Git(digest.to_owned()),
        };
        [("a b".to_owned(), file)].into()
    }

    #[test]
    fn what_was_noted_is_read_again_for_the_same_files_alone() {
        let path =
            std::env::temp_dir().join(format!("backstop-pull-journal-{}", std::process::id()));
        let same = files("d1");
        let journal = Journal::create(&path, "heading", &same, &DoneFiles::new()).unwrap();
        journal.part("a b", &same["a b"], 0).unwrap();
        journal.part("a b", &same["a b"], 2).unwrap();
        let done = read(&path, "heading", &same).unwrap();
        assert_eq!(done["a b"].parts, [0, 2].into());

        let journal = Journal::create(&path, "heading", &same, &done).unwrap();
        journal.checked("a b", &same["a b"], "sha").unwrap();
        let done = read(&path, "heading", &same).unwrap();
        assert_eq!(done["a b"].sha256.as_deref(), Some("sha"));
        assert_eq!(done["a b"].parts, [0, 2].into());

        assert_eq!(read(&path, "another", &same), None);
        assert_eq!(read(&path, "heading", &files("d2")), Some(DoneFiles::new()));
        let mut torn = std::fs::read_to_string(&path).unwrap();
        torn.push_str("part 7 9 d1 a b");
        std::fs::write(&path, torn).unwrap();
        assert_eq!(read(&path, "heading", &same).unwrap(), done);
        std::fs::remove_file(path).unwrap();
    }
}
