//! How values are distributed: shares up to each value, and counts in bins.

/// Points of a curve; more would lie on one another.
const POINTS_MAX: usize = 400;

/// The share of values that are at most as large, for [`Layer::Steps`](crate::Layer::Steps).
pub fn cumulative(values: &[f64]) -> Vec<(f64, f64)> {
    let sorted = sorted(values);
    let count = sorted.len();
    let stride = count.div_ceil(POINTS_MAX).max(1);
    let shown = (0..count).filter(|rank| (rank + 1) % stride == 0 || rank + 1 == count);
    shown
        .map(|rank| (sorted[rank], (rank + 1) as f64 / count as f64))
        .collect()
}

/// From, to, and how many values are between, for [`Layer::Bars`](crate::Layer::Bars); all bins are equally wide.
pub fn histogram(values: &[f64], bins: usize) -> Vec<(f64, f64, f64)> {
    let sorted = sorted(values);
    let (Some(&low), Some(&high)) = (sorted.first(), sorted.last()) else {
        return Vec::new();
    };
    let bins = bins.clamp(1, POINTS_MAX);
    let width = match (high - low) / bins as f64 {
        width if width > 0.0 => width,
        _ => 1.0,
    };
    let mut counts = vec![0.0; bins];
    for value in sorted {
        counts[(((value - low) / width) as usize).min(bins - 1)] += 1.0;
    }
    let bar = |(bin, count)| {
        let from = low + bin as f64 * width;
        (from, from + width, count)
    };
    counts.into_iter().enumerate().map(bar).collect()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = values
        .iter()
        .copied()
        .filter(|value| value.is_finite())
        .collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_counted_once() {
        let values: Vec<f64> = (0..1000).map(f64::from).chain([f64::NAN]).collect();
        let bars = histogram(&values, 7);
        assert_eq!(bars.len(), 7);
        assert_eq!(bars.iter().map(|bar| bar.2).sum::<f64>(), 1000.0);
        let curve = cumulative(&values);
        assert!(curve.len() <= POINTS_MAX && curve.last() == Some(&(999.0, 1.0)));
        assert!(curve.windows(2).all(|pair| pair[0].1 < pair[1].1));
        assert!(cumulative(&[]).is_empty() && histogram(&[], 3).is_empty());
        assert_eq!(histogram(&[2.0, 2.0], 1), [(2.0, 3.0, 2.0)]);
    }
}
