//! What comes of setting two directories of results beside each other, task by task.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::results::{Essence, Results, Tasks};
use super::sentence;
use crate::record::{Interval, Measure, Outcome, Subject};
use crate::statistics::paired::{McNemar, PairedTable, bootstrap, mean};
use crate::{PROGRAM, QualifyError};

/// The shape of the JSON; a change that readers would notice makes it another number.
const SHAPE: u32 = 1;
/// Tasks of each suite that are listed because the two differ in them.
const DISCORDANT_MAX: usize = 1000;

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

/// A task that both were asked: their answers by sample.
struct PairedTask<'a> {
    name: &'a str,
    pairs: Vec<[&'a Essence; 2]>,
}

impl PairedTask<'_> {
    fn scores(&self) -> [f64; 2] {
        [0, 1].map(|side| {
            let scores: Vec<f64> = self.pairs.iter().map(|pair| pair[side].score).collect();
            mean(&scores)
        })
    }

    /// Whether each was right, if there is one answer that can only be right or wrong.
    fn right(&self) -> Option<(bool, bool)> {
        match self.pairs.as_slice() {
            [[a, b]] => Some((right(a)?, right(b)?)),
            _ => None,
        }
    }
}

fn right(essence: &Essence) -> Option<bool> {
    match essence.score {
        1.0 => Some(true),
        0.0 => Some(false),
        _ => None,
    }
}

/// A suite's tasks that both were asked.
struct Paired<'a> {
    suite: &'a str,
    tasks: Vec<PairedTask<'a>>,
    unpaired: [u64; 2],
}

impl<'a> Paired<'a> {
    fn of(suite: &'a str, first: &'a Tasks, second: &'a Tasks) -> Result<Self, QualifyError> {
        let mut tasks = Vec::new();
        for (name, samples) in first {
            let Some(others) = second.get(name) else {
                continue;
            };
            let pairs: Vec<[&Essence; 2]> = samples
                .iter()
                .filter_map(|(sample, a)| Some([a, others.get(sample)?]))
                .collect();
            if pairs.iter().any(|[a, b]| a.question != b.question) {
                return Err(QualifyError::new(format!(
                    "{suite}: the two were asked {name:?} in different words or with different settings; run both with \
                     the same version of this program and the same settings"
                )));
            }
            if !pairs.is_empty() {
                tasks.push(PairedTask { name, pairs });
            }
        }
        let paired: usize = tasks.iter().map(|task| task.pairs.len()).sum();
        let left = |tasks: &Tasks| {
            let all: usize = tasks.values().map(BTreeMap::len).sum();
            (all - paired) as u64
        };
        Ok(Self {
            suite,
            unpaired: [left(first), left(second)],
            tasks,
        })
    }

    fn compare(&self, names: &[String; 2], seed: u64) -> SuiteComparison {
        let pairs = || self.tasks.iter().flat_map(|task| &task.pairs);
        let mut discordant: Vec<Discordant> = self.tasks.iter().filter_map(discordant).collect();
        let left_out = discordant.len().saturating_sub(DISCORDANT_MAX);
        discordant.truncate(DISCORDANT_MAX);
        SuiteComparison {
            suite: self.suite.to_owned(),
            difference: Difference::of(names, &self.tasks, seed),
            pairs: pairs().count() as u64,
            identical: pairs().filter(|[a, b]| a.is_same_answer(b)).count() as u64,
            unpaired: self.unpaired,
            sides: [0, 1].map(|side| Side::of(pairs().map(|pair| pair[side]))),
            discordant,
            discordant_left_out: left_out as u64,
        }
    }
}

impl Essence {
    fn is_same_answer(&self, other: &Self) -> bool {
        let is_answer = self.outcome != Outcome::NoAnswer && other.outcome != Outcome::NoAnswer;
        is_answer && self.answer == other.answer
    }
}

