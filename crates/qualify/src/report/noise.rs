//! How much results differ by themselves, as suites that were run several times have measured it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::record::Measure;

const PREFIX: &str = "repeat_";
const SPREAD: &str = "repeat_spread_of_";
const IDENTICAL: &str = "repeat_identical_answers";
const SAME_OUTCOME: &str = "repeat_identical_outcomes";

/// Of one suite.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Noise {
    pub(crate) suite: String,
    pub(crate) runs: u64,
    /// Answers that all runs have.
    pub(crate) answers: u64,
    /// Of these, the share that every run gave to the letter.
    pub(crate) identical: f64,
    /// Of these, the share that was right, or wrong, in every run.
    pub(crate) same_outcome: f64,
    /// By metric: the highest value of a run less the lowest.
    pub(crate) spreads: BTreeMap<String, f64>,
}

impl Noise {
    /// The largest spread of a rate.
    pub(crate) fn spread(&self) -> f64 {
        self.spreads
            .values()
            .copied()
            .filter(|spread| *spread <= 1.0)
            .fold(0.0, f64::max)
    }
}

/// Whether a measure is of noise.
pub(super) fn is_noise(measure: &Measure) -> bool {
    measure.metric.starts_with(PREFIX)
}

/// Of all suites that were run more than once.
pub(super) fn of(measures: &[Measure]) -> Vec<Noise> {
    let mut suites: BTreeMap<&str, Noise> = BTreeMap::new();
    for measure in measures.iter().filter(|measure| is_noise(measure)) {
        let noise = suites.entry(&measure.suite).or_default();
        noise.suite.clone_from(&measure.suite);
        let runs = measure.settings.get("repeats").and_then(Value::as_u64);
        noise.runs = noise.runs.max(runs.unwrap_or_default());
        match measure.metric.as_str() {
            IDENTICAL => (noise.identical, noise.answers) = (measure.value, measure.count),
            SAME_OUTCOME => noise.same_outcome = measure.value,
            other => {
                if let Some(metric) = other.strip_prefix(SPREAD) {
                    noise.spreads.insert(metric.to_owned(), measure.value);
                }
            }
        }
    }
    suites.into_values().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_suites_measured_of_it_is_put_together() {
        let measure = |metric: &str, value: f64| Measure {
            suite: "tools".into(),
            metric: metric.into(),
            value,
            interval: None,
            count: 500,
            samples: 1,
            settings: BTreeMap::from([("repeats".into(), json!(3))]),
            source: "p".into(),
        };
        let measures = [
            measure("right", 0.5),
            measure(IDENTICAL, 0.98),
            measure(SAME_OUTCOME, 0.99),
            measure("repeat_spread_of_right", 0.02),
            measure("repeat_spread_of_wait_s", 4.0),
        ];
        let noise = of(&measures);
        assert_eq!(noise.len(), 1);
        assert_eq!((noise[0].runs, noise[0].answers), (3, 500));
        assert_eq!((noise[0].identical, noise[0].spread()), (0.98, 0.02));
        assert!(of(&measures[..1]).is_empty());
    }
}
