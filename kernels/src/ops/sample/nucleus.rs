//! The smallest set of most likely tokens that reaches a given weight, when it is large.
//!
//! Weights are summed in narrow buckets of logits, and only the tokens of the bucket in which the
//! target is reached are sorted.

use backstop_types::TokenId;

use super::select::{key, token_of};
use super::weights::Weights;

/// Buckets for each halving of the weight.
const PER_HALVING: f32 = 32.0;
/// Buckets of all weights that are not 0, and one for the rest.
const BUCKETS: usize = 4096;
const LAST_BUCKET: f32 = (BUCKETS - 1) as f32;

/// Memory for the search.
#[derive(Debug, Default)]
pub(super) struct Nucleus {
    /// Bucket of each token.
    buckets: Vec<u16>,
    /// Sum of the weights of each bucket, the most likely first.
    sums: Vec<u64>,
    /// Keys of the tokens in the bucket where the target is reached.
    edge: Vec<u64>,
    /// Tokens that were kept, in ascending order.
    kept: Vec<TokenId>,
}

impl Nucleus {
    /// The tokens, in ascending order of ids, given the logits, the largest of them, and the
    /// weights at this temperature. The target is at most the sum of all weights and not 0.
    pub(super) fn find(
        &mut self,
        logits: &[f32],
        largest: f32,
        temperature: f32,
        weights: &Weights,
        target: u64,
    ) -> &[TokenId] {
        let per_logit = PER_HALVING * std::f32::consts::LOG2_E / temperature;
        let bucket = |logit: &f32| ((largest - logit) * per_logit).min(LAST_BUCKET) as i32 as u16;
        self.buckets.clear();
        self.buckets.extend(logits.iter().map(bucket));
        self.sums.clear();
        self.sums.resize(BUCKETS, 0);
        for (token, &bucket) in (0..).zip(&self.buckets) {
            self.sums[usize::from(bucket)] += weights.of(token);
        }
        let mut rest = target;
        let mut edge = 0;
        while edge + 1 < BUCKETS && self.sums[edge] < rest {
            rest -= self.sums[edge];
            edge += 1;
        }
        let last = self.last_of(edge as u16, logits, weights, rest);
        let last_logit = logits.get(last as usize).copied().unwrap_or(largest);
        self.kept.clear();
        let kept = (0..).zip(logits).filter(|&(token, &logit)| {
            logit > last_logit || (logit == last_logit && token <= last)
        });
        self.kept.extend(kept.map(|(token, _)| token));
        &self.kept
    }

    /// The token of a bucket at which the running sum of the bucket's weights reaches `target`.
    fn last_of(&mut self, bucket: u16, logits: &[f32], weights: &Weights, target: u64) -> TokenId {
        self.edge.clear();
        for (token, (&logit, &of_token)) in (0..).zip(logits.iter().zip(&self.buckets)) {
            if of_token == bucket {
                self.edge.push(key(logit, token));
            }
        }
        self.edge.sort_unstable_by(|a, b| b.cmp(a));
        let sorted = self.edge.iter().map(|&key| token_of(key));
        let count = weights.count_reaching(sorted, target).unwrap_or(1);
        self.edge.get(count - 1).map_or(0, |&key| token_of(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::InstructionSet;
    use crate::ops::sample::weights::share_of;
    use crate::random::random_indices;

    #[test]
    fn the_set_is_that_of_a_sort() {
        let mut nucleus = Nucleus::default();
        for (seed, levels) in [3, 50, 100_000].into_iter().enumerate() {
            let numbers = random_indices(seed as u64, 3000, levels);
            let logits: Vec<f32> = numbers
                .iter()
                .map(|&number| number as f32 * (9.0 / levels as f32))
                .collect();
            let largest = logits.iter().copied().fold(f32::MIN, f32::max);
            let mut weights = Weights::default();
            weights.fill(InstructionSet::detect(), &logits, largest, 0.8, 1e-3);
            let mut sorted: Vec<TokenId> = (0..3000).collect();
            let logit = |token: TokenId| logits[token as usize];
            sorted.sort_by(|&a, &b| logit(b).total_cmp(&logit(a)).then(a.cmp(&b)));
            for share in [0.0, 1e-9, 0.1, 0.5, 0.951, 0.999_999, 1.0] {
                let target = share_of(share, weights.total);
                let mut sum = 0;
                let mut expected: Vec<TokenId> = sorted
                    .iter()
                    .copied()
                    .take_while(|&token| {
                        let kept = sum < target;
                        sum += weights.of(token);
                        kept
                    })
                    .collect();
                expected.sort_unstable();
                let found = nucleus.find(&logits, largest, 0.8, &weights, target);
                assert_eq!(found, expected, "{share}, {levels}");
            }
        }
    }
}
