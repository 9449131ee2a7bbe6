//! Two that did the same tasks: whether they differ, and by how much. Differences are the second's value less the first's.

use serde::{Deserialize, Serialize};

use super::{CONFIDENCE, normal, wilson};
use crate::random::Random;
use crate::record::Interval;

/// Resamples of a bootstrap, as long as that takes no more than [`DRAWS_MAX`] draws.
const RESAMPLES: usize = 10_000;
/// Resamples of however many tasks; fewer say little about the ends of an interval.
const RESAMPLES_MIN: usize = 1000;
const DRAWS_MAX: usize = 100_000_000;

/// Tasks that each was right or wrong in, counted by who was right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairedTable {
    /// Both.
    pub both: u64,
    /// The first alone.
    pub only_a: u64,
    /// The second alone.
    pub only_b: u64,
    /// Neither.
    pub neither: u64,
}

/// How likely it is that two who are equally good differ at least this much.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// By the binomial distribution, both sides. Never too small, and often larger than it need be.
    pub exact_p: f64,
    /// With half of the probability of what was seen, which is closer to what its name says (Fagerland and others, 2013).
    pub mid_p: f64,
}

impl PairedTable {
    /// Counts tasks: whether the first was right, and whether the second was.
    pub fn of(tasks: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let mut table = Self::default();
        for (a, b) in tasks {
            let cell = match (a, b) {
                (true, true) => &mut table.both,
                (true, false) => &mut table.only_a,
                (false, true) => &mut table.only_b,
                (false, false) => &mut table.neither,
            };
            *cell += 1;
        }
        table
    }

    /// All tasks.
    pub fn count(&self) -> u64 {
        self.both + self.only_a + self.only_b + self.neither
    }

    /// The second's share of right answers, less the first's.
    pub fn difference(&self) -> f64 {
        (self.only_b as f64 - self.only_a as f64) / self.count().max(1) as f64
    }

    /// McNemar's test, which looks at the tasks that they differ in alone.
    pub fn mcnemar(&self) -> McNemar {
        sign_test(self.only_a, self.only_b)
    }

    /// Newcombe's interval for the difference, from Wilson's for each share and their correlation with a correction for
    /// continuity (Newcombe 1998, method 10). It has a width even if there is no task that they differ in.
    pub fn newcombe(&self) -> Interval {
        let [below_a, above_a] = self.wilson_arms(self.both + self.only_a);
        let [below_b, above_b] = self.wilson_arms(self.both + self.only_b);
        let correlation = self.correlation();
        let arm = |first: f64, second: f64| {
            let square = first * first - 2.0 * correlation * first * second + second * second;
            square.max(0.0).sqrt()
        };
        let difference = self.difference();
        Interval {
            low: (difference - arm(below_b, above_a)).max(-1.0),
            high: (difference + arm(above_b, below_a)).min(1.0),
            confidence: CONFIDENCE,
            method: "Newcombe, paired".into(),
        }
    }

    /// How far Wilson's interval reaches below a share and above it. Nothing is known of none.
    fn wilson_arms(&self, right: u64) -> [f64; 2] {
        let share = right as f64 / self.count().max(1) as f64;
        wilson(right, self.count()).map_or([1.0; 2], |interval| {
            [share - interval.low, interval.high - share]
        })
    }

    fn correlation(&self) -> f64 {
        let [both, only_a, only_b, neither] =
            [self.both, self.only_a, self.only_b, self.neither].map(|cell| cell as f64);
        let margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither);
        if margins == 0.0 {
            return 0.0;
        }
        let product = both * neither - only_a * only_b;
        let half = self.count() as f64 / 2.0;
        let corrected = if product > 0.0 {
            (product - half).max(0.0)
        } else {
            product
        };
        corrected / margins.sqrt()
    }
}

