//! Wilson's interval of a rate: it holds for few trials, and for rates near 0 and 1.

use crate::record::Interval;

use super::CONFIDENCE;

/// The standard normal distribution's quantile at 0.975.
const Z: f64 = 1.959_963_984_540_054;

/// Of `passed` among `count` independent trials. None of none.
pub fn wilson(passed: u64, count: u64) -> Option<Interval> {
    if count == 0 {
        return None;
    }
    let n = count as f64;
    let rate = passed.min(count) as f64 / n;
    let shrink = 1.0 + Z * Z / n;
    let middle = (rate + Z * Z / (2.0 * n)) / shrink;
    let half = Z / shrink * (rate * (1.0 - rate) / n + Z * Z / (4.0 * n * n)).sqrt();
    Some(Interval {
        low: if passed == 0 { 0.0 } else { middle - half },
        high: if passed >= count { 1.0 } else { middle + half },
        confidence: CONFIDENCE,
        method: "wilson".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_textbook_interval() {
        // Solved by hand from (p - rate)^2 = z^2 p (1 - p) / n.
        for (passed, count) in [(1_u64, 10_u64), (81, 263), (50, 100), (163, 164)] {
            let interval = wilson(passed, count).unwrap();
            let rate = passed as f64 / count as f64;
            for end in [interval.low, interval.high] {
                let residue = (end - rate).powi(2) - Z * Z * end * (1.0 - end) / count as f64;
                assert!(residue.abs() < 1e-12, "{passed}/{count}: {residue}");
            }
            assert!(interval.low < rate && rate < interval.high);
        }
        // Newcombe (1998), table I: 81 of 263.
        let interval = wilson(81, 263).unwrap();
        assert_eq!(
            format!("{:.4} {:.4}", interval.low, interval.high),
            "0.2553 0.3662"
        );
    }

    #[test]
    fn nothing_and_all_keep_an_open_end() {
        let none = wilson(0, 20).unwrap();
        assert!(none.low == 0.0 && none.high > 0.1);
        let all = wilson(20, 20).unwrap();
        assert!(all.high == 1.0 && all.low < 0.9);
        assert_eq!(wilson(0, 0), None);
    }
}
