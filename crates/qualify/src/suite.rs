//! What a suite of tasks is to the runner, which asks, keeps and counts.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::QualifyError;
use crate::record::{Attempt, Measure, Outcome, Reply};

/// Tasks that are asked one by one and judged by themselves. The runner calls it from many threads, and lets it block.
pub trait Suite: Send + Sync {
    /// `code/humaneval`, `tools` ...; also the name of its files.
    fn name(&self) -> &str;

    /// The tasks' names, in the order in which they are asked. They never change between two runs with the same settings.
    fn tasks(&self) -> &[String];

    /// What comes next in a task, after these replies. The first request is what comes after none.
    ///
    /// It depends on nothing but its arguments and the settings, so that a run can be resumed.
    ///
    /// # Errors
    ///
    /// If this machine cannot judge. A wrong answer is no error.
    fn step(&self, task: usize, sample: u32, replies: &[Reply]) -> Result<Step, QualifyError>;

    /// What else decides what is asked: a digest of the data, a number of cases. A run with others does not resume.
    fn settings(&self) -> BTreeMap<String, Value> {
        BTreeMap::new()
    }

    /// The numbers that come of all attempts at all tasks. Attempts without an answer are not among them.
    fn measures(&self, attempts: &[Attempt]) -> Vec<Measure>;
}

/// What comes next in a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Send this chat, or this completion if it has a `prompt` instead of `messages`, with what else is peculiar to the
    /// task (`tools`, `response_format`, `max_tokens`). The runner adds the model, sampling and the seed, where the task
    /// has none of its own.
    Ask(Value),
    /// It is decided.
    Judged(Judgement),
}

/// What an attempt is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// What became of it.
    pub outcome: Outcome,
    /// From 0 to 1.
    pub score: f64,
    /// Why not, for people.
    pub reason: Option<String>,
    /// Marks to count by.
    pub marks: BTreeMap<String, Value>,
}