/// How likely it is that a fair coin falls at least this unevenly.
pub fn sign_test(heads: u64, tails: u64) -> McNemar {
    let (count, fewer) = (heads + tails, heads.min(tails));
    if count == 0 {
        return McNemar {
            exact_p: 1.0,
            mid_p: 1.0,
        };
    }
    let ln_ways: f64 = (1..=fewer)
        .map(|number| ((count - fewer + number) as f64 / number as f64).ln())
        .sum();
    let point = (ln_ways - count as f64 * std::f64::consts::LN_2).exp();
    let (mut tail, mut term) = (0.0, point);
    for number in (0..=fewer).rev() {
        tail += term;
        term *= number as f64 / (count - number + 1) as f64;
    }
    if heads == tails {
        return McNemar {
            exact_p: 1.0,
            mid_p: 1.0 - point / 2.0,
        };
    }
    McNemar {
        exact_p: (2.0 * tail).min(1.0),
        mid_p: (2.0 * tail - point).min(1.0),
    }
}

/// An interval for the mean of these differences, one for each task, by drawing tasks again and again; bias-corrected and
/// accelerated (BCa), so that rare large differences count as they should. The same seed gives the same interval.
///
/// If it is the same in every task, drawing says nothing. Then the interval is as wide as the share of tasks that may be
/// otherwise and yet be met by none of so many; differences lie between -1 and 1.
pub fn bootstrap(differences: &[f64], seed: u64) -> Interval {
    let interval = |low: f64, high: f64, method: &str| Interval {
        low,
        high,
        confidence: CONFIDENCE,
        method: method.into(),
    };
    let first = differences.first().copied().unwrap_or(0.0);
    if differences.iter().all(|difference| *difference == first) {
        let unmet = match differences.len() {
            0 => 1.0,
            count => 1.0 - (1.0 - CONFIDENCE).powf(1.0 / count as f64),
        };
        let (low, high) = (first - unmet * (first + 1.0), first + unmet * (1.0 - first));
        return interval(low, high, "the same in every task");
    }
    let mean = mean(differences);
    let means = resampled_means(differences, seed);
    let bias = normal::quantile(share_below(&means, mean));
    let acceleration = acceleration(differences, mean);
    let end = |share: f64| {
        let moved = bias + normal::quantile(share);
        let adjusted = normal::below(bias + moved / (1.0 - acceleration * moved));
        let rank = (adjusted * means.len() as f64).floor() as usize;
        means[rank.min(means.len() - 1)]
    };
    let tail = (1.0 - CONFIDENCE) / 2.0;
    interval(end(tail), end(1.0 - tail), "paired bootstrap (BCa)")
}

/// Their mean; 0 of none.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Means of resamples, sorted.
fn resampled_means(values: &[f64], seed: u64) -> Vec<f64> {
    let mut random = Random::new(seed);
    let count = values.len();
    let resamples = (DRAWS_MAX / count).clamp(RESAMPLES_MIN, RESAMPLES);
    let mut means: Vec<f64> = (0..resamples)
        .map(|_| {
            let sum: f64 = (0..count).map(|_| values[random.below(count)]).sum();
            sum / count as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    means
}

/// The share of sorted values that lie below one, of equal ones half; never nothing and never all.
fn share_below(sorted: &[f64], value: f64) -> f64 {
    // Sums in another order differ in their last bits.
    let slack = value.abs().max(1.0) * 1e-12;
    let below = sorted.partition_point(|other| *other < value - slack);
    let up_to = sorted.partition_point(|other| *other <= value + slack);
    let middle = (below + up_to) as f64 / 2.0;
    middle.clamp(0.5, sorted.len() as f64 - 0.5) / sorted.len() as f64
}

/// How the spread of a mean changes with it: of a mean, the jackknife is its values' skewness.
fn acceleration(values: &[f64], mean: f64) -> f64 {
    let moment = |power: i32| -> f64 {
        let moments = values.iter().map(|value| (value - mean).powi(power));
        moments.sum()
    };
    let squares = moment(2);
    if squares == 0.0 {
        0.0
    } else {
        moment(3) / (6.0 * squares.powf(1.5))
    }
}

#[cfg(test)]
mod tests;
