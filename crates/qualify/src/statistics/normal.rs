//! The normal distribution.

use std::f64::consts::SQRT_2;

/// Halvings of an interval, after which nothing is left of it in a double.
const HALVINGS: u32 = 64;
/// Beyond it lies less than 1e-15.
const FARTHEST: f64 = 8.0;

/// How much of it lies below `value`.
pub(crate) fn below(value: f64) -> f64 {
    0.5 * libm::erfc(-value / SQRT_2)
}

/// Below which value this share of it lies.
pub(crate) fn quantile(share: f64) -> f64 {
    let (mut low, mut high) = (-FARTHEST, FARTHEST);
    for _ in 0..HALVINGS {
        let middle = low.midpoint(high);
        if below(middle) < share {
            low = middle;
        } else {
            high = middle;
        }
    }
    low.midpoint(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_tables_have() {
        for (value, share) in [
            (0.0, 0.5),
            (1.0, 0.841_344_746_068_542_9),
            (-1.959_963_984_540_054, 0.025),
        ] {
            assert!((below(value) - share).abs() < 1e-15, "{value}");
            assert!((quantile(share) - value).abs() < 1e-12, "{value}");
        }
    }
}
