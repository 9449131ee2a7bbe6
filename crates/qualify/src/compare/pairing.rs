//! Sets a suite's tasks of two beside each other, and counts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::comparison::{DISCORDANT_MAX, Difference, Discordant, Quantiles, Side, SuiteComparison};
use super::results::{Essence, Results, Tasks};
use super::sentence;
use crate::QualifyError;
use crate::record::Outcome;
use crate::statistics::paired::{PairedTable, bootstrap, mean};

/// A task that both were asked: their answers by sample.
pub(super) struct PairedTask<'a> {
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
pub(super) struct Paired<'a> {
    suite: &'a str,
    pub(super) tasks: Vec<PairedTask<'a>>,
    unpaired: [u64; 2],
}

impl<'a> Paired<'a> {
    pub(super) fn of(
        suite: &'a str,
        first: &'a Tasks,
        second: &'a Tasks,
    ) -> Result<Self, QualifyError> {
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

    pub(super) fn compare(&self, names: &[String; 2], seed: u64) -> SuiteComparison {
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
    pub(super) fn of(names: &[String; 2], tasks: &[PairedTask<'_>], seed: u64) -> Self {
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
}

/// What would make somebody doubt the numbers.
pub(super) fn notes(
    names: &[String; 2],
    suites: &[SuiteComparison],
    results: &[Results; 2],
) -> Vec<String> {
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
