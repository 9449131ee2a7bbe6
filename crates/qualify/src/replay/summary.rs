//! What comes of all exchanges of a replay.

use std::collections::BTreeMap;

use backstop_client::FailureKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::agreement::Agreement;
use super::args::ReplayArgs;
use super::asking::{Ending, Exchange, Reply};
use super::log::{BadLines, Fault};
use crate::compare::Quantiles;
use crate::record::{Interval, Measure};
use crate::statistics::paired::{McNemar, PairedTable, bootstrap, mean};
use crate::statistics::wilson;
use crate::{PROGRAM, QualifyError};

/// The shape of the JSON; a change that readers would notice makes it another number.
const SHAPE: u32 = 1;

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
    /// How sure that is.
    pub interval: Interval,
}

/// What is kept of exchanges until the end: no contents.
#[derive(Default)]
pub(crate) struct Sums {
    exchanges: Vec<Exchange>,
}

type Of<T> = fn(&Agreement) -> Option<T>;
/// Whether something is so, for each of the two.
type OfBoth = fn(&Exchange) -> Option<[bool; 2]>;
/// How much of something an answer has.
type Amount = fn(&Reply) -> Option<f64>;

/// What answers can agree in.
const RATES: [(&str, Of<bool>); 7] = [
    ("same_answer", |agreement| Some(agreement.same_answer)),
    ("finish_reason", |agreement| {
        Some(agreement.same_finish_reason)
    }),
    ("tool_trigger", |agreement| {
        let [a, b] = agreement.tools.as_ref()?.called;
        Some(a == b)
    }),
    ("tool_names", |agreement| {
        agreement.tools.as_ref()?.same_names
    }),
    ("tool_arguments", |agreement| {
        agreement.tools.as_ref()?.same_arguments
    }),
    ("json_keys", |agreement| agreement.json.as_ref()?.same_keys),
    ("json_values", |agreement| {
        agreement.json.as_ref()?.same_values
    }),
];

impl Sums {
    pub(crate) fn add(&mut self, mut exchange: Exchange) {
        exchange.kept = None;
        self.exchanges.push(exchange);
    }

    pub(crate) fn count(&self) -> u64 {
        self.exchanges.len() as u64
    }

    pub(crate) fn summary(
        &self,
        args: &ReplayArgs,
        bad_lines: BTreeMap<Fault, BadLines>,
    ) -> Result<Summary, QualifyError> {
        if self.exchanges.is_empty() {
            let bad: u64 = bad_lines.values().map(|bad| bad.count).sum();
            return Err(QualifyError::at(
                &args.log,
                format!(
                    "it has no chats; {bad} lines are something else: {}",
                    told(&bad_lines)
                ),
            ));
        }
        let agreements = || {
            self.exchanges
                .iter()
                .filter_map(|exchange| exchange.agreement.as_ref())
        };
        let repeated = || {
            self.exchanges
                .iter()
                .filter_map(|exchange| exchange.repeated.as_ref())
        };
        let seed = u64::from(args.seed);
        let servers = &args.servers;
        let mut summary = Summary {
            shape: SHAPE,
            program: PROGRAM.into(),
            names: args.names.0.clone(),
            urls: [servers.url_a.clone(), servers.url_b.clone()],
            models: [servers.model_a.clone(), servers.model_b.clone()],
            settings: settings(args),
            sentence: String::new(),
            requests: self.count(),
            bad_lines,
            sides: [0, 1].map(|side| {
                Side::of(
                    self.exchanges
                        .iter()
                        .map(|exchange| &exchange.replies[side]),
                )
            }),
            agreement: rates(agreements),
            repeated: rates(repeated),
            text_similarity: similarity(agreements(), seed),
            repeated_text_similarity: similarity(repeated(), seed),
            shifts: self.shifts(),
            ratios: self.ratios(seed),
        };
        summary.sentence = summary.sentence();
        Ok(summary)
    }

    fn shifts(&self) -> Vec<Shift> {
        let tools = |exchange: &Exchange| Some(exchange.agreement.as_ref()?.tools.as_ref()?.called);
        let json = |exchange: &Exchange| Some(exchange.agreement.as_ref()?.json.as_ref()?.valid);
        let answered = |exchange: &Exchange| {
            let answered = |reply: &Reply| reply.ending == Ending::Answered;
            let [a, b] = &exchange.replies;
            Some([answered(a), answered(b)])
        };
        let all: [(&str, OfBoth); 3] = [
            ("answered", answered),
            ("tools_called", tools),
            ("json_valid", json),
        ];
        all.into_iter()
            .filter_map(|(name, of)| {
                let pairs = self.exchanges.iter().filter_map(of);
                Shift::of(name, PairedTable::of(pairs.map(|[a, b]| (a, b))))
            })
            .collect()
    }

    /// Of whole answers alone: what has failed took no time, or all of it.
    fn ratios(&self, seed: u64) -> Vec<Ratio> {
        let all: [(&str, Amount); 3] = [
            ("characters", |reply| Some(reply.characters as f64)),
            ("first_s", |reply| reply.first_s),
            ("total_s", |reply| Some(reply.total_s)),
        ];
        all.into_iter()
            .filter_map(|(name, of)| {
                let whole = self
                    .exchanges
                    .iter()
                    .filter(|exchange| exchange.agreement.is_some());
                let logarithms = whole.filter_map(|exchange| {
                    let [a, b] = [0, 1].map(|side| of(&exchange.replies[side]));
                    let ratio = (b? / a?).ln();
                    ratio.is_finite().then_some(ratio)
                });
                Ratio::of(name, &logarithms.collect::<Vec<f64>>(), seed)
            })
            .collect()
    }
}

