//! Comparisons of the model's answer with the recorded one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::ring::Ring;

/// Results that are kept.
const RESULTS_MAX: usize = 200;

/// How one comparison with the recorded answer ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CanaryResult {
    /// When it ended.
    pub at: SystemTime,
    /// The answer was the recorded one, within its tolerance.
    pub passed: bool,
    /// How long it took.
    pub took: Duration,
    /// The largest absolute difference of a token's log-probability (natural logarithm) from the recorded one; `None` if
    /// the tokens could not be compared.
    pub difference: Option<f32>,
}

/// What canaries have shown since the process began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CanaryTotals {
    pub(crate) runs: u64,
    pub(crate) failures: u64,
    /// Whether the latest one passed.
    pub(crate) passed: Option<bool>,
    pub(crate) last_passed: Option<SystemTime>,
}

/// The latest results, and totals over all.
#[derive(Debug, Default)]
pub(crate) struct CanaryHistory {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    results: Ring<CanaryResult, RESULTS_MAX>,
    totals: CanaryTotals,
}

impl CanaryHistory {
    pub(super) fn record(&self, result: CanaryResult) {
        let mut inner = self.lock();
        let totals = &mut inner.totals;
        totals.runs += 1;
        totals.passed = Some(result.passed);
        match result.passed {
            true => totals.last_passed = Some(result.at),
            false => totals.failures += 1,
        }
        inner.results.push(result);
    }

    pub(crate) fn totals(&self) -> CanaryTotals {
        self.lock().totals
    }

    /// The latest results, oldest first.
    pub(super) fn results(&self) -> Vec<CanaryResult> {
        self.lock().results.iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_outlive_the_results() {
        let history = CanaryHistory::default();
        let result = |second, passed| CanaryResult {
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
            passed,
            took: Duration::from_millis(20),
            difference: passed.then_some(0.001),
        };
        (1..=250).for_each(|second| history.record(result(second, second > 10)));
        history.record(result(251, false));
        let totals = history.totals();
        assert_eq!((totals.runs, totals.failures), (251, 11));
        assert_eq!(totals.passed, Some(false));
        assert_eq!(totals.last_passed, Some(result(250, true).at));
        let results = history.results();
        assert_eq!(
            (results.len(), results[199]),
            (RESULTS_MAX, result(251, false))
        );
    }
}
