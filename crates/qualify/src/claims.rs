//! What the vendor says beside what was measured, and whether that is the same.
//!
//! A claim is one number, mostly without saying how sure it is. Where the number of its tasks is known, both are rates of so
//! many trials, and a two-proportion test decides; otherwise our interval has to contain it. What was measured in another way
//! is not compared at all, and the reason is said.

mod benchmarks;
mod comparability;

use backstop_models::{Claim, ClaimValue};
use serde::Serialize;

use crate::record::{Interval, Measure};
use crate::statistics::{two_proportions, wilson};

use self::benchmarks::Benchmark;
use self::comparability::{Findings, compare};

/// Below it, two rates are held to differ.
pub const SIGNIFICANCE: f64 = 0.05;

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Ours is the same, as far as so many tasks can tell.
    Reproduced,
    /// Ours is lower.
    Lower,
    /// Ours is higher.
    Higher,
    /// Ours was measured in another way.
    NotComparable,
    /// Nothing of ours is of this.
    NotRun,
}

impl Verdict {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Reproduced => "reproduced",
            Self::Lower => "lower",
            Self::Higher => "higher",
            Self::NotComparable => "not comparable",
            Self::NotRun => "not run",
        }
    }
}

/// A claim, and what was measured of it.
#[derive(Clone, Debug, Serialize)]
pub struct ClaimResult {
    /// As the vendor has it.
    #[serde(flatten)]
    pub claim: Claim,
    /// What came of it.
    pub verdict: Verdict,
    /// Why, for people.
    pub reason: String,
    /// What is different, or not known, without making it incomparable.
    pub notes: Vec<String>,
    /// The measurement that is nearest to it.
    pub measured: Option<Measure>,
    /// How likely a difference as large is by chance, where that was computed.
    pub p_value: Option<f64>,
}

impl ClaimResult {
    /// The claimed rate, from 0 to 1.
    pub fn claimed(&self) -> Option<f64> {
        rate(&self.claim)
    }
}

/// What is known of the server that measurements do not say themselves.
#[derive(Clone, Debug, Default)]
pub struct Circumstances {
    /// The format of the weights that were served.
    pub weights: Option<String>,
}

/// Sets every claim beside the measures.
pub fn check(claims: &[Claim], measures: &[Measure], served: &Circumstances) -> Vec<ClaimResult> {
    claims
        .iter()
        .map(|claim| check_one(claim, measures, served))
        .collect()
}

fn check_one(claim: &Claim, measures: &[Measure], served: &Circumstances) -> ClaimResult {
    let result = |verdict, reason: String| ClaimResult {
        claim: claim.clone(),
        verdict,
        reason,
        notes: Vec::new(),
        measured: None,
        p_value: None,
    };
    let (Some(name), Some(claimed)) = (&claim.benchmark, rate(claim)) else {
        return result(
            Verdict::NotRun,
            "no benchmark is named that could be run".into(),
        );
    };
    let benchmark = Benchmark::named(name);
    let of_it: Vec<&Measure> = measures
        .iter()
        .filter(|measure| benchmark.is_of(measure))
        .collect();
    let fitting = nearest(claim, &of_it);
    let Some(measure) = fitting.or(of_it.first().copied()) else {
        return result(Verdict::NotRun, format!("nothing was run of {name}"));
    };
    let findings = compare(claim, &benchmark, measure, served);
    let judged = match findings.obstacles.is_empty() {
        true => judge(claimed, claim.settings.tasks, measure),
        false => Judged::not_comparable(&findings),
    };
    ClaimResult {
        verdict: judged.verdict,
        reason: judged.reason,
        notes: findings.notes,
        measured: Some(measure.clone()),
        p_value: judged.p_value,
        ..result(Verdict::NotRun, String::new())
    }
}

/// Of the measures of a benchmark, that of the claim's metric; of several, that of the most tasks.
fn nearest<'a>(claim: &Claim, measures: &[&'a Measure]) -> Option<&'a Measure> {
    let wanted = claim.metric.as_deref();
    let same = |measure: &&&Measure| {
        wanted.is_none_or(|wanted| comparability::is_same_metric(wanted, &measure.metric))
    };
    let of_metric = measures.iter().filter(same);
    of_metric.copied().max_by_key(|measure| measure.count)
}

struct Judged {
    verdict: Verdict,
    reason: String,
    p_value: Option<f64>,
}

impl Judged {
    fn not_comparable(findings: &Findings) -> Self {
        Self {
            verdict: Verdict::NotComparable,
            reason: findings.obstacles.join("; "),
            p_value: None,
        }
    }
}

fn judge(claimed: f64, tasks: Option<u64>, measure: &Measure) -> Judged {
    let measured = measure.value;
    let interval = interval_of(measure);
    let direction = if measured < claimed {
        Verdict::Lower
    } else {
        Verdict::Higher
    };
    let percent = |value: f64| format!("{:.1} %", value * 100.0);
    let ours = match &interval {
        Some(interval) => format!(
            "{} measured ({} to {})",
            percent(measured),
            percent(interval.low),
            percent(interval.high)
        ),
        None => format!("{} measured", percent(measured)),
    };
    let ours = format!(
        "{} claimed, {ours} of {} tasks",
        percent(claimed),
        measure.count
    );
    let test = tasks.filter(|_| measure.samples == 1);
    if let Some(p_value) =
        test.and_then(|tasks| two_proportions((claimed, tasks), (measured, measure.count)))
    {
        let is_same = p_value >= SIGNIFICANCE;
        return Judged {
            verdict: if is_same {
                Verdict::Reproduced
            } else {
                direction
            },
            reason: format!("{ours}; two-proportion test, p = {}", p_text(p_value)),
            p_value: Some(p_value),
        };
    }
    let Some(interval) = interval else {
        return Judged {
            verdict: Verdict::NotComparable,
            reason: format!("{ours}, without an interval"),
            p_value: None,
        };
    };
    let is_inside = (interval.low..=interval.high).contains(&claimed);
    Judged {
        verdict: if is_inside {
            Verdict::Reproduced
        } else {
            direction
        },
        reason: match is_inside {
            true => format!("{ours}; the interval contains the claim"),
            false => format!("{ours}; the interval does not contain the claim"),
        },
        p_value: None,
    }
}

/// The measure's own, or Wilson's if it is a rate of so many tasks.
fn interval_of(measure: &Measure) -> Option<Interval> {
    let is_rate = measure.samples == 1 && (0.0..=1.0).contains(&measure.value);
    measure.interval.clone().or_else(|| {
        let passed = (measure.value * measure.count as f64).round() as u64;
        is_rate.then(|| wilson(passed, measure.count)).flatten()
    })
}

fn rate(claim: &Claim) -> Option<f64> {
    match (&claim.benchmark, &claim.value) {
        (Some(_), ClaimValue::Number(percent)) => Some(percent / 100.0),
        _ => None,
    }
}

fn p_text(p_value: f64) -> String {
    if p_value < 0.001 {
        return "below 0.001".to_owned();
    }
    format!("{p_value:.3}")
}

#[cfg(test)]
mod tests;
