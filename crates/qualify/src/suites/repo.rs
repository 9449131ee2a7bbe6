//! A team's own git repository as a suite: a commit's message asks for a change, the model writes it, and the commit's own
//! tests judge it.

mod args;
mod checkout;
mod contained;
mod container;
mod counts;
mod edits;
mod git;
mod paths;
mod prompt;
mod selection;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::QualifyError;
use crate::record::{Attempt, Measure, Outcome, Reply};
use crate::statistics::{counts_by_task, pass_at_k, wilson};
use crate::store::refuse_foreign;
use crate::suite::{Judgement, Step, Suite};

use super::{Built, Context, Definition};

pub use args::RepoArgs;
use checkout::{Overlay, check_out, conflict, tree_of};
use contained::{Allowance, Commands, Isolated, Runs};
use container::Container;
use git::{Kind, Repository};
use paths::Rules;
use selection::{Selection, Task, Trial, select, short};

/// Beside the results: which commits are tasks, and why others are not.
const SELECTION: &str = "repo-selection.json";

/// Builds the suite, if the command line names a repository.
pub(super) fn build(definition: &Definition, context: &Context<'_>) -> Result<Built, QualifyError> {
    // There is nothing to set in it.
    let NoTasks {} = definition.tasks()?;
    let args = context.args;
    let (Some(path), Some(into)) = (&args.repo.repo, &args.into) else {
        return Ok(Built::Lacking(
            "--repo PATH says which repository, and --repo-test COMMAND how to test it".into(),
        ));
    };
    if into.exists() {
        // Before anything is written there.
        refuse_foreign(into)?;
    }
    let (runs, place) = runs(&args.repo)?;
    let asked = Asked {
        name: &definition.name,
        path,
        args: &args.repo,
        seed: args.sampling.seed,
        pass_at: &context.sampling.pass_at,
        kept: &into.join(SELECTION),
    };
    let suite = RepoSuite::open(&asked, runs, &place)?;
    Ok(Built::Ready(Box::new(suite)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoTasks {}

/// What runs tests, and what is worth saying of it.
fn runs(args: &RepoArgs) -> Result<(Box<dyn Runs>, String), QualifyError> {
    let allowance = Allowance {
        time: args.repo_timeout,
        memory_bytes: u64::from(args.repo_memory_mib) << 20,
    };
    if let Some(image) = &args.repo_container {
        let container = Container::new(image, allowance)?;
        let image = container.image().to_owned();
        return Ok((Box::new(container), image));
    }
    let environment = args.repo_environment.as_deref();
    let place = environment.map_or_else(String::new, |path| path.display().to_string());
    Ok((Box::new(Isolated::new(environment, allowance)?), place))
}

/// What a suite is made of.
struct Asked<'a> {
    name: &'a str,
    path: &'a Path,
    args: &'a RepoArgs,
    seed: u64,
    pass_at: &'a [u32],
    /// Where the selection is kept.
    kept: &'a Path,
}

/// The tasks of a repository.
struct RepoSuite {
    name: String,
    repository: Repository,
    rules: Rules,
    commands: Commands,
    runs: Box<dyn Runs>,
    selection: Selection,
    names: Vec<String>,
    shows_tests: bool,
    pass_at: Vec<u32>,
    seed: u64,
}

impl RepoSuite {
    /// Finds the tasks of a repository, or those that an earlier run with the same settings kept.
    fn open(asked: &Asked<'_>, runs: Box<dyn Runs>, place: &str) -> Result<Self, QualifyError> {
        let (args, path) = (asked.args, asked.path);
        let commands = args.commands()?;
        let rules = Rules::new(&args.repo_tests)?;
        let repository = Repository::open(path, &args.repo_revision)?;
        let settings = args.settings(&repository.head, &rules.tests(), place, asked.seed);
        let selection = match Selection::read(asked.kept, &settings)? {
            Some(selection) => selection,
            None => {
                let trial = Trial {
                    repository: &repository,
                    rules: &rules,
                    commands: &commands,
                    runs: runs.as_ref(),
                };
                let selection = select(&trial, &args.wanted(asked.seed), settings)?;
                selection.write(asked.kept)?;
                selection
            }
        };
        tracing::info!(
            "{} tasks in {}; left out: {:?}",
            selection.tasks.len(),
            path.display(),
            selection.reasons()
        );
        if selection.tasks.is_empty() {
            return Err(QualifyError::at(
                path,
                format!(
                    "no commit is a task: {:?}; {} says why of each",
                    selection.reasons(),
                    asked.kept.display()
                ),
            ));
        }
        Ok(Self {
            names: selection
                .tasks
                .iter()
                .map(|task| short(&task.commit).to_owned())
                .collect(),
            repository,
            rules,
            commands,
            runs,
            selection,
            name: asked.name.to_owned(),
            shows_tests: args.repo_show_tests,
            pass_at: asked.pass_at.to_vec(),
            seed: asked.seed,
        })
    }

    /// The change that an answer makes, on top of what is given. The error says what is wrong with it.
    fn overlay(&self, task: &Task, answer: &str) -> Result<Result<Overlay, String>, QualifyError> {
        let edits = match edits::parse(answer) {
            Ok(edits) => edits,
            Err(why) => return Ok(Err(why)),
        };
        let parent = self.repository.tree(&task.parent)?;
        let mut overlay = Overlay::default();
        for edit in &edits {
            let path = &edit.path;
            if self.rules.is_test(path) {
                return Ok(Err(format!(
                    "{path} is a test, which the model may not change"
                )));
            }
            let before = match parent.get(path) {
                None => None,
                Some(entry) if matches!(entry.kind, Kind::File | Kind::Executable) => {
                    match prompt::text_of(&self.repository, path, entry)? {
                        Some(text) => Some(text),
                        None => return Ok(Err(format!("{path} is no text"))),
                    }
                }
                Some(_) => return Ok(Err(format!("{path} is no file"))),
            };
            match edits::apply(&edit.change, before.as_deref()) {
                Ok(text) => overlay.write(path, text),
                Err(why) => return Ok(Err(format!("{path}: {why}"))),
            }
        }
        // Last, so that nothing is in the place of what is given.
        overlay.take(&task.given, &self.repository.tree(&task.commit)?);
        Ok(match conflict(&parent, &overlay) {
            Some(path) => Err(format!(
                "{path} would be a file and a directory, or behind a link"
            )),
            None => Ok(overlay),
        })
    }

    fn judge(&self, task: &Task, reply: &Reply) -> Result<Judgement, QualifyError> {
        if reply.finish_reason.as_deref() == Some("length") {
            return Ok(judgement(
                Outcome::Truncated,
                false,
                Some("the answer has no end".into()),
            ));
        }
        let overlay = match self.overlay(task, &reply.text)? {
            Ok(overlay) => overlay,
            Err(why) => return Ok(judgement(Outcome::Failed, false, Some(why))),
        };
        let parent = self.repository.tree(&task.parent)?;
        let directory = check_out(&self.repository, &parent, &overlay)?;
        let ran = self
            .runs
            .run(&tree_of(&directory), &self.commands.argv(&task.tests))?;
        if !ran.well {
            let why = format!("the tests {}: {}", ran.ended, ran.said);
            return Ok(judgement(Outcome::Failed, true, Some(why)));
        }
        if ran.passed.unwrap_or(0) < task.passed.unwrap_or(0) {
            let why = format!(
                "the tests ended well, but {} passed instead of {}",
                ran.passed.unwrap_or(0),
                task.passed.unwrap_or(0)
            );
            return Ok(judgement(Outcome::Failed, true, Some(why)));
        }
        Ok(judgement(Outcome::Passed, true, None))
    }

    fn measure(&self, metric: String, value: f64, count: u64, samples: u32) -> Measure {
        let mut settings = self.selection.settings.clone();
        settings.insert("left_out".into(), json!(self.selection.reasons()));
        settings.insert("not_tried".into(), json!(self.selection.not_tried));
        Measure {
            suite: self.name.clone(),
            metric,
            value,
            interval: None,
            count,
            samples,
            settings,
            source: concat!("backstop-qualify ", env!("CARGO_PKG_VERSION")).into(),
        }
    }
}

impl Suite for RepoSuite {
    fn name(&self) -> &str {
        &self.name
    }

    fn tasks(&self) -> &[String] {
        &self.names
    }

    fn step(&self, task: usize, _sample: u32, replies: &[Reply]) -> Result<Step, QualifyError> {
        let task = self
            .selection
            .tasks
            .get(task)
            .ok_or_else(|| QualifyError::new("there is no such task"))?;
        match replies.last() {
            None => {
                prompt::ask(&self.repository, &self.rules, task, self.shows_tests).map(Step::Ask)
            }
            Some(reply) => self.judge(task, reply).map(Step::Judged),
        }
    }

    fn settings(&self) -> BTreeMap<String, Value> {
        let mut settings = self.selection.settings.clone();
        settings.insert("task_commits".into(), json!(self.names));
        settings
    }

    fn measures(&self, attempts: &[Attempt]) -> Vec<Measure> {
        let counts = counts_by_task(attempts, |attempt| attempt.outcome == Outcome::Passed);
        let samples = counts.iter().map(|count| count.samples).max().unwrap_or(0);
        let mut measures = Vec::new();
        for k in &self.pass_at {
            if let Some((value, interval, count)) = pass_at_k(&counts, *k, self.seed) {
                let mut measure = self.measure(format!("pass@{k}"), value, count, samples);
                measure.interval = interval;
                measures.push(measure);
            }
        }
        let answered: Vec<&Attempt> = attempts
            .iter()
            .filter(|attempt| attempt.outcome != Outcome::NoAnswer)
            .collect();
        let applied = answered
            .iter()
            .filter(|attempt| attempt.marks.get("applied") == Some(&Value::Bool(true)))
            .count() as u64;
        if let Some(interval) = wilson(applied, answered.len() as u64) {
            let value = applied as f64 / answered.len() as f64;
            let mut measure =
                self.measure("applicable_changes".into(), value, answered.len() as u64, 1);
            measure.interval = (samples == 1).then_some(interval);
            measures.push(measure);
        }
        measures
    }
}

fn judgement(outcome: Outcome, applied: bool, reason: Option<String>) -> Judgement {
    Judgement {
        outcome,
        score: f64::from(outcome == Outcome::Passed),
        reason,
        marks: BTreeMap::from([("applied".to_owned(), Value::Bool(applied))]),
    }
}
