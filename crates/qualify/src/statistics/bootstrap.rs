//! Intervals of means over tasks, by drawing the tasks again (percentile bootstrap). Seeded: the same values give the same
//! interval.

use crate::random::Random;
use crate::record::Interval;

use super::CONFIDENCE;

const DRAWS: usize = 10_000;

/// Of the mean of values, one for each task. None of fewer than two.
pub fn bootstrap_mean(values: &[f64], seed: u64) -> Option<Interval> {
    if values.len() < 2 {
        return None;
    }
    let mut random = Random::new(seed);
    let mut means: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let sum: f64 = (0..values.len())
                .map(|_| values[random.below(values.len())])
                .sum();
            sum / values.len() as f64
        })
        .collect();
    let (low, high) = percentiles(&mut means, CONFIDENCE)?;
    Some(Interval {
        low,
        high,
        confidence: CONFIDENCE,
        method: "bootstrap".into(),
    })
}

/// The middle of drawn statistics that has this share of them.
pub fn percentiles(draws: &mut [f64], share: f64) -> Option<(f64, f64)> {
    draws.sort_by(f64::total_cmp);
    let at = |quantile: f64| {
        let rank = (quantile * draws.len() as f64).floor() as usize;
        draws.get(rank.min(draws.len().saturating_sub(1))).copied()
    };
    Some((at((1.0 - share) / 2.0)?, at((1.0 + share) / 2.0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_about_as_wide_as_theory_says_and_always_the_same() {
        let values: Vec<f64> = (0..400).map(|index| f64::from(index % 4 == 0)).collect();
        let interval = bootstrap_mean(&values, 7).unwrap();
        assert_eq!(bootstrap_mean(&values, 7).unwrap(), interval);
        // 1.96 standard errors of a rate of a quarter.
        let half = 1.96 * (0.25 * 0.75 / 400.0_f64).sqrt();
        assert!((interval.low - (0.25 - half)).abs() < 0.01, "{interval:?}");
        assert!((interval.high - (0.25 + half)).abs() < 0.01, "{interval:?}");
        assert_ne!(bootstrap_mean(&values, 8).unwrap(), interval);
    }

    #[test]
    fn one_value_has_no_interval() {
        assert_eq!(bootstrap_mean(&[1.0], 0), None);
        assert_eq!(percentiles(&mut [], 0.95), None);
    }
}
