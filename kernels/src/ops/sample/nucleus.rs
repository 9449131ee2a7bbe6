//! The smallest set of most likely tokens that reaches a given weight, when it is large.
//!
//! Weights are counted in narrow buckets, and only those of the bucket in which the target is
//! reached are sorted.

use backstop_types::TokenId;

/// Bits of a weight below those that name its bucket: 32 buckets for each power of two.
const BUCKET_SHIFT: u32 = 18;
/// Buckets of all weights up to 1.
const BUCKETS: usize = (1f32.to_bits() >> BUCKET_SHIFT) as usize + 1;

/// Memory for the search.
#[derive(Debug, Default)]
pub(super) struct Nucleus {
    /// Sum of the weights of each bucket.
    sums: Vec<f64>,
    /// Keys of the tokens in the bucket where the target is reached.
    edge: Vec<u64>,
    /// Tokens that were kept, in ascending order.
    kept: Vec<TokenId>,
}

impl Nucleus {
    /// The tokens, in ascending order of ids, given weights from 0 to 1. Among equal weights,
    /// the smaller id comes first; tokens without weight are never kept.
    pub(super) fn find(&mut self, weights: &[f32], target: f64) -> &[TokenId] {
        self.sums.clear();
        self.sums.resize(BUCKETS, 0.0);
        for &weight in weights {
            self.sums[bucket(weight)] += f64::from(weight);
        }
        let (edge, before) = self.edge_bucket(target);
        self.edge.clear();
        let keys = weights
            .iter()
            .enumerate()
            .filter(|&(_, &weight)| bucket(weight) == edge);
        self.edge
            .extend(keys.map(|(token, &weight)| key(weight, token as TokenId)));
        self.edge.sort_unstable_by(|a, b| b.cmp(a));
        let mut sum = before;
        let mut last = u64::MAX;
        for &key in &self.edge {
            if sum >= target && last != u64::MAX {
                break;
            }
            sum += f64::from(f32::from_bits((key >> 32) as u32));
            last = key;
        }
        self.kept.clear();
        let kept = weights
            .iter()
            .enumerate()
            .filter(|&(token, &weight)| weight > 0.0 && key(weight, token as TokenId) >= last);
        self.kept.extend(kept.map(|(token, _)| token as TokenId));
        &self.kept
    }

    /// The bucket in which the running sum reaches the target, and the sum before it. The last
    /// one with any weight if rounding keeps the sum below.
    fn edge_bucket(&self, target: f64) -> (usize, f64) {
        let mut before = 0.0;
        let mut edge = (BUCKETS - 1, 0.0);
        for (bucket, &sum) in self.sums.iter().enumerate().rev() {
            if sum > 0.0 {
                edge = (bucket, before);
                before += sum;
                if before >= target {
                    break;
                }
            }
        }
        edge
    }
}

fn bucket(weight: f32) -> usize {
    (weight.to_bits() >> BUCKET_SHIFT) as usize
}

/// Orders tokens by weight, equal ones by descending id. Weights are not negative, so that their
/// bits are ordered as they are.
fn key(weight: f32, token: TokenId) -> u64 {
    u64::from(weight.to_bits()) << 32 | u64::from(u32::MAX - token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::random_indices;

    #[test]
    fn the_set_is_that_of_a_sort() {
        let mut nucleus = Nucleus::default();
        for (seed, levels) in [3, 50, 100_000].into_iter().enumerate() {
            let numbers = random_indices(seed as u64, 3000, levels);
            let largest = *numbers.iter().max().unwrap() as f32;
            let weights: Vec<f32> = numbers.iter().map(|&n| n as f32 / largest).collect();
            let mut sorted: Vec<TokenId> = (0..3000).collect();
            sorted.retain(|&token| weights[token as usize] > 0.0);
            let weight = |token: TokenId| weights[token as usize];
            sorted.sort_by(|&a, &b| weight(b).total_cmp(&weight(a)).then(a.cmp(&b)));
            let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            for share in [0.0, 1e-9, 0.1, 0.5, 0.951, 0.999_999] {
                let mut sum = 0.0;
                let mut expected: Vec<TokenId> = sorted
                    .iter()
                    .copied()
                    .take_while(|&token| {
                        let kept = sum == 0.0 || sum < share * total;
                        sum += f64::from(weight(token));
                        kept
                    })
                    .collect();
                expected.sort_unstable();
                assert_eq!(
                    nucleus.find(&weights, share * total),
                    expected,
                    "{share}, {levels}"
                );
            }
        }
        assert_eq!(nucleus.find(&[0.0, 1.0, 0.5], 9.0), [1, 2]);
    }
}
