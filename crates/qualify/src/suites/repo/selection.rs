//! Which commits become tasks, and why others do not.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::QualifyError;
use crate::random::seed_of;

use super::checkout::{Overlay, check_out, conflict, tree_of};
use super::contained::{Commands, Ran, Runs};
use super::git::{Commit, Repository, Tree};
use super::paths::Rules;

const FILE_BYTES_MAX: u64 = 64 << 20;
/// A shorter message asks for nothing.
const MESSAGE_WORDS_MIN: usize = 3;
const MESSAGE_BYTES_MAX: usize = 8000;
/// Of commits that were run and are no tasks, for each that is wanted.
const TRIES_EACH: usize = 5;
/// Lines of a message that ask for nothing.
const TRAILERS: &[&str] = &[
    "signed-off-by:",
    "co-authored-by:",
    "reviewed-by:",
    "acked-by:",
    "tested-by:",
    "change-id:",
    "cc:",
    "reported-by:",
];

/// Which commits are wanted.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) tasks: usize,
    pub(super) since: Option<String>,
    pub(super) commits_max: u32,
    pub(super) lines_max: u64,
    pub(super) context_bytes_max: u64,
    pub(super) repeats: u32,
    pub(super) seed: u64,
    pub(super) shows_tests: bool,
}

/// What was found; it is kept beside the results, so that a run that goes on has the same tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Selection {
    /// What it depends on.
    pub(super) settings: BTreeMap<String, Value>,
    /// In the order in which they are asked.
    pub(super) tasks: Vec<Task>,
    /// Commits that are no tasks.
    pub(super) left_out: Vec<LeftOut>,
    /// Commits that nobody looked at, since there were tasks enough.
    pub(super) not_tried: u64,
}

/// A commit that became a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) commit: String,
    pub(super) parent: String,
    /// What is asked for.
    pub(super) message: String,
    /// Files to change, which are shown as far as they exist.
    pub(super) code: Vec<String>,
    /// Files that are as in the commit, whatever the model writes: tests, documentation.
    pub(super) given: Vec<String>,
    /// Files of tests to run.
    pub(super) tests: Vec<String>,
    /// Tests that pass with the real commit, where the run says so.
    pub(super) passed: Option<u64>,
}

/// A commit that is no task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeftOut {
    pub(super) commit: String,
    /// The kind, to count by.
    pub(super) reason: Reason,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub(super) details: String,
}

/// Why a commit is no task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reason {
    /// Nothing but tests, documentation, pictures or pinned versions.
    NoCode,
    /// No test that could judge.
    NoTests,
    /// Its message asks for nothing.
    NoRequest,
    /// Too many lines, or no text.
    TooLarge,
    /// The files to change are too long.
    TooMuchContext,
    /// Paths, sizes or objects that cannot be read.
    Unreadable,
    /// Its tests pass without it.
    PassesBefore,
    /// Its tests fail with it: they need what is not there.
    FailsAfter,
    /// Its tests pass now and then.
    Flaky,
}

/// What it takes to try commits.
pub(super) struct Trial<'a> {
    pub(super) repository: &'a Repository,
    pub(super) rules: &'a Rules,
    pub(super) commands: &'a Commands,
    pub(super) runs: &'a dyn Runs,
}

impl Selection {
    /// Reads what an earlier run found. One with other settings has tasks of its own, which are not overwritten.
    pub(super) fn read(
        file: &Path,
        settings: &BTreeMap<String, Value>,
    ) -> Result<Option<Self>, QualifyError> {
        if !file.exists() {
            return Ok(None);
        }
        let text = backstop_input::read_file(file, FILE_BYTES_MAX)
            .map_err(|error| QualifyError::at(file, error))?;
        let selection: Self =
            serde_json::from_slice(&text).map_err(|error| QualifyError::at(file, error))?;
        if selection.settings == *settings {
            return Ok(Some(selection));
        }
        if selection.tasks.is_empty() {
            return Ok(None);
        }
        let others: Vec<&str> = settings
            .iter()
            .filter(|(name, value)| selection.settings.get(*name) != Some(value))
            .map(|(name, _)| name.as_str())
            .collect();
        let head = selection.settings.get("head").and_then(Value::as_str);
        Err(QualifyError::at(
            file,
            format!(
                "its tasks were chosen with another {}: take another --into (--repo-revision {} was the commit then)",
                others.join(", "),
                head.unwrap_or("?")
            ),
        ))
    }

