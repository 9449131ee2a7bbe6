//! A directory of results: one run, one writer, any number of readers.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::QualifyError;
use crate::record::{Attempt, Measure, Run};

use super::answers::{Answers, Damage, read_attempts};
use super::comparison::differences;
use super::files::{create_parent, read_json, write_json};

const FOLDERS_DEEP_MAX: usize = 8;
const FILES_MAX: usize = 10_000;

/// A directory that this process alone writes to.
pub struct Directory {
    root: PathBuf,
    /// Locked for as long as it is open; the lock ends with the process, however it ends.
    _lock: File,
    is_resumed: bool,
}

impl Directory {
    /// Makes a directory for a run, or goes on in one that the same run has left. Settings that are new there are added.
    ///
    /// # Errors
    ///
    /// If it is another run's, or one runs there now, or it cannot be written.
    pub fn open(root: &Path, run: &Run) -> Result<Self, QualifyError> {
        let lock_path = root.join("lock");
        create_parent(&lock_path)?;
        let lock = File::options()
            .create(true)
            .append(true)
            .open(&lock_path)
            .map_err(|error| QualifyError::at(&lock_path, error))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => QualifyError::at(root, "another run writes there now"),
            TryLockError::Error(error) => QualifyError::at(&lock_path, error),
        })?;
        let path = root.join("run.json");
        let before: Option<Run> = read_json(&path)?;
        if let Some(before) = &before {
            let differences = differences(before, run);
            if !differences.is_empty() {
                let differences = differences.join("; ");
                let reason = format!(
                    "it has the results of another run ({differences}): take another --into"
                );
                return Err(QualifyError::at(root, reason));
            }
            let mut both = before.clone();
            both.settings.extend(run.settings.clone());
            if both != *before {
                write_json(&path, &both)?;
            }
        } else {
            refuse_foreign(root)?;
            write_json(&path, run)?;
        }
        Ok(Self {
            root: root.to_owned(),
            _lock: lock,
            is_resumed: before.is_some(),
        })
    }

    /// Whether a run had been here.
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// The answers of a suite, and what is there of them. Runs count from 1.
    ///
    /// # Errors
    ///
    /// If they cannot be read, or are damaged elsewhere than at their end.
    pub fn answers(&self, suite: &str, run: u32) -> Result<(Answers, Vec<Attempt>), QualifyError> {
        let path = answers_path(&self.root, suite, run);
        let (answers, attempts, damage) = Answers::open(&path)?;
        if damage == Damage::TornLine {
            tracing::warn!(
                "{}: the last line was torn, and is asked again",
                path.display()
            );
        }
        Ok((answers, attempts))
    }

    /// Writes measures, in place of those of the same name.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    pub fn write_measures(&self, name: &str, measures: &[Measure]) -> Result<(), QualifyError> {
        write_json(&measures_path(&self.root, name), &measures)
    }
}

/// A directory of results, for readers: reports and comparisons.
pub struct Results {
    root: PathBuf,
    /// What was asked for, and of whom.
    pub run: Run,
}

impl Results {
    /// Opens what a run has left, finished or not.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn open(root: &Path) -> Result<Self, QualifyError> {
        let run = read_json(&root.join("run.json"))?;
        let run =
            run.ok_or_else(|| QualifyError::at(root, "it has no run.json: no run has been there"))?;
        Ok(Self {
            root: root.to_owned(),
            run,
        })
    }

    /// The suites that have answers, in order.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read.
    pub fn suites(&self) -> Result<Vec<String>, QualifyError> {
        names(&self.root.join("answers"), "jsonl")
    }

    /// A suite's attempts: each task and sample once, in the order in which they came.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub fn attempts(&self, suite: &str) -> Result<Vec<Attempt>, QualifyError> {
        read_attempts(&answers_path(&self.root, suite, 1))
    }

    /// All measures, by the name of their file.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub fn measures(&self) -> Result<Vec<(String, Vec<Measure>)>, QualifyError> {
        let mut all = Vec::new();
        for name in names(&self.root.join("measures"), "json")? {
            let measures = read_json(&measures_path(&self.root, &name))?;
            all.push((name, measures.unwrap_or_default()));
        }
        Ok(all)
    }
}

