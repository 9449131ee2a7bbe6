//! Results that were never run, for tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::results::{Essence, Results};
use crate::record::{Attempt, Outcome, Reply, Run, Subject};

/// An attempt.
#[derive(Default)]
pub(super) struct Planned {
    pub(super) task: String,
    pub(super) sample: u32,
    pub(super) score: f64,
    pub(super) outcome: Option<Outcome>,
    pub(super) request: Option<Value>,
    pub(super) text: String,
}

impl Planned {
    pub(super) fn attempt(self) -> Attempt {
        let by_score = match self.score {
            1.0 => Outcome::Passed,
            _ => Outcome::Failed,
        };
        let message = json!([{"role": "user", "content": format!("Do {}.", self.task)}]);
        Attempt {
            outcome: self.outcome.unwrap_or(by_score),
            score: self.score,
            reason: None,
            marks: BTreeMap::new(),
            request: self.request.unwrap_or_else(|| json!({"messages": message})),
            replies: vec![Reply {
                text: self.text,
                finish_reason: Some("stop".into()),
                total_s: 1.0,
                ..Reply::default()
            }],
            retries: 0,
            task: self.task,
            sample: self.sample,
        }
    }
}

pub(super) fn run(model: &str) -> Run {
    Run {
        program: "backstop-qualify 0".into(),
        subject: Subject {
            url: format!("http://{}.example", model.replace('/', "-")),
            model: model.into(),
            ..Subject::default()
        },
        settings: BTreeMap::new(),
        began_unix_s: 0,
    }
}

/// The results of one suite, `work`.
pub(super) fn results(planned: impl IntoIterator<Item = Planned>) -> Results {
    let mut suites = BTreeMap::new();
    for planned in planned {
        let attempt = planned.attempt();
        let tasks: &mut super::results::Tasks = suites.entry("work".to_owned()).or_default();
        let essence = Essence::of(&attempt);
        let samples = tasks.entry(attempt.task).or_default();
        samples.insert(attempt.sample, essence);
    }
    Results {
        run: run("m"),
        suites,
    }
}

/// A directory of results, as a run leaves it.
pub(super) fn write(directory: &Path, model: &str, planned: impl IntoIterator<Item = Planned>) {
    std::fs::create_dir_all(directory.join("answers/code")).unwrap();
    let run = serde_json::to_vec(&run(model)).unwrap();
    std::fs::write(directory.join("run.json"), run).unwrap();
    let lines: String = planned
        .into_iter()
        .map(|planned| serde_json::to_string(&planned.attempt()).unwrap() + "\n")
        .collect();
    std::fs::write(directory.join("answers/code/work.jsonl"), lines).unwrap();
}

pub(super) fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("backstop-compare-{}-{name}", std::process::id()));
    let _ignored = std::fs::remove_dir_all(&path);
    path
}