    pub(super) fn write(&self, file: &Path) -> Result<(), QualifyError> {
        let text =
            serde_json::to_vec_pretty(self).map_err(|error| QualifyError::at(file, error))?;
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).map_err(|error| QualifyError::at(parent, error))?;
        }
        std::fs::write(file, text).map_err(|error| QualifyError::at(file, error))
    }

    /// How many commits were left out for which reason.
    pub(super) fn reasons(&self) -> BTreeMap<String, u64> {
        let mut reasons = BTreeMap::new();
        for left_out in &self.left_out {
            let name = serde_json::to_value(left_out.reason).unwrap_or_default();
            *reasons
                .entry(name.as_str().unwrap_or_default().to_owned())
                .or_insert(0) += 1;
        }
        reasons
    }
}

/// Tries commits in an order that the seed gives, until there are tasks enough.
pub(super) fn select(
    trial: &Trial<'_>,
    wanted: &Wanted,
    settings: BTreeMap<String, Value>,
) -> Result<Selection, QualifyError> {
    let commits = trial
        .repository
        .commits(wanted.since.as_deref(), wanted.commits_max)?;
    let mut selection = Selection {
        settings,
        tasks: Vec::new(),
        left_out: Vec::new(),
        not_tried: 0,
    };
    let mut candidates = Vec::new();
    for commit in commits {
        match read(trial, wanted, &commit) {
            Ok(task) => candidates.push(task),
            Err(left_out) => selection.left_out.push(left_out),
        }
    }
    candidates.sort_by_key(|task| seed_of(wanted.seed, &["repo", &task.commit]));
    let mut tries = wanted.tasks.saturating_mul(TRIES_EACH + 1);
    for mut task in candidates {
        if selection.tasks.len() == wanted.tasks || tries == 0 {
            selection.not_tried += 1;
            continue;
        }
        tries -= 1;
        match prove(trial, wanted.repeats, &task)? {
            Ok(passed) => {
                task.passed = passed;
                tracing::info!("{} is a task", short(&task.commit));
                selection.tasks.push(task);
            }
            Err((reason, details)) => {
                tracing::info!("{} is no task: {reason:?}", short(&task.commit));
                selection.left_out.push(LeftOut {
                    commit: task.commit,
                    reason,
                    details,
                });
            }
        }
    }
    Ok(selection)
}

/// What a commit would ask for, as far as it can be read without running anything.
fn read(trial: &Trial<'_>, wanted: &Wanted, commit: &Commit) -> Result<Task, LeftOut> {
    let left_out = |reason, details: String| LeftOut {
        commit: commit.id.clone(),
        reason,
        details,
    };
    let unreadable = |error: QualifyError| left_out(Reason::Unreadable, error.to_string());
    let changes = trial.repository.changes(commit).map_err(unreadable)?;
    let (code, given): (Vec<_>, Vec<_>) = changes
        .iter()
        .partition(|change| trial.rules.is_code(&change.path));
    if code.is_empty() {
        return Err(left_out(Reason::NoCode, String::new()));
    }
    if !given.iter().any(|change| trial.rules.is_test(&change.path)) {
        return Err(left_out(Reason::NoTests, String::new()));
    }
    let message = request(&commit.message);
    if message.split_whitespace().count() < MESSAGE_WORDS_MIN {
        return Err(left_out(Reason::NoRequest, String::new()));
    }
    let lines: Option<u64> = code.iter().map(|change| change.lines).sum();
    if lines.is_none_or(|lines| lines > wanted.lines_max) {
        let details = lines.map_or("no text".to_owned(), |lines| format!("{lines} lines"));
        return Err(left_out(Reason::TooLarge, details));
    }
    let parent = trial.repository.tree(&commit.parent).map_err(unreadable)?;
    let after = trial.repository.tree(&commit.id).map_err(unreadable)?;
    let paths = |changes: Vec<&super::git::Change>| -> Vec<String> {
        changes
            .into_iter()
            .map(|change| change.path.clone())
            .collect()
    };
    let (code, given) = (paths(code), paths(given));
    let tests = trial
        .rules
        .to_run(given.iter().filter(|path| after.contains_key(*path)));
    if tests.is_empty() {
        return Err(left_out(Reason::NoTests, "it only removes tests".into()));
    }
    let size = |tree: &Tree, path: &String| tree.get(path).map_or(0, |entry| entry.bytes);
    let mut bytes: u64 = code.iter().map(|path| size(&parent, path)).sum();
    if wanted.shows_tests {
        bytes += tests.iter().map(|path| size(&after, path)).sum::<u64>();
    }
    if bytes > wanted.context_bytes_max {
        return Err(left_out(Reason::TooMuchContext, format!("{bytes} bytes")));
    }
    Ok(Task {
        commit: commit.id.clone(),
        parent: commit.parent.clone(),
        message,
        code,
        given,
        tests,
        passed: None,
    })
}

