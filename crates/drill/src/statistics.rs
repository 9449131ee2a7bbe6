//! Counts and quantiles of what happened.

use serde::Serialize;

use crate::judgement::{Flaw, Source};
use crate::load::{Phase, Record};

/// Requests of a phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) requests: usize,
    /// Without an answer, or with one that does not end.
    pub(crate) lost: usize,
    pub(crate) from_primary: usize,
    pub(crate) from_fallback: usize,
    /// Begun by the primary and finished by something else.
    pub(crate) continued: usize,
    pub(crate) refused: usize,
    /// Answered by somebody who left no mark.
    pub(crate) from_unknown: usize,
    pub(crate) twice: usize,
    pub(crate) foreign: usize,
    pub(crate) restarted: usize,
    /// Seconds to the end of an answer.
    pub(crate) total_s: Option<Quantiles>,
    /// Seconds to the first token of a stream.
    pub(crate) first_token_s: Option<Quantiles>,
    /// Seconds to the first token of the fallback's answers, those in one piece too.
    pub(crate) fallback_first_token_s: Option<Quantiles>,
}

/// Of at least one value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Quantiles {
    /// By nearest rank.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |hundredths: usize| {
            let rank = (sorted.len() * hundredths).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied()
        };
        Some(Self {
            p50: rank(50)?,
            p99: rank(99)?,
            max: rank(100)?,
        })
    }
}

impl Summary {
    pub(crate) fn of(records: &[Record], phase: Phase) -> Self {
        let records: Vec<&Record> = records
            .iter()
            .filter(|record| record.phase == phase)
            .collect();
        let from = |source| count(&records, |record| record.source == source);
        let flawed = |flaw| count(&records, |record| record.flaws.contains(&flaw));
        let answered = || records.iter().filter(|record| record.lost.is_none());
        let streams = || answered().filter(|record| record.stream);
        let fallbacks = || answered().filter(|record| record.source == Source::Fallback);
        Self {
            requests: records.len(),
            lost: count(&records, |record| record.lost.is_some()),
            from_primary: from(Source::Primary),
            from_fallback: from(Source::Fallback),
            continued: from(Source::Continued),
            refused: from(Source::Refusal),
            from_unknown: from(Source::Unknown),
            twice: flawed(Flaw::Twice),
            foreign: flawed(Flaw::Foreign),
            restarted: flawed(Flaw::Restarted),
            total_s: Quantiles::of(answered().map(|record| record.total_s)),
            first_token_s: Quantiles::of(streams().filter_map(|record| record.first_token_s)),
            fallback_first_token_s: Quantiles::of(fallbacks().map(|record| record.waited_s())),
        }
    }
}

impl Record {
    /// Until a client had something to show.
    pub(crate) fn waited_s(&self) -> f64 {
        self.first_token_s.unwrap_or(self.total_s)
    }
}

fn count(records: &[&Record], holds: impl Fn(&Record) -> bool) -> usize {
    records.iter().filter(|record| holds(record)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let of = |values: &[f64]| Quantiles::of(values.iter().copied());
        assert_eq!(of(&[]), None);
        let one = of(&[2.0]).unwrap();
        assert_eq!((one.p50, one.p99, one.max), (2.0, 2.0, 2.0));
        let hundred: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let many = of(&hundred).unwrap();
        assert_eq!((many.p50, many.p99, many.max), (100.0, 198.0, 200.0));
    }

    #[test]
    fn each_request_is_counted_in_its_phase() {
        let record = |phase, source, lost: Option<&str>| Record {
            at_s: 0.0,
            phase,
            stream: true,
            source,
            lost: lost.map(str::to_owned),
            flaws: vec![Flaw::Twice],
            first_token_s: Some(1.0),
            total_s: 2.0,
            attempts: 1,
        };
        let records = [
            record(Phase::Before, Source::Primary, None),
            record(Phase::During, Source::Fallback, None),
            record(Phase::During, Source::None, Some("503")),
        ];
        let during = Summary::of(&records, Phase::During);
        assert_eq!(
            (
                during.requests,
                during.lost,
                during.from_fallback,
                during.twice
            ),
            (2, 1, 1, 2)
        );
        assert_eq!(during.from_primary, 0);
        assert_eq!(during.fallback_first_token_s.unwrap().max, 1.0);
        assert_eq!(Summary::of(&records, Phase::After), Summary::default());
    }
}
