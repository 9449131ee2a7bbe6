//! Makes measures of attempts: rates with their intervals, over tasks.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Context, Definition};
use crate::PROGRAM;
use crate::random::{Random, seed_of};
use crate::record::{Attempt, Interval, Measure};
use crate::statistics::{CONFIDENCE, counts_by_task, pass_at_k, percentiles, wilson};

/// A statistic with no formula for its interval is computed so often again.
const DRAWS: usize = 2000;

/// What all measures of a suite have in common.
#[derive(Clone, Debug)]
pub(crate) struct Measuring {
    suite: String,
    seed: u64,
    settings: BTreeMap<String, Value>,
}

impl Measuring {
    pub(crate) fn new(definition: &Definition, context: &Context<'_>) -> Self {
        Self {
            suite: definition.name.clone(),
            seed: context.args.sampling.seed,
            settings: context.sampling.settings(),
        }
    }

    /// The suite that is measured.
    pub(crate) fn suite(&self) -> &str {
        &self.suite
    }

    /// The same, with one more setting.
    pub(crate) fn with(&self, name: &str, value: impl Into<Value>) -> Self {
        let mut with = self.clone();
        with.settings.insert(name.into(), value.into());
        with
    }

    /// The share of right answers. None of no answers.
    pub(crate) fn rate(
        &self,
        metric: &str,
        attempts: &[&Attempt],
        is_right: impl Fn(&Attempt) -> bool,
    ) -> Option<Measure> {
        let attempts: Vec<Attempt> = attempts.iter().map(|attempt| slim(attempt)).collect();
        let counts = counts_by_task(&attempts, is_right);
        let (value, interval, count) = pass_at_k(&counts, 1, self.seed)?;
        let samples = counts.iter().map(|count| count.samples).max().unwrap_or(1);
        Some(Measure {
            samples,
            ..self.measure(metric, value, interval, count)
        })
    }

    /// What is right of what there is, where an attempt can have several of it, or none: `parts` says how many are right, and
    /// how many there are. Parts of one task are not independent, so that its interval is drawn from tasks.
    pub(crate) fn ratio(
        &self,
        metric: &str,
        attempts: &[&Attempt],
        parts: impl Fn(&Attempt) -> (u64, u64),
    ) -> Option<Measure> {
        let parts_of: Vec<(&str, (u64, u64))> = attempts
            .iter()
            .map(|attempt| (attempt.task.as_str(), parts(attempt)))
            .collect();
        let sum = |parts: &[(u64, u64)]| {
            let right: u64 = parts.iter().map(|(right, _)| right).sum();
            let all: u64 = parts.iter().map(|(_, all)| all).sum();
            (right, all)
        };
        let rows: Vec<(u64, u64)> = parts_of.iter().map(|(_, parts)| *parts).collect();
        let (right, all) = sum(&rows);
        if all == 0 {
            return None;
        }
        let mut per_task: BTreeMap<&str, u64> = BTreeMap::new();
        for (task, (_, all)) in &parts_of {
            *per_task.entry(task).or_default() += all;
        }
        let is_independent = per_task.values().all(|all| *all <= 1);
        let interval = if is_independent {
            wilson(right, all)
        } else {
            let tasks = grouped(&parts_of);
            self.drawn_again(metric, &tasks, |drawn| {
                let (right, all) = sum(&drawn);
                (all > 0).then(|| right as f64 / all as f64)
            })
        };
        Some(self.measure(metric, right as f64 / all as f64, interval, all))
    }

    /// Any statistic of what attempts have.
    pub(crate) fn statistic<T: Copy>(
        &self,
        metric: &str,
        attempts: &[&Attempt],
        what: impl Fn(&Attempt) -> T,
        of: impl Fn(Vec<T>) -> Option<f64>,
    ) -> Option<Measure> {
        let rows: Vec<(&str, T)> = attempts
            .iter()
            .map(|attempt| (attempt.task.as_str(), what(attempt)))
            .collect();
        let value = of(rows.iter().map(|(_, row)| *row).collect())?;
        let interval = self.drawn_again(metric, &grouped(&rows), of);
        Some(self.measure(metric, value, interval, rows.len() as u64))
    }

    /// One number without an interval.
    pub(crate) fn value(&self, metric: &str, value: f64, count: u64) -> Measure {
        self.measure(metric, value, None, count)
    }

    /// A bootstrap over tasks.
    fn drawn_again<T: Copy>(
        &self,
        metric: &str,
        tasks: &[Vec<T>],
        of: impl Fn(Vec<T>) -> Option<f64>,
    ) -> Option<Interval> {
        if tasks.len() < 2 {
            return None;
        }
        let mut random = Random::new(seed_of(self.seed, &[&self.suite, metric, "bootstrap"]));
        let mut draws: Vec<f64> = (0..DRAWS)
            .filter_map(|_| {
                let drawn = (0..tasks.len()).flat_map(|_| &tasks[random.below(tasks.len())]);
                of(drawn.copied().collect())
            })
            .collect();
        let (low, high) = percentiles(&mut draws, CONFIDENCE)?;
        Some(Interval {
            low,
            high,
            confidence: CONFIDENCE,
            method: "bootstrap".into(),
        })
    }

    fn measure(&self, metric: &str, value: f64, interval: Option<Interval>, count: u64) -> Measure {
        Measure {
            suite: self.suite.clone(),
            metric: metric.into(),
            value,
            interval,
            count,
            samples: 1,
            settings: self.settings.clone(),
            source: PROGRAM.into(),
        }
    }
}

/// Without requests and replies, which nobody counts.
fn slim(attempt: &Attempt) -> Attempt {
    Attempt {
        task: attempt.task.clone(),
        reason: None,
        marks: attempt.marks.clone(),
        request: Value::Null,
        replies: Vec::new(),
        ..*attempt
    }
}

fn grouped<T: Copy>(rows: &[(&str, T)]) -> Vec<Vec<T>> {
    let mut tasks: BTreeMap<&str, Vec<T>> = BTreeMap::new();
    for (task, row) in rows {
        tasks.entry(task).or_default().push(*row);
    }
    tasks.into_values().collect()
}
