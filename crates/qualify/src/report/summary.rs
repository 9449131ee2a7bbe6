//! What a report comes to, in a few sentences for whoever decides.

use serde::Serialize;

use super::cost::Cost;
use super::drill::Drill;
use super::noise::Noise;
use super::speed::Speed;
use crate::claims::{ClaimResult, Verdict as ClaimVerdict};
use crate::conformance::{CheckOutcome, Conformance};

/// What it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// Every claim that could be compared was met, and nothing failed.
    AsClaimed,
    /// Nothing failed, but something could not be compared, was not run, or nothing was claimed.
    OpenPoints,
    /// A claim was not met, or a check failed.
    FallsShort,
}

impl Verdict {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::AsClaimed => "as claimed",
            Self::OpenPoints => "open points",
            Self::FallsShort => "falls short",
        }
    }

    /// In a sentence.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Self::AsClaimed => "Every claim of the vendor was met, and nothing failed.",
            Self::OpenPoints => "Nothing failed, but not everything could be compared, or was run.",
            Self::FallsShort => "A claim of the vendor was measured lower, or a check failed.",
        }
    }

    /// As in-toto's predicate for results of tests has it.
    pub(super) fn result(self) -> &'static str {
        match self {
            Self::AsClaimed => "PASSED",
            Self::OpenPoints => "WARNED",
            Self::FallsShort => "FAILED",
        }
    }
}

/// The verdict, and why.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    pub(super) verdict: Verdict,
    /// One for each part of the report that there is.
    pub(super) findings: Vec<Finding>,
    /// Parts that are missing.
    pub(super) missing: Vec<&'static str>,
}

/// A sentence, and what it means.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    /// Where more about it is: a section of the page.
    pub(super) section: &'static str,
    pub(super) weight: Weight,
    pub(super) sentence: String,
}

/// What a finding means for the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Weight {
    Good,
    Open,
    Bad,
    /// It is told, and decides nothing.
    Neutral,
}

/// The parts of a report that a summary is of.
pub(super) struct Parts<'a> {
    pub(super) claims: &'a [ClaimResult],
    pub(super) noise: &'a [Noise],
    pub(super) speed: Option<&'a Speed>,
    pub(super) conformance: Option<&'a Conformance>,
    pub(super) drill: Option<&'a Drill>,
    pub(super) cost: Option<&'a Cost>,
}

impl Summary {
    pub(super) fn of(parts: &Parts<'_>) -> Self {
        let mut findings = vec![claims(parts.claims)];
        findings.extend(noise(parts.noise));
        findings.extend(parts.speed.map(speed));
        findings.extend(parts.conformance.map(conformance));
        findings.extend(parts.drill.map(drill));
        findings.extend(parts.cost.map(cost));
        let has = |weight| findings.iter().any(|finding| finding.weight == weight);
        let verdict = match (has(Weight::Bad), has(Weight::Open)) {
            (true, _) => Verdict::FallsShort,
            (false, true) => Verdict::OpenPoints,
            (false, false) => Verdict::AsClaimed,
        };
        let parts = [
            (
                parts.noise.is_empty(),
                "self-noise (run suites with --repeat)",
            ),
            (parts.speed.is_none(), "speed under load (--bench)"),
            (
                parts.conformance.is_none(),
                "gateway conformance (backstop-qualify conformance)",
            ),
            (parts.drill.is_none(), "a blackout drill (--drill)"),
            (parts.cost.is_none(), "cost (--bench and --hourly-cost)"),
        ];
        Self {
            verdict,
            findings,
            missing: parts
                .iter()
                .filter(|part| part.0)
                .map(|part| part.1)
                .collect(),
        }
    }
}

fn finding(section: &'static str, weight: Weight, sentence: String) -> Finding {
    Finding {
        section,
        weight,
        sentence,
    }
}

fn claims(claims: &[ClaimResult]) -> Finding {
    if claims.is_empty() {
        let sentence = "No claims of the vendor were given to compare with.".to_owned();
        return finding("claims", Weight::Open, sentence);
    }
    let count = |verdict| {
        claims
            .iter()
            .filter(|claim| claim.verdict == verdict)
            .count()
    };
    let named = |verdict| {
        let names = claims.iter().filter(|claim| claim.verdict == verdict);
        names
            .map(|claim| claim.claim.name.as_str())
            .collect::<Vec<_>>()
            .join("; ")
    };
    let met = count(ClaimVerdict::Reproduced) + count(ClaimVerdict::Higher);
    let lower = count(ClaimVerdict::Lower);
    let open = count(ClaimVerdict::NotComparable) + count(ClaimVerdict::NotRun);
    let mut sentence = format!("{met} of {} claims of the vendor were met", claims.len());
    if lower > 0 {
        sentence += &format!("; {lower} measured lower ({})", named(ClaimVerdict::Lower));
    }
    if open > 0 {
        sentence += &format!("; {open} not comparable, or not run");
    }
    let weight = match (lower, open) {
        (0, 0) => Weight::Good,
        (0, _) => Weight::Open,
        _ => Weight::Bad,
    };
    finding("claims", weight, sentence + ".")
}

