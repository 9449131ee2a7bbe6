//! Files that are parts of one whole: `NAME-00002-of-00005.gguf`, and safetensors in the same way.

use std::path::{Path, PathBuf};

/// Digits of a part's number.
const DIGITS: usize = 5;
/// Most parts of a whole.
const PARTS_MAX: usize = 512;
/// Names that a message lists.
const LISTED_MAX: usize = 10;

/// All parts of one whole in a directory, those that are there and those that are not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NumberedParts {
    directory: PathBuf,
    name: String,
    extension: String,
    count: usize,
}

impl NumberedParts {
    /// The whole of which a file is a part, going by its name.
    pub fn of(path: &Path) -> Option<Self> {
        let (name, _, count) = split(path.file_stem()?.to_str()?)?;
        Some(Self {
            directory: path.parent()?.to_owned(),
            name: name.to_owned(),
            extension: path.extension()?.to_str()?.to_owned(),
            count,
        })
    }

    /// What stands before the numbers.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The files, in order.
    pub fn paths(&self) -> Vec<PathBuf> {
        let names = (1..=self.count).map(|number| self.file_name(number));
        names.map(|name| self.directory.join(name)).collect()
    }

    /// The names of the files that are not there, up to a number that a message can list.
    pub fn absent(&self) -> Vec<String> {
        let names = (1..=self.count).map(|number| self.file_name(number));
        let absent = names.filter(|name| !self.directory.join(name).is_file());
        absent.take(LISTED_MAX).collect()
    }

    fn file_name(&self, number: usize) -> String {
        let Self {
            name,
            extension,
            count,
            ..
        } = self;
        format!("{name}-{number:0DIGITS$}-of-{count:0DIGITS$}.{extension}")
    }
}

/// Name, number and count of `NAME-00002-of-00005`.
fn split(stem: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let parsed = |text: &str| {
        let is_number = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten()
    };
    let (number, count) = (parsed(number)?, parsed(count)?);
    ((1..=count).contains(&number) && count <= PARTS_MAX).then_some((name, number, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_by_their_names() {
        let whole = NumberedParts::of(Path::new("/there/a-b-00002-of-00003.gguf")).unwrap();
        assert_eq!(whole.name(), "a-b");
        let names: Vec<PathBuf> = (1..=3)
            .map(|number| format!("/there/a-b-0000{number}-of-00003.gguf").into())
            .collect();
        assert_eq!(whole.paths(), names);
        assert_eq!(whole.absent().len(), 3);
        for other in [
            "a.gguf",
            "a-00001.gguf",
            "a-1-of-3.gguf",
            "a-00004-of-00003.gguf",
            "a-00000-of-00003.gguf",
            "a-00001-of-99999.gguf",
            "a-000x1-of-00003.gguf",
        ] {
            assert_eq!(NumberedParts::of(Path::new(other)), None, "{other}");
        }
    }
}
