//! Mean, deviation and percentiles, as numpy computes them by default, since vLLM's benchmark takes them from there.

use serde::{Deserialize, Serialize};

/// How values are spread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many there are.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub median: f64,
    /// Standard deviation of these values, not an estimate of a larger population's.
    pub std: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// In the order in which they were asked for.
    pub percentiles: Vec<Percentile>,
}

/// A percentile.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    /// From 0 to 100.
    pub percent: f64,
    /// Its value.
    pub value: f64,
}

impl Spread {
    /// `None` if there are no values.
    pub fn of(mut values: Vec<f64>, percents: &[f64]) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values
            .iter()
            .map(|value| (value - mean).powi(2))
            .sum::<f64>()
            / count;
        let percentiles = percents.iter().map(|&percent| Percentile {
            percent,
            value: percentile(&values, percent),
        });
        Some(Self {
            count: values.len() as u64,
            mean,
            median: percentile(&values, 50.0),
            std: variance.sqrt(),
            min,
            max,
            percentiles: percentiles.collect(),
        })
    }

    /// A percentile, if it was asked for.
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        let found = self.percentiles.iter().find(|one| one.percent == percent);
        found.map(|one| one.value)
    }
}

/// Of sorted values, interpolated linearly between neighbours; NaN if there are none.
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = (percent / 100.0).clamp(0.0, 1.0) * last as f64;
    let low = place.floor() as usize;
    let high = (low + 1).min(last);
    sorted[low] + (sorted[high] - sorted[low]) * (place - low as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.percentile([1, 2, 4, 8], [50, 90, 99])`, `numpy.std`, `numpy.mean`.
    #[test]
    fn numbers_are_those_of_numpy() {
        let spread = Spread::of(vec![8.0, 1.0, 4.0, 2.0], &[50.0, 90.0, 99.0]).unwrap();
        assert_eq!((spread.count, spread.min, spread.max), (4, 1.0, 8.0));
        let near = |one: f64, other: f64| assert!((one - other).abs() < 1e-9, "{one} {other}");
        near(spread.mean, 3.75);
        near(spread.median, 3.0);
        near(spread.std, 2.680_951_323_690_902);
        near(spread.percentile(90.0).unwrap(), 6.8);
        near(spread.percentile(99.0).unwrap(), 7.88);
        assert_eq!(spread.percentile(95.0), None);
    }

    #[test]
    fn of_nothing_there_is_nothing() {
        assert_eq!(Spread::of(Vec::new(), &[50.0]), None);
        assert!(percentile(&[], 50.0).is_nan());
        assert_eq!(percentile(&[3.0], 99.0), 3.0);
    }
}
