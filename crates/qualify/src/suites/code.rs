//! Suites whose answers are programs: each is run isolated against its task's tests (HumanEval, MBPP, EvalPlus).

mod data;
mod judge;
mod problems;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::QualifyError;
use crate::qualification::PROGRAM;
use crate::random::seed_of;
use crate::record::{Attempt, Measure, Outcome, Reply};
use crate::statistics::{counts_by_task, pass_at_k};
use crate::suite::{Judgement, Step, Suite};

use super::{Built, Context, Definition};
use data::Found;
use judge::{Judge, Verdict};
use problems::{Format, Problem};

/// Servers of OpenAI's API take so many at least; what comes after the others is cut off here.
const STOPS_SENT_MAX: usize = 4;

/// What is peculiar to these suites, as their files have it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CodeTasks {
    format: Format,
    /// Names in `--data-dir`; the first that is there is taken.
    files: Vec<String>,
    /// A file within a Python package, if it is installed.
    package: Option<String>,
    /// How many tasks the file must have.
    count: Option<usize>,
    /// The numbers of the first and the last task to ask.
    first: Option<u64>,
    last: Option<u64>,
    /// What is asked in a chat, around `{prompt}` and `{tests}`.
    chat: String,
    /// What base models continue.
    completion: String,
    /// Tasks that are shown to base models, solved, and what stands behind each.
    #[serde(default)]
    examples: Vec<u64>,
    #[serde(default)]
    example_end: String,
    /// What ends a base model's answer.
    stop: Vec<String>,
    cpu_s: f64,
    memory_mib: u64,
    /// How outputs are compared, by entry point.
    #[serde(default)]
    oracles: BTreeMap<String, Vec<String>>,
    /// What JSON's lists stand for, by the task's number.
    #[serde(default)]
    shapes: BTreeMap<String, Vec<u64>>,
}

struct CodeSuite {
    name: String,
    tasks: Vec<String>,
    problems: Vec<Problem>,
    own: CodeTasks,
    is_completion: bool,
    /// What base models are shown first.
    examples: String,
    judge: Judge,
    settings: BTreeMap<String, Value>,
    pass_at: Vec<u32>,
    samples: u32,
    seed: u64,
}

/// Builds a suite of a definition, from a file on this machine.
pub(super) fn build(definition: &Definition, context: &Context<'_>) -> Result<Built, QualifyError> {
    let own: CodeTasks = definition.tasks()?;
    let args = context.args;
    let found = data::find(&own, args)?;
    let Some(Found { path, text, sha256 }) = found else {
        return Ok(Built::Lacking(data::advice(&own, definition, args)));
    };
    let all = problems::read(&own, &text).map_err(|error| QualifyError::at(&path, error))?;
    let (problems, examples) =
        problems::select(&own, all).map_err(|error| QualifyError::at(&path, error))?;
    let judge = Judge::new(&args.code, &own)?;
    let is_completion = args.sampling.completion;
    let mut settings = context.sampling.settings();
    settings.extend([
        (
            "prompt".into(),
            json!(if is_completion { "completion" } else { "chat" }),
        ),
        ("data_sha256".into(), json!(sha256)),
        ("cpu_s".into(), json!(judge.cpu_s())),
        ("python".into(), json!(judge.version())),
    ]);
    Ok(Built::Ready(Box::new(CodeSuite {
        name: definition.name.clone(),
        tasks: problems
            .iter()
            .map(|problem| problem.task.clone())
            .collect(),
        examples: if is_completion {
            examples
        } else {
            String::new()
        },
        problems,
        own,
        is_completion,
        judge,
        settings,
        pass_at: context.sampling.pass_at.clone(),
        samples: context.sampling.samples,
        seed: args.sampling.seed,
    })))
}

impl Suite for CodeSuite {
    fn name(&self) -> &str {
        &self.name
    }

    fn tasks(&self) -> &[String] {
        &self.tasks
    }

    fn step(&self, task: usize, _sample: u32, replies: &[Reply]) -> Result<Step, QualifyError> {
        let problem = &self.problems[task];
        let Some(reply) = replies.first() else {
            return Ok(Step::Ask(self.request(problem)));
        };
        let (task, checks) = (&problem.task, &problem.checks);
        let verdict = if self.is_completion {
            let program = format!("{}{}", problem.lead, cut(&reply.text, &self.own.stop));
            self.judge.run(task, checks, &program, false)?
        } else {
            self.judge.run(task, checks, &reply.text, true)?
        };
        Ok(Step::Judged(judgement(
            &verdict,
            reply,
            problem.is_differential(),
        )))
    }

    fn settings(&self) -> BTreeMap<String, Value> {
        self.settings.clone()
    }

    fn measures(&self, attempts: &[Attempt]) -> Vec<Measure> {
        let mut measures = self.passes("", attempts, |attempt| attempt.outcome == Outcome::Passed);
        if self.own.format == Format::Evalplus {
            measures.extend(self.passes("base_", attempts, |attempt| {
                attempt.marks.get("base") == Some(&json!(true))
            }));
        }
        measures
    }
}

impl CodeSuite {
    fn request(&self, problem: &Problem) -> Value {
        if self.is_completion {
            let prompt = format!(
                "{}{}",
                self.examples,
                problem.continued(&self.own.completion)
            );
            let stop: Vec<&String> = self.own.stop.iter().take(STOPS_SENT_MAX).collect();
            return json!({"prompt": prompt, "stop": stop});
        }
        let content = problem.asked(&self.own.chat);
        json!({"messages": [{"role": "user", "content": content}]})
    }

    fn passes(
        &self,
        prefix: &str,
        attempts: &[Attempt],
        is_right: impl Fn(&Attempt) -> bool,
    ) -> Vec<Measure> {
        let counts = counts_by_task(attempts, is_right);
        let measure = |k: &u32| {
            let metric = format!("{prefix}pass@{k}");
            let seed = seed_of(self.seed, &[&self.name, &metric]);
            let (value, interval, count) = pass_at_k(&counts, *k, seed)?;
            let mut settings = self.settings.clone();
            settings.insert("k".into(), json!(k));
            Some(Measure {
                suite: self.name.clone(),
                metric,
                value,
                interval,
                count,
                samples: self.samples,
                settings,
                source: PROGRAM.into(),
            })
        };
        self.pass_at.iter().filter_map(measure).collect()
    }
}

fn judgement(verdict: &Verdict, reply: &Reply, is_differential: bool) -> Judgement {
    let has_passed = verdict.outcome == "passed";
    let outcome = match (has_passed, reply.finish_reason.as_deref()) {
        (true, _) => Outcome::Passed,
        (false, Some("length")) => Outcome::Truncated,
        (false, _) => Outcome::Failed,
    };
    let mut marks = BTreeMap::from([("result".to_owned(), json!(verdict.outcome))]);
    if is_differential {
        for kind in ["base", "plus"] {
            let holds = verdict.passed.iter().any(|passed| passed == kind);
            marks.insert(kind.into(), json!(holds));
        }
    }
    Judgement {
        outcome,
        score: f64::from(u8::from(has_passed)),
        reason: (!has_passed).then(|| {
            verdict
                .reason
                .clone()
                .unwrap_or_else(|| verdict.outcome.clone())
        }),
        marks,
    }
}

/// A base model's answer up to what ends it.
fn cut<'a>(text: &'a str, stops: &[String]) -> &'a str {
    let ends = stops.iter().filter_map(|stop| text.find(stop.as_str()));
    &text[..ends.min().unwrap_or(text.len())]
}

#[cfg(test)]
mod tests;
