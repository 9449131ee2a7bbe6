//! What comes of setting two directories of results beside each other, task by task.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::pairing::{Paired, notes};
use super::results::Results;
use crate::record::{Interval, Measure, Outcome, Subject};
use crate::statistics::paired::{McNemar, PairedTable};
use crate::{PROGRAM, QualifyError};

/// The shape of the JSON; a change that readers would notice makes it another number.
const SHAPE: u32 = 1;
/// Tasks of each suite that are listed because the two differ in them.
pub(super) const DISCORDANT_MAX: usize = 1000;

/// Two, compared. Everything that is there twice has the first in front.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// 1.
    pub shape: u32,
    /// This program, `NAME VERSION`.
    pub program: String,
    /// What the two are called here.
    pub names: [String; 2],
    /// Who they are.
    pub subjects: [Subject; 2],
    /// Of resampling.
    pub seed: u64,
    /// Every task counts the same, whatever suite it is of.
    pub overall: Difference,
    /// One for each suite that both have.
    pub suites: Vec<SuiteComparison>,
    /// Suites that only one has.
    pub unpaired_suites: [Vec<String>; 2],
    /// What is to be thought of first.
    pub notes: Vec<String>,
}

/// How much the second differs from the first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// It, for people.
    pub sentence: String,
    /// Tasks that both were asked.
    pub tasks: u64,
    /// Each one's mean score.
    pub scores: [f64; 2],
    /// The second's, less the first's.
    pub difference: f64,
    /// How sure that is.
    pub interval: Interval,
    /// Where each task has one answer that is right or wrong.
    pub table: Option<PairedTable>,
    /// The same.
    pub mcnemar: Option<McNemar>,
}

/// A suite that both have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuiteComparison {
    /// Its name.
    pub suite: String,
    /// How much they differ.
    #[serde(flatten)]
    pub difference: Difference,
    /// Pairs of answers: as many as tasks, or more where tasks were asked several times.
    pub pairs: u64,
    /// Pairs in which both said the same.
    pub identical: u64,
    /// Answers without a partner.
    pub unpaired: [u64; 2],
    /// How each answered.
    pub sides: [Side; 2],
    /// Tasks in which one did better.
    pub discordant: Vec<Discordant>,
    /// Those that are not listed.
    pub discordant_left_out: u64,
}

/// How one answered the tasks of a suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// How many answers became what.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Lengths of its answers, in characters.
    pub characters: Option<Quantiles>,
    /// In tokens, as it counts them.
    pub tokens: Option<Quantiles>,
    /// Seconds to the first piece.
    pub first_s: Option<Quantiles>,
    /// Seconds to the end.
    pub total_s: Option<Quantiles>,
}

/// Of at least one value, by nearest rank.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half of them are no larger.
    pub p50: f64,
    /// Nine of ten are no larger.
    pub p90: f64,
    /// 99 of 100 are no larger.
    pub p99: f64,
}

/// A task in which one did better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Discordant {
    /// Its name.
    pub task: String,
    /// Each one's mean score.
    pub scores: [f64; 2],
    /// What became of each one's first answer.
    pub outcomes: [Outcome; 2],
    /// Why not, of whoever did worse.
    pub reason: Option<String>,
}

impl Comparison {
    /// Compares two directories; their runs must have asked the same.
    pub(crate) fn of(
        names: [String; 2],
        results: &[Results; 2],
        seed: u64,
    ) -> Result<Self, QualifyError> {
        let [a, b] = results;
        let mut suites = Vec::new();
        let mut pooled = Vec::new();
        for (suite, tasks) in &a.suites {
            if let Some(others) = b.suites.get(suite) {
                let paired = Paired::of(suite, tasks, others)?;
                suites.push(paired.compare(&names, seed));
                pooled.extend(paired.tasks);
            }
        }
        if pooled.is_empty() {
            return Err(QualifyError::new(
                "the two have no task in common: compare directories of the same suites",
            ));
        }
        let only = |one: &Results, other: &Results| {
            let names = one.suites.keys();
            names
                .filter(|name| !other.suites.contains_key(*name))
                .cloned()
                .collect()
        };
        Ok(Self {
            shape: SHAPE,
            program: PROGRAM.into(),
            subjects: [a.run.subject.clone(), b.run.subject.clone()],
            seed,
            overall: Difference::of(&names, &pooled, seed),
            unpaired_suites: [only(a, b), only(b, a)],
            notes: notes(&names, &suites, results),
            suites,
            names,
        })
    }

    /// The numbers for a report.
    pub(crate) fn measures(&self) -> Vec<Measure> {
        let settings: BTreeMap<String, Value> = [
            ("a", self.names[0].clone()),
            ("b", self.names[1].clone()),
            ("model_a", self.subjects[0].model.clone()),
            ("model_b", self.subjects[1].model.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value.into()))
        .into();
        let measure = |suite: String, difference: &Difference, samples: u32| Measure {
            suite,
            metric: "score_difference".into(),
            value: difference.difference,
            interval: Some(difference.interval.clone()),
            count: difference.tasks,
            samples,
            settings: settings.clone(),
            source: self.program.clone(),
        };
        let suites = self.suites.iter().map(|suite| {
            let samples = suite.pairs.div_ceil(suite.difference.tasks.max(1));
            let name = format!("compare/{}", suite.suite);
            measure(
                name,
                &suite.difference,
                u32::try_from(samples).unwrap_or(u32::MAX),
            )
        });
        let overall = measure("compare".into(), &self.overall, 1);
        std::iter::once(overall).chain(suites).collect()
    }
}

impl Discordant {
    /// The second's score, less the first's.
    pub fn change(&self) -> f64 {
        self.scores[1] - self.scores[0]
    }
}

impl Side {
    /// How many answers became that.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(&outcome).copied().unwrap_or_default()
    }
}

impl Quantiles {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |hundredths: usize| {
            let rank = (sorted.len() * hundredths).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied()
        };
        Some(Self {
            p50: rank(50)?,
            p90: rank(90)?,
            p99: rank(99)?,
        })
    }

    /// The first two, for people.
    pub(crate) fn text(self, unit: &str, digits: usize) -> String {
        format!("{:.digits$}, {:.digits$}{unit}", self.p50, self.p90)
    }
}

#[cfg(test)]
mod tests;