impl Difference {
    fn of(names: &[String; 2], tasks: &[PairedTask<'_>], seed: u64) -> Self {
        let scores: Vec<[f64; 2]> = tasks.iter().map(PairedTask::scores).collect();
        let differences: Vec<f64> = scores.iter().map(|[a, b]| b - a).collect();
        let right: Option<Vec<(bool, bool)>> = tasks.iter().map(PairedTask::right).collect();
        let table = right.map(PairedTable::of);
        let mut compared = Self {
            sentence: String::new(),
            tasks: tasks.len() as u64,
            scores: [0, 1].map(|side| {
                let scores: Vec<f64> = scores.iter().map(|scores| scores[side]).collect();
                mean(&scores)
            }),
            difference: mean(&differences),
            interval: table.map_or_else(|| bootstrap(&differences, seed), |table| table.newcombe()),
            mcnemar: table.map(|table| table.mcnemar()),
            table,
        };
        compared.sentence = sentence::of(names, &compared);
        compared
    }
}

fn discordant(task: &PairedTask<'_>) -> Option<Discordant> {
    let scores = task.scores();
    let [a, b] = task.pairs.first()?;
    let worse = if scores[0] < scores[1] { 0 } else { 1 };
    let reason = task
        .pairs
        .iter()
        .find_map(|pair| pair[worse].reason.clone());
    (scores[0] != scores[1]).then(|| Discordant {
        task: task.name.to_owned(),
        scores,
        outcomes: [a.outcome, b.outcome],
        reason,
    })
}

impl Discordant {
    /// The second's score, less the first's.
    pub fn change(&self) -> f64 {
        self.scores[1] - self.scores[0]
    }
}

impl Side {
    fn of<'a>(answers: impl Iterator<Item = &'a Essence> + Clone) -> Self {
        let mut outcomes = BTreeMap::new();
        for answer in answers.clone() {
            *outcomes.entry(answer.outcome).or_insert(0) += 1;
        }
        // What has failed took no time to answer.
        let whole = answers.filter(|answer| answer.outcome != Outcome::NoAnswer);
        Self {
            outcomes,
            characters: Quantiles::of(whole.clone().map(|answer| answer.characters as f64)),
            tokens: Quantiles::of(
                whole
                    .clone()
                    .filter_map(|answer| Some(answer.tokens? as f64)),
            ),
            first_s: Quantiles::of(whole.clone().filter_map(|answer| answer.first_s)),
            total_s: Quantiles::of(whole.map(|answer| answer.total_s)),
        }
    }

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

/// What would make somebody doubt the numbers.
fn notes(names: &[String; 2], suites: &[SuiteComparison], results: &[Results; 2]) -> Vec<String> {
    let mut notes = Vec::new();
    let [a, b] = results;
    if a.run.program != b.run.program {
        notes.push("The two were run with different versions of this program.".into());
    }
    for suite in suites {
        let suite_name = &suite.suite;
        let settings = [a, b].map(|one| one.run.settings.get(suite_name));
        let different = different(settings);
        if !different.is_empty() {
            let different = different.join(", ");
            notes.push(format!(
                "{suite_name}: the two were run with different settings: {different}."
            ));
        }
        for (name, (side, unpaired)) in names.iter().zip(suite.sides.iter().zip(suite.unpaired)) {
            let failed = side.count(Outcome::NoAnswer);
            if failed > 0 {
                notes.push(format!(
                    "{suite_name}: {name} gave no answer {failed} times, which counts as wrong."
                ));
            }
            if unpaired > 0 {
                notes.push(format!(
                    "{suite_name}: {unpaired} answers of {name} have no partner, and are left out."
                ));
            }
        }
    }
    notes
}

/// Names of settings that are not the same.
fn different(settings: [Option<&Value>; 2]) -> Vec<&str> {
    let fields = settings.map(|settings| settings.and_then(Value::as_object));
    let names = fields.iter().flatten().flat_map(|fields| fields.keys());
    let names: BTreeSet<&String> = names.collect();
    let of = |side: usize, name: &str| fields[side].and_then(|fields| fields.get(name));
    names
        .into_iter()
        .map(String::as_str)
        .filter(|name| of(0, name) != of(1, name))
        .collect()
}

#[cfg(test)]
mod tests;
