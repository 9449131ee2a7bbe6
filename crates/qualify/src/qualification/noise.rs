//! How much results differ by themselves: the same requests, asked again.

use std::collections::{BTreeMap, HashMap};

use crate::record::{Attempt, Measure, Outcome};
use crate::statistics::wilson;
use crate::suite::Suite;

use super::PROGRAM;

/// Of several runs with the same seeds: shares of attempts that were the same in all of them, and how far apart the suite's
/// measures lie.
pub(super) fn measures(suite: &dyn Suite, runs: &[Vec<Attempt>]) -> Vec<Measure> {
    let measure = |metric: String, value| Measure {
        suite: suite.name().to_owned(),
        metric,
        value,
        interval: None,
        count: 0,
        samples: 1,
        settings: BTreeMap::from([("repeats".to_owned(), runs.len().into())]),
        source: PROGRAM.into(),
    };
    let groups = groups(runs);
    let share = |name: &str, same: fn(&Attempt, &Attempt) -> bool| {
        let holds = |group: &&Vec<&Attempt>| group.iter().all(|other| same(group[0], other));
        let (same, count) = (
            groups.iter().filter(holds).count() as u64,
            groups.len() as u64,
        );
        Measure {
            interval: wilson(same, count),
            count,
            ..measure(name.into(), same as f64 / count.max(1) as f64)
        }
    };
    let mut found = vec![
        share("repeat_identical_answers", |one, other| {
            said(one).eq(said(other))
        }),
        share("repeat_identical_outcomes", |one, other| {
            one.outcome == other.outcome
        }),
    ];
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for run in runs {
        let answered: Vec<Attempt> = run
            .iter()
            .filter(|attempt| attempt.outcome != Outcome::NoAnswer)
            .cloned()
            .collect();
        for measure in suite.measures(&answered) {
            values
                .entry(measure.metric)
                .or_default()
                .push(measure.value);
        }
    }
    for (metric, values) in values {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        found.push(Measure {
            count: values.len() as u64,
            ..measure(format!("repeat_spread_of_{metric}"), high - low)
        });
    }
    found
}

/// Attempts at the same task and sample that have an answer in every run.
fn groups(runs: &[Vec<Attempt>]) -> Vec<Vec<&Attempt>> {
    let mut groups: Vec<Vec<&Attempt>> = Vec::new();
    let mut places: HashMap<(&str, u32), usize> = HashMap::new();
    let answered = runs
        .iter()
        .flatten()
        .filter(|attempt| attempt.outcome != Outcome::NoAnswer);
    for attempt in answered {
        let place = *places
            .entry((attempt.task.as_str(), attempt.sample))
            .or_insert(groups.len());
        if place == groups.len() {
            groups.push(Vec::new());
        }
        groups[place].push(attempt);
    }
    groups.retain(|group| group.len() == runs.len());
    groups
}

/// What the model said, turn by turn; ids of calls are made up anew each time.
fn said(attempt: &Attempt) -> impl Iterator<Item = (&str, &str, Vec<(&str, &str)>)> {
    attempt.replies.iter().map(|reply| {
        let calls = reply.tool_calls.iter();
        let calls = calls.map(|call| (call.name.as_str(), call.arguments.as_str()));
        (
            reply.text.as_str(),
            reply.reasoning.as_str(),
            calls.collect(),
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::QualifyError;
    use crate::record::Reply;
    use crate::suite::Step;

    struct Counted;

    impl Suite for Counted {
        fn name(&self) -> &str {
            "s"
        }

        fn tasks(&self) -> &[String] {
            &[]
        }

        fn step(&self, _: usize, _: u32, _: &[Reply]) -> Result<Step, QualifyError> {
            Err(QualifyError::new("not asked"))
        }

        fn measures(&self, attempts: &[Attempt]) -> Vec<Measure> {
            let passed = attempts
                .iter()
                .filter(|attempt| attempt.outcome == Outcome::Passed);
            vec![Measure {
                suite: "s".into(),
                metric: "right".into(),
                value: passed.count() as f64 / attempts.len() as f64,
                interval: None,
                count: attempts.len() as u64,
                samples: 1,
                settings: BTreeMap::new(),
                source: PROGRAM.into(),
            }]
        }
    }

    fn attempt(task: &str, outcome: Outcome, text: &str) -> Attempt {
        Attempt {
            task: task.into(),
            sample: 0,
            outcome,
            score: 0.0,
            reason: None,
            marks: BTreeMap::new(),
            request: Value::Null,
            replies: vec![Reply {
                text: text.into(),
                ..Reply::default()
            }],
            retries: 0,
        }
    }

    #[test]
    fn what_changes_between_runs_is_counted() {
        use Outcome::{Failed, NoAnswer, Passed};
        let runs = [
            vec![
                attempt("a", Passed, "1"),
                attempt("b", Passed, "2"),
                attempt("c", Passed, "3"),
            ],
            vec![
                attempt("b", Failed, "2"),
                attempt("a", Passed, "one"),
                attempt("c", NoAnswer, ""),
            ],
        ];
        let found: BTreeMap<String, (f64, u64)> = measures(&Counted, &runs)
            .into_iter()
            .map(|measure| (measure.metric, (measure.value, measure.count)))
            .collect();
        assert_eq!(found["repeat_identical_answers"], (0.5, 2));
        assert_eq!(found["repeat_identical_outcomes"], (0.5, 2));
        assert_eq!(found["repeat_spread_of_right"], (0.5, 2));
    }
}