fn noise(noise: &[Noise]) -> Option<Finding> {
    let spread = noise.iter().map(Noise::spread).reduce(f64::max)?;
    let answers: u64 = noise.iter().map(|noise| noise.answers).sum();
    let least = noise
        .iter()
        .map(|noise| noise.identical)
        .fold(1.0, f64::min);
    let sentence = match least >= 1.0 {
        true => format!(
            "Asked again, it gave all {answers} answers to the letter: scores have no noise of their own."
        ),
        false => format!(
            "Asked again, it gave {:.1} % of its answers to the letter; scores moved by up to {:.1} points.",
            least * 100.0,
            spread * 100.0
        ),
    };
    Some(finding("noise", Weight::Neutral, sentence))
}

fn speed(speed: &Speed) -> Finding {
    let number = backstop_pages::number;
    let mut sentence = match speed.best() {
        Some(best) => {
            let tokens = best.output_tokens_per_s.map_or("–".into(), number);
            format!(
                "It writes up to {tokens} tokens a second, with {}",
                best.load_text()
            )
        }
        None => "No load was served without errors".to_owned(),
    };
    match speed.sheds_from() {
        Some(shed) => sentence += &format!("; it refuses requests from {} on.", shed.load_text()),
        None => sentence += "; no load that was tried made it refuse requests.",
    }
    finding("speed", Weight::Neutral, sentence)
}

fn conformance(conformance: &Conformance) -> Finding {
    let [passed, failed, open] = [
        CheckOutcome::Passed,
        CheckOutcome::Failed,
        CheckOutcome::NotTried,
    ]
    .map(|outcome| conformance.count(outcome));
    let mut sentence = format!(
        "{passed} of {} behaviours that gateways rely on were seen",
        passed + failed
    );
    if open > 0 {
        sentence += &format!("; {open} could not be tried");
    }
    let weight = if failed == 0 {
        Weight::Good
    } else {
        Weight::Bad
    };
    finding("conformance", weight, sentence + ".")
}

fn drill(drill: &Drill) -> Finding {
    let (passed, failed) = (drill.count("passed"), drill.count("failed"));
    let mut sentence = format!(
        "In a blackout drill, {passed} of {} failures of the primary were caught",
        passed + failed
    );
    let open = drill.failures.len() - passed - failed;
    if open > 0 {
        sentence += &format!("; {open} not rehearsed");
    }
    let weight = if failed == 0 && passed > 0 {
        Weight::Good
    } else {
        Weight::Bad
    };
    finding("drill", weight, sentence + ".")
}

fn cost(cost: &Cost) -> Finding {
    let sentence = format!(
        "At {} {} an hour and full load, a million tokens of answers cost {} {}.",
        cost.hourly,
        cost.currency,
        backstop_pages::number(cost.per_million_output_tokens),
        cost.currency
    );
    finding("decision", Weight::Neutral, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(conformance: Option<&Conformance>) -> Summary {
        Summary::of(&Parts {
            claims: &[],
            noise: &[],
            speed: None,
            conformance,
            drill: None,
            cost: None,
        })
    }

    #[test]
    fn what_failed_outweighs_what_is_open_and_what_is_missing_is_named() {
        let bare = of(None);
        assert_eq!((bare.verdict, bare.missing.len()), (Verdict::OpenPoints, 5));
        let check = |outcome| crate::conformance::Check {
            name: "n".into(),
            expected: "e".into(),
            outcome,
            seen: "s".into(),
        };
        let mut conformance = Conformance {
            program: "p".into(),
            url: "u".into(),
            model: "m".into(),
            checks: vec![check(CheckOutcome::Passed), check(CheckOutcome::Failed)],
        };
        assert_eq!(of(Some(&conformance)).verdict, Verdict::FallsShort);
        conformance.checks.pop();
        let summary = of(Some(&conformance));
        assert_eq!(
            (summary.verdict, summary.missing.len()),
            (Verdict::OpenPoints, 4)
        );
    }
}