/// Whether a commit's tests fail without it and pass with it, each time. It says how many pass.
fn prove(
    trial: &Trial<'_>,
    repeats: u32,
    task: &Task,
) -> Result<Result<Option<u64>, (Reason, String)>, QualifyError> {
    let parent = trial.repository.tree(&task.parent)?;
    let commit = trial.repository.tree(&task.commit)?;
    let mut with_tests = Overlay::default();
    with_tests.take(&task.given, &commit);
    if let Some(path) = conflict(&parent, &with_tests) {
        return Ok(Err((
            Reason::Unreadable,
            format!("{path} is a file and a directory"),
        )));
    }
    let run = |base: &Tree, overlay: &Overlay| -> Result<Ran, QualifyError> {
        let directory = check_out(trial.repository, base, overlay)?;
        trial
            .runs
            .run(&tree_of(&directory), &trial.commands.argv(&task.tests))
    };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        before.push(run(&parent, &with_tests)?);
        after.push(run(&commit, &Overlay::default())?);
    }
    let well = |runs: &[Ran]| runs.iter().filter(|ran| ran.well).count();
    let (well_before, well_after) = (well(&before), well(&after));
    let details = |runs: &[Ran]| {
        let last = runs.last();
        last.map_or_else(String::new, |ran| format!("{}: {}", ran.ended, ran.said))
    };
    Ok(if well_before > 0 && well_before < before.len() {
        Err((
            Reason::Flaky,
            format!("without it, {well_before} of {repeats} runs passed"),
        ))
    } else if well_before > 0 {
        Err((Reason::PassesBefore, String::new()))
    } else if well_after == 0 {
        Err((Reason::FailsAfter, details(&after)))
    } else if well_after < after.len() {
        Err((
            Reason::Flaky,
            format!("with it, {well_after} of {repeats} runs passed"),
        ))
    } else {
        Ok(after.iter().filter_map(|ran| ran.passed).min())
    })
}

/// A commit's message without what asks for nothing.
fn request(message: &str) -> String {
    let is_trailer = |line: &&str| {
        let line = line.trim().to_lowercase();
        TRAILERS.iter().any(|trailer| line.starts_with(trailer))
    };
    let lines: Vec<&str> = message.lines().filter(|line| !is_trailer(line)).collect();
    let mut request = lines.join("\n").trim().to_owned();
    if request.len() > MESSAGE_BYTES_MAX {
        let mut end = MESSAGE_BYTES_MAX;
        while !request.is_char_boundary(end) {
            end -= 1;
        }
        request.truncate(end);
    }
    request
}

/// As people name commits.
pub(super) fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_message_without_its_trailers() {
        let message =
            "Fix the sum\n\nIt was off.\n\nSigned-off-by: A <a@example.org>\nCo-Authored-By: B";
        assert_eq!(request(message), "Fix the sum\n\nIt was off.");
        assert!(request(&"ä".repeat(9000)).len() <= MESSAGE_BYTES_MAX);
    }
}
