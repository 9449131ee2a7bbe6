//! Adds exchanges up to a summary.

use std::collections::BTreeMap;

use serde_json::Value;

use super::agreement::Agreement;
use super::args::ReplayArgs;
use super::asking::{Ending, Exchange, Reply};
use super::log::{BadLines, Fault, told};
use super::summary::{Mean, Rate, Ratio, SHAPE, Shift, Side, Summary};
use crate::compare::Quantiles;
use crate::statistics::paired::{PairedTable, bootstrap, mean};
use crate::statistics::wilson;
use crate::{PROGRAM, QualifyError};

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
    // How far they are from being the same: distances lie between 0 and 1 as well.
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
}

impl Ratio {
    fn of(name: &str, logarithms: &[f64], seed: u64) -> Option<Self> {
        let first = logarithms.first()?;
        // Ratios have no bounds, so that equal ones do not say how far others may be off.
        let differ = logarithms.iter().any(|logarithm| logarithm != first);
        let interval = differ.then(|| {
            let mut interval = bootstrap(logarithms, seed);
            (interval.low, interval.high) = (interval.low.exp(), interval.high.exp());
            interval
        });
        Some(Self {
            name: name.into(),
            value: mean(logarithms).exp(),
            of: logarithms.len() as u64,
            interval,
        })
    }
}
