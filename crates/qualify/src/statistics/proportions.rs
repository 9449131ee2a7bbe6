//! Whether two rates of independent trials differ.

use std::f64::consts::SQRT_2;

/// The two-sided p-value of the pooled two-proportion z-test, of rates with their numbers of trials. None if there are no
/// trials.
pub fn two_proportions(one: (f64, u64), other: (f64, u64)) -> Option<f64> {
    let (n1, n2) = (one.1 as f64, other.1 as f64);
    if n1 == 0.0 || n2 == 0.0 {
        return None;
    }
    let pooled = (one.0 * n1 + other.0 * n2) / (n1 + n2);
    let variance = pooled * (1.0 - pooled) * (1.0 / n1 + 1.0 / n2);
    if variance <= 0.0 {
        // All passed, or none did.
        return Some(1.0);
    }
    let distance = (one.0 - other.0).abs() / variance.sqrt();
    Some(libm::erfc(distance / SQRT_2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_textbook_test() {
        // statsmodels.stats.proportion.proportions_ztest([101, 80], [164, 164]): z = 2.331..., p = 0.0197...
        let p = two_proportions((101.0 / 164.0, 164), (80.0 / 164.0, 164)).unwrap();
        assert!((p - 0.019_7).abs() < 2e-4, "{p}");
        assert_eq!(two_proportions((0.5, 10), (0.5, 30)), Some(1.0));
        assert_eq!(two_proportions((1.0, 10), (1.0, 30)), Some(1.0));
        assert_eq!(two_proportions((1.0, 10), (1.0, 0)), None);
    }
}
