//! What comes of all exchanges of a replay.

use std::collections::BTreeMap;

use backstop_client::FailureKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::asking::Ending;
use super::log::{BadLines, Fault};
use crate::compare::Quantiles;
use crate::record::{Interval, Measure};
use crate::statistics::paired::{McNemar, PairedTable};

/// The shape of the JSON; a change that readers would notice makes it another number.
pub(super) const SHAPE: u32 = 1;

/// A replay. Everything that is there twice has the first in front.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// 1.
    pub shape: u32,
    /// This program, `NAME VERSION`.
    pub program: String,
    /// What the two are called here.
    pub names: [String; 2],
    /// Their addresses.
    pub urls: [String; 2],
    /// Their models.
    pub models: [String; 2],
    /// How they were asked.
    pub settings: BTreeMap<String, Value>,
    /// It, for people.
    pub sentence: String,
    /// Chats that were asked.
    pub requests: u64,
    /// Lines that are no chats, by why.
    pub bad_lines: BTreeMap<Fault, BadLines>,
    /// How each answered.
    pub sides: [Side; 2],
    /// How often the two agree.
    pub agreement: Vec<Rate>,
    /// How often the first agrees with itself, if it was asked twice.
    pub repeated: Vec<Rate>,
    /// How similar texts are, on average.
    pub text_similarity: Option<Mean>,
    /// The same of the first's two answers.
    pub repeated_text_similarity: Option<Mean>,
    /// What one does more often than the other.
    pub shifts: Vec<Shift>,
    /// How many times as much of something the second has, as a geometric mean.
    pub ratios: Vec<Ratio>,
}

/// How one answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// What became of how many requests.
    pub endings: BTreeMap<Ending, u64>,
    /// Failures by kind.
    pub failures: BTreeMap<FailureKind, u64>,
    /// Answers by why they ended.
    pub finish_reasons: BTreeMap<String, u64>,
    /// Lengths of whole answers, in characters.
    pub characters: Option<Quantiles>,
    /// In tokens, as it counts them.
    pub tokens: Option<Quantiles>,
    /// Seconds to the first piece.
    pub first_s: Option<Quantiles>,
    /// Seconds to the end.
    pub total_s: Option<Quantiles>,
}

/// How often something is so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// `tool_names` ...
    pub name: String,
    /// So often.
    pub agreed: u64,
    /// Of so many.
    pub of: u64,
    /// How sure that is.
    pub interval: Option<Interval>,
}

/// A mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// It.
    pub value: f64,
    /// Of so many.
    pub of: u64,
    /// How sure it is.
    pub interval: Interval,
}

/// Something that is so for one and not for the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shift {
    /// `answered`, `tools_called`, `json_valid`.
    pub name: String,
    /// For whom.
    pub table: PairedTable,
    /// The second's share, less the first's.
    pub difference: f64,
    /// How sure that is.
    pub interval: Interval,
    /// How likely it is by chance.
    pub mcnemar: McNemar,
}

/// How many times as much the second has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// `characters`, `first_s`, `total_s`.
    pub name: String,
    /// So many times.
    pub value: f64,
    /// Of so many requests.
    pub of: u64,
    /// How sure that is, if they are not all the same.
    pub interval: Option<Interval>,
}

impl Side {
    /// How many requests ended so.
    pub fn count(&self, ending: Ending) -> u64 {
        self.endings.get(&ending).copied().unwrap_or_default()
    }
}

impl Rate {
    /// As a fraction.
    pub fn share(&self) -> f64 {
        self.agreed as f64 / self.of.max(1) as f64
    }
}

impl Shift {
    /// Each one's share.
    pub fn shares(&self) -> [f64; 2] {
        let table = &self.table;
        [table.only_a, table.only_b]
            .map(|only| (table.both + only) as f64 / table.count().max(1) as f64)
    }
}

impl Summary {
    /// How often the two agree in something.
    pub fn rate(&self, name: &str) -> Option<&Rate> {
        self.agreement.iter().find(|rate| rate.name == name)
    }

    /// It, for people.
    pub(super) fn sentence(&self) -> String {
        let [a, b] = &self.names;
        let mut parts = Vec::new();
        let mut tell = |name: &str, text: &str| {
            if let Some(rate) = self.rate(name) {
                parts.push(format!("{text} in {} of {}", share(rate), rate.of));
            }
        };
        tell("tool_trigger", "calls tools, or none, as it does");
        tell(
            "tool_arguments",
            "calls the same tools with the same arguments where both call",
        );
        tell("json_values", "gives the same JSON where both give some");
        tell("finish_reason", "ends for the same reason");
        tell("same_answer", "says the same to the letter");
        let failed = |side: usize| self.sides[side].count(Ending::Failed);
        let failures = match (failed(0), failed(1)) {
            (0, 0) => String::new(),
            (first, second) => format!("; failed requests: {a} {first}, {b} {second}"),
        };
        if parts.is_empty() {
            return format!(
                "On {} requests of the log, there is none that both {a} and {b} answered{failures}.",
                self.requests
            );
        }
        format!(
            "On {} requests of the log, compared with {a}, {b} {}{failures}.",
            self.requests,
            parts.join(", ")
        )
    }

    /// The numbers for a report.
    pub(crate) fn measures(&self) -> Vec<Measure> {
        let mut settings = self.settings.clone();
        for (side, letter) in ["a", "b"].into_iter().enumerate() {
            settings.insert(letter.into(), self.names[side].clone().into());
            settings.insert(format!("model_{letter}"), self.models[side].clone().into());
        }
        let measure =
            |metric: String, value: f64, interval: Option<Interval>, count: u64| Measure {
                suite: "replay".into(),
                metric,
                value,
                interval,
                count,
                samples: 1,
                settings: settings.clone(),
                source: self.program.clone(),
            };
        let rates = self.agreement.iter().map(|rate| {
            let name = format!("{}_agreement", rate.name);
            measure(name, rate.share(), rate.interval.clone(), rate.of)
        });
        let similarity = self.text_similarity.iter().map(|mean| {
            measure(
                "text_similarity".into(),
                mean.value,
                Some(mean.interval.clone()),
                mean.of,
            )
        });
        let shifts = self.shifts.iter().map(|shift| {
            let name = format!("{}_difference", shift.name);
            measure(
                name,
                shift.difference,
                Some(shift.interval.clone()),
                shift.table.count(),
            )
        });
        let ratios = self.ratios.iter().map(|ratio| {
            let name = format!("{}_ratio", ratio.name);
            measure(name, ratio.value, ratio.interval.clone(), ratio.of)
        });
        rates
            .chain(similarity)
            .chain(shifts)
            .chain(ratios)
            .collect()
    }
}

/// `91.2 % (86.1 to 94.6)`.
pub(super) fn share(rate: &Rate) -> String {
    let percent = |fraction: f64| format!("{:.1}", fraction * 100.0);
    let interval = rate
        .interval
        .as_ref()
        .map(|interval| format!(" ({} to {})", percent(interval.low), percent(interval.high)));
    format!(
        "{} %{}",
        percent(rate.share()),
        interval.unwrap_or_default()
    )
}