fn settings(args: &ReplayArgs) -> BTreeMap<String, Value> {
    let settings: [(&str, Value); 5] = [
        ("as_logged", args.as_logged.into()),
        ("concurrency", args.servers.concurrency.into()),
        ("limit", args.limit.into()),
        ("max_tokens", args.max_tokens.into()),
        ("seed", args.seed.into()),
    ];
    settings
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

/// Lines that are no chats, for people.
pub(super) fn told(bad: &BTreeMap<Fault, BadLines>) -> String {
    let told: Vec<String> = bad
        .iter()
        .map(|(fault, bad)| {
            let lines: Vec<String> = bad.lines.iter().map(u64::to_string).collect();
            let more = if bad.count > bad.lines.len() as u64 {
                ", …"
            } else {
                ""
            };
            format!(
                "{} {} (line {}{more})",
                bad.count,
                fault.text(),
                lines.join(", ")
            )
        })
        .collect();
    told.join("; ")
}

impl Fault {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::TooLong => "too long",
            Self::NoJson => "no JSON",
            Self::AnotherKind => "of another kind than chats",
            Self::Redacted => "without their messages, which the gateway was told not to log",
            Self::NoMessages => "without messages",
        }
    }
}

fn rates<'a, I: Iterator<Item = &'a Agreement>>(agreements: impl Fn() -> I) -> Vec<Rate> {
    let rates = RATES.iter().map(|(name, of)| {
        let (mut agreed, mut count) = (0, 0);
        for holds in agreements().filter_map(of) {
            agreed += u64::from(holds);
            count += 1;
        }
        Rate {
            name: (*name).into(),
            agreed,
            of: count,
            interval: wilson(agreed, count),
        }
    });
    rates.filter(|rate| rate.of > 0).collect()
}

fn similarity<'a>(agreements: impl Iterator<Item = &'a Agreement>, seed: u64) -> Option<Mean> {
    let values: Vec<f64> = agreements
        .filter_map(|agreement| agreement.text_similarity)
        .collect();
    if values.is_empty() {
        return None;
    }
    // How far they are from being the same: a bootstrap of nothing but zeros knows that it knows little.
    let distances: Vec<f64> = values.iter().map(|value| 1.0 - value).collect();
    let mut interval = bootstrap(&distances, seed);
    (interval.low, interval.high) = (
        (1.0 - interval.high).max(0.0),
        (1.0 - interval.low).min(1.0),
    );
    Some(Mean {
        value: mean(&values),
        of: values.len() as u64,
        interval,
    })
}

impl Side {
    fn of<'a>(replies: impl Iterator<Item = &'a Reply> + Clone) -> Self {
        let mut side = Self {
            endings: BTreeMap::new(),
            failures: BTreeMap::new(),
            finish_reasons: BTreeMap::new(),
            characters: None,
            tokens: None,
            first_s: None,
            total_s: None,
        };
        for reply in replies.clone() {
            *side.endings.entry(reply.ending).or_default() += 1;
            if let Some(kind) = reply.failure {
                *side.failures.entry(kind).or_default() += 1;
            } else if let Some(reason) = &reply.finish_reason {
                *side.finish_reasons.entry(reason.clone()).or_default() += 1;
            }
        }
        let whole = replies.filter(|reply| reply.ending != Ending::Failed);
        side.characters = Quantiles::of(whole.clone().map(|reply| reply.characters as f64));
        side.tokens = Quantiles::of(whole.clone().filter_map(|reply| Some(reply.tokens? as f64)));
        side.first_s = Quantiles::of(whole.clone().filter_map(|reply| reply.first_s));
        side.total_s = Quantiles::of(whole.map(|reply| reply.total_s));
        side
    }

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
    fn of(name: &str, table: PairedTable) -> Option<Self> {
        (table.count() > 0).then(|| Self {
            name: name.into(),
            difference: table.difference(),
            interval: table.newcombe(),
            mcnemar: table.mcnemar(),
            table,
        })
    }

    /// Each one's share.
    pub fn shares(&self) -> [f64; 2] {
        let table = &self.table;
        [table.only_a, table.only_b]
            .map(|only| (table.both + only) as f64 / table.count().max(1) as f64)
    }
}

impl Ratio {
    fn of(name: &str, logarithms: &[f64], seed: u64) -> Option<Self> {
        if logarithms.is_empty() {
            return None;
        }
        let mut interval = bootstrap(logarithms, seed);
        if logarithms.iter().all(|logarithm| *logarithm == 0.0) {
            // A ratio has no bound that would say how far others may be off.
            (interval.low, interval.high) = (0.0, 0.0);
        }
        (interval.low, interval.high) = (interval.low.exp(), interval.high.exp());
        Some(Self {
            name: name.into(),
            value: mean(logarithms).exp(),
            of: logarithms.len() as u64,
            interval,
        })
    }
}

impl Summary {
    /// How often the two agree in something.
    pub fn rate(&self, name: &str) -> Option<&Rate> {
        self.agreement.iter().find(|rate| rate.name == name)
    }

    fn sentence(&self) -> String {
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
            (first, second) => format!("; {a} failed {first} times, {b} {second} times"),
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
            measure(name, ratio.value, Some(ratio.interval.clone()), ratio.of)
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
