//! Distributions of times that the server reads as well as Prometheus: the client library's own cannot be read back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::histogram::Histogram;

/// A histogram whose counts can be read; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct LatencyHistogram {
    exported: Histogram,
    bounds: &'static [f64],
    /// One for each bound, and one for what is beyond the last.
    counts: Arc<[AtomicU64]>,
}

impl LatencyHistogram {
    /// Counts beside `exported`, which has the same bounds, in seconds.
    pub(super) fn new(exported: Histogram, bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self {
            exported,
            bounds,
            counts,
        }
    }

    pub(crate) fn observe(&self, seconds: f64) {
        self.exported.observe(seconds);
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// What has been counted since the beginning.
    pub(crate) fn counts(&self) -> LatencyCounts {
        let counts = self.counts.iter();
        LatencyCounts {
            bounds: self.bounds,
            counts: counts.map(|count| count.load(Ordering::Relaxed)).collect(),
        }
    }
}

/// A histogram at one moment; by default without a count.
#[derive(Clone, Debug, Default)]
pub(crate) struct LatencyCounts {
    bounds: &'static [f64],
    counts: Vec<u64>,
}

/// What half, and 99 of 100 values do not exceed, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl LatencyCounts {
    /// Quantiles of what was counted since an earlier moment; `None` if nothing was.
    pub(crate) fn since(&self, earlier: &Self) -> Option<Quantiles> {
        let before = earlier.counts.iter().copied().chain(std::iter::repeat(0));
        let counts = self.counts.iter().zip(before);
        let counts: Vec<u64> = counts
            .map(|(now, before)| now.saturating_sub(before))
            .collect();
        Some(Quantiles {
            p50: quantile(self.bounds, &counts, 0.5)?,
            p99: quantile(self.bounds, &counts, 0.99)?,
        })
    }
}

/// As Prometheus' `histogram_quantile` estimates it: values are spread evenly over their bucket, and those beyond the last
/// bound count as that bound.
fn quantile(bounds: &[f64], counts: &[u64], share: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = share * total as f64;
    let (mut below, mut lower) = (0.0, 0.0);
    for (bound, count) in bounds.iter().zip(counts) {
        let count = *count as f64;
        if count > 0.0 && below + count >= rank {
            return Some(lower + (bound - lower) * (rank - below) / count);
        }
        (below, lower) = (below + count, *bound);
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[f64] = &[1.0, 2.0, 4.0];

    fn histogram() -> LatencyHistogram {
        LatencyHistogram::new(Histogram::new(BOUNDS.iter().copied()), BOUNDS)
    }

    #[test]
    fn quantiles_are_those_of_prometheus() {
        // histogram_quantile over the same buckets.
        assert_eq!(quantile(BOUNDS, &[0, 0, 0, 0], 0.5), None);
        assert_eq!(quantile(BOUNDS, &[2, 0, 0, 0], 0.5), Some(0.5));
        assert_eq!(quantile(BOUNDS, &[1, 1, 2, 0], 0.5), Some(2.0));
        assert_eq!(quantile(BOUNDS, &[0, 0, 4, 0], 0.5), Some(3.0));
        assert_eq!(quantile(BOUNDS, &[0, 0, 0, 9], 0.5), Some(4.0));
    }

    #[test]
    fn only_what_came_since_counts() {
        let histogram = histogram();
        (0..100).for_each(|_| histogram.observe(0.5));
        let earlier = histogram.counts();
        assert_eq!(earlier.since(&earlier), None);
        // A value on a bound belongs below it, as in Prometheus.
        (0..100).for_each(|_| histogram.observe(2.0));
        let quantiles = histogram.counts().since(&earlier);
        assert_eq!(
            quantiles,
            Some(Quantiles {
                p50: 1.5,
                p99: 1.99
            })
        );
        // Before there was a model, nothing had been counted.
        assert!(
            histogram
                .counts()
                .since(&LatencyCounts::default())
                .is_some()
        );
    }
}