fn answers_path(root: &Path, suite: &str, run: u32) -> PathBuf {
    let file = format!("{suite}.jsonl");
    if run <= 1 {
        root.join("answers").join(file)
    } else {
        root.join("repeats").join(run.to_string()).join(file)
    }
}

fn measures_path(root: &Path, name: &str) -> PathBuf {
    root.join("measures").join(format!("{name}.json"))
}

/// What may be there before a first run: what was left of its beginning, and what other parts of this program write.
const OWN: &[&str] = &[
    "lock",
    "run.json.unfinished",
    "measures",
    "adapters",
    "conformance.json",
    "repo-selection.json",
];

/// A directory of something else is not written to.
pub(crate) fn refuse_foreign(root: &Path) -> Result<(), QualifyError> {
    if root.join("run.json").exists() {
        return Ok(());
    }
    let entries = fs::read_dir(root).map_err(|error| QualifyError::at(root, error))?;
    for entry in entries {
        let name = entry
            .map_err(|error| QualifyError::at(root, error))?
            .file_name();
        if OWN.iter().all(|own| name != *own) {
            let reason = "it is not empty, and no run has been there: take another --into";
            return Err(QualifyError::at(root, reason));
        }
    }
    Ok(())
}

/// The files below a folder that end so, without the end, in order.
fn names(folder: &Path, end: &str) -> Result<Vec<String>, QualifyError> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_owned(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = open.pop() {
        let at = |error| QualifyError::at(&folder, error);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(at(error)),
        };
        for entry in entries {
            let entry = entry.map_err(at)?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let kind = entry.file_type().map_err(at)?;
            if kind.is_dir() && depth < FOLDERS_DEEP_MAX {
                open.push((entry.path(), format!("{prefix}{name}/"), depth + 1));
            } else if let Some(stem) = name
                .strip_suffix(end)
                .and_then(|name| name.strip_suffix('.'))
            {
                found.push(format!("{prefix}{stem}"));
            }
            if found.len() > FILES_MAX {
                return Err(QualifyError::at(&folder, "it has too many files"));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::record::Subject;

    fn run(seed: u64) -> Run {
        Run {
            program: "p 1".into(),
            subject: Subject::default(),
            settings: BTreeMap::from([("tools".into(), json!({"temperature": seed}))]),
            began_unix_s: 1,
        }
    }

    fn scratch(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("backstop-results-{}-{name}", std::process::id()));
        let _ignored = fs::remove_dir_all(&path);
        path
    }

    fn refusal(root: &Path, run: &Run) -> String {
        Directory::open(root, run).err().unwrap().to_string()
    }

    #[test]
    fn the_same_run_goes_on_and_another_is_refused() {
        let root = scratch("same");
        let first = Directory::open(&root, &run(0)).unwrap();
        assert!(!first.is_resumed());
        assert!(refusal(&root, &run(0)).contains("another run writes there now"));
        drop(first);
        assert!(Directory::open(&root, &run(0)).unwrap().is_resumed());
        let error = refusal(&root, &run(1));
        assert!(
            error.contains("tools's temperature was 0, and is 1"),
            "{error}"
        );
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_directory_of_something_else_is_left_alone() {
        let root = scratch("else");
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("thesis.tex"), "").unwrap();
        assert!(refusal(&root, &run(0)).contains("not empty"));
        assert!(!root.join("run.json").exists());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_was_written_is_read() {
        let root = scratch("read");
        let directory = Directory::open(&root, &run(0)).unwrap();
        for (suite, run) in [("code/humaneval", 1), ("tools", 1), ("tools", 2)] {
            directory.answers(suite, run).unwrap();
        }
        let measure = Measure {
            suite: "tools".into(),
            metric: "right".into(),
            value: 0.5,
            interval: None,
            count: 2,
            samples: 1,
            settings: BTreeMap::new(),
            source: "p 1".into(),
        };
        directory
            .write_measures("code/humaneval", std::slice::from_ref(&measure))
            .unwrap();
        let results = Results::open(&root).unwrap();
        assert_eq!(results.run, run(0));
        assert_eq!(results.suites().unwrap(), ["code/humaneval", "tools"]);
        assert!(results.attempts("tools").unwrap().is_empty());
        let measures = results.measures().unwrap();
        assert_eq!(measures, [("code/humaneval".to_owned(), vec![measure])]);
        fs::remove_dir_all(root).unwrap();
    }
}
