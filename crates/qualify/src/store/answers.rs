//! A file of attempts, one a line, that is appended to as they come.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::QualifyError;
use crate::record::{Attempt, Outcome};

use super::files::create_parent;

/// A longer line is no attempt.
const LINE_BYTES_MAX: u64 = 256 << 20;
/// How much a crash of the machine may cost. A kill of the process costs no line that was written.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);

/// An open file of attempts.
pub struct Answers {
    path: PathBuf,
    file: File,
    synced: Instant,
}

/// What was wrong with a file of attempts, and has been dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Nothing.
    None,
    /// Its last line was torn by a kill.
    TornLine,
}

impl Answers {
    /// Opens a file, or makes one, and reads what is there. A torn last line is cut off.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Attempt>, Damage), QualifyError> {
        create_parent(path)?;
        let (attempts, whole_bytes, damage) = match read_lines(path)? {
            Some(read) => read,
            None => (Vec::new(), 0, Damage::None),
        };
        let at = |error| QualifyError::at(path, error);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(at)?;
        if damage == Damage::TornLine {
            file.set_len(whole_bytes).map_err(at)?;
        }
        let answers = Self {
            path: path.to_owned(),
            file,
            synced: Instant::now(),
        };
        Ok((answers, attempts, damage))
    }

    /// Appends a line, in one write.
    ///
    /// # Errors
    ///
    /// If it cannot be written; the line may be torn then.
    pub fn append(&mut self, attempt: &Attempt) -> Result<(), QualifyError> {
        let at = |error| QualifyError::at(&self.path, error);
        let mut line =
            serde_json::to_vec(attempt).map_err(|error| QualifyError::at(&self.path, error))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(at)?;
        if self.synced.elapsed() >= SYNC_INTERVAL {
            self.file.sync_data().map_err(at)?;
            self.synced = Instant::now();
        }
        Ok(())
    }

    /// Waits until all is on the disk.
    ///
    /// # Errors
    ///
    /// If the disk says no.
    pub fn sync(&mut self) -> Result<(), QualifyError> {
        self.file
            .sync_all()
            .map_err(|error| QualifyError::at(&self.path, error))
    }
}

/// All attempts of a file, each task and sample once: a later line replaces an earlier one, which had no answer.
///
/// # Errors
///
/// If it cannot be read, or a line other than a torn last one is no attempt.
pub fn read_attempts(path: &Path) -> Result<Vec<Attempt>, QualifyError> {
    Ok(read_lines(path)?.map_or_else(Vec::new, |(attempts, ..)| attempts))
}

type Lines = (Vec<Attempt>, u64, Damage);

fn read_lines(path: &Path) -> Result<Option<Lines>, QualifyError> {
    let at = |error| QualifyError::at(path, error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(error)),
    };
    let mut reader = BufReader::new(file);
    let mut places: HashMap<(String, u32), usize> = HashMap::new();
    let (mut attempts, mut whole_bytes, mut line) = (Vec::<Attempt>::new(), 0, Vec::new());
    for number in 1_u64.. {
        line.clear();
        let read = (&mut reader)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .map_err(at)?;
        if read == 0 {
            break;
        }
        if line.last() != Some(&b'\n') {
            if read as u64 == LINE_BYTES_MAX {
                return Err(QualifyError::at(path, format!("line {number} is too long")));
            }
            return Ok(Some((attempts, whole_bytes, Damage::TornLine)));
        }
        let attempt: Attempt = serde_json::from_slice(&line).map_err(|error| {
            QualifyError::at(path, format!("line {number} is no attempt: {error}"))
        })?;
        whole_bytes += read as u64;
        match places.entry((attempt.task.clone(), attempt.sample)) {
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(attempts.len());
                attempts.push(attempt);
            }
            // A second process cannot have been there, for the directory is locked.
            std::collections::hash_map::Entry::Occupied(place) => {
                let before = &mut attempts[*place.get()];
                if before.outcome != Outcome::NoAnswer {
                    return Err(QualifyError::at(
                        path,
                        format!(
                            "line {number} answers {} again, which had an answer",
                            attempt.task
                        ),
                    ));
                }
                *before = attempt;
            }
        }
    }
    Ok(Some((attempts, whole_bytes, Damage::None)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn attempt(task: &str, outcome: Outcome) -> Attempt {
        Attempt {
            task: task.into(),
            sample: 0,
            outcome,
            score: 0.0,
            reason: None,
            marks: BTreeMap::new(),
            request: json!({"messages": []}),
            replies: Vec::new(),
            retries: 0,
        }
    }

    fn scratch(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("backstop-answers-{}-{name}", std::process::id()));
        let _ignored = std::fs::remove_file(&path);
        path
    }

    #[test]
    fn a_file_torn_at_any_byte_loses_one_line_at_most_and_goes_on() {
        let path = scratch("torn");
        let (mut answers, ..) = Answers::open(&path).unwrap();
        for task in ["a", "b", "c"] {
            answers.append(&attempt(task, Outcome::Passed)).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        let ends: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] == b'\n').collect();
        for length in 0..=whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let expected = ends.iter().filter(|end| **end < length).count();
            let (mut answers, kept, damage) = Answers::open(&path).unwrap();
            assert_eq!(kept.len(), expected, "{length}");
            let is_torn = length > ends[..expected].last().map_or(0, |end| end + 1);
            assert_eq!(damage == Damage::TornLine, is_torn, "{length}");
            answers.append(&attempt("d", Outcome::Failed)).unwrap();
            let again = read_attempts(&path).unwrap();
            assert_eq!(
                (again.len(), again[expected].task.as_str()),
                (expected + 1, "d")
            );
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_later_answer_takes_the_place_of_none() {
        let path = scratch("later");
        let (mut answers, ..) = Answers::open(&path).unwrap();
        answers.append(&attempt("a", Outcome::NoAnswer)).unwrap();
        answers.append(&attempt("b", Outcome::Passed)).unwrap();
        answers.append(&attempt("a", Outcome::Failed)).unwrap();
        let read = read_attempts(&path).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0], attempt("a", Outcome::Failed));
        answers.append(&attempt("a", Outcome::Passed)).unwrap();
        let error = read_attempts(&path).unwrap_err().to_string();
        assert!(error.contains("line 4 answers a again"), "{error}");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn damage_in_the_middle_is_not_passed_over() {
        let path = scratch("middle");
        std::fs::write(&path, "{}\n").unwrap();
        assert!(
            read_attempts(&path)
                .unwrap_err()
                .to_string()
                .contains("line 1")
        );
        std::fs::remove_file(path).unwrap();
    }
}
