//! What the walk over keys and values carries along for each query.

use crate::simd::{LANES_MAX, Program, Simd, load_slice, store_slice};

/// Sizes of the state of several queries.
#[derive(Clone, Copy)]
pub(super) struct StateShape {
    /// Queries, padded.
    pub(super) queries: usize,
    /// Numbers from one query's values to the next one's; `head_dim`, padded.
    pub(super) stride: usize,
}

/// The state, query by query.
pub(super) struct SoftmaxState<'a> {
    /// Largest score so far; minus infinity before the first.
    pub(super) maxima: &'a mut [f32],
    /// Sum of `exp(score - maximum)` so far; 0 before the first score, at least 1 after it.
    pub(super) sums: &'a mut [f32],
    /// Sum of `exp(score - maximum) * value` so far, `[queries, stride]`.
    pub(super) values: &'a mut [f32],
}

impl StateShape {
    pub(super) fn new(queries: usize, head_dim: usize) -> Self {
        Self {
            queries: queries.next_multiple_of(LANES_MAX),
            stride: head_dim.next_multiple_of(LANES_MAX),
        }
    }

    /// Numbers that the state takes.
    pub(super) fn len(self) -> usize {
        self.queries * (self.stride + 2)
    }

    pub(super) fn split_mut(self, state: &mut [f32]) -> SoftmaxState<'_> {
        let (maxima, rest) = state[..self.len()].split_at_mut(self.queries);
        let (sums, values) = rest.split_at_mut(self.queries);
        SoftmaxState {
            maxima,
            sums,
            values,
        }
    }

    /// State of queries that have seen nothing.
    pub(super) fn clear(self, state: &mut [f32]) {
        let state = self.split_mut(state);
        state.maxima.fill(f32::NEG_INFINITY);
        state.sums.fill(0.0);
        state.values.fill(0.0);
    }

    /// `total` as if its queries had then seen what those of `part` have.
    #[inline(always)]
    pub(super) fn merge<S: Simd>(self, simd: S, total: &mut [f32], part: &mut [f32]) {
        let (total, part) = (self.split_mut(total), self.split_mut(part));
        for query in 0..self.queries {
            if part.sums[query] == 0.0 {
                continue;
            }
            let range = query * self.stride..(query + 1) * self.stride;
            let (values, other) = (&mut total.values[range.clone()], &part.values[range]);
            if total.sums[query] == 0.0 {
                total.maxima[query] = part.maxima[query];
                total.sums[query] = part.sums[query];
                values.copy_from_slice(other);
                continue;
            }
            let (a, b) = (total.maxima[query], part.maxima[query]);
            let largest = if b > a { b } else { a };
            let (keep, gain) = ((a - largest).exp(), (b - largest).exp());
            total.maxima[query] = largest;
            total.sums[query] = total.sums[query] * keep + part.sums[query] * gain;
            for (value, other) in values.chunks_mut(S::LANES).zip(other.chunks(S::LANES)) {
                let kept = simd.multiply(load_slice(simd, value), simd.splat(keep));
                let sum = simd.multiply_add(load_slice(simd, other), simd.splat(gain), kept);
                store_slice(simd, value, sum);
            }
        }
    }
}

/// Merges `part` into `total`.
pub(super) struct Merge<'a> {
    pub(super) shape: StateShape,
    pub(super) total: &'a mut [f32],
    pub(super) part: &'a mut [f32],
}

impl Program for Merge<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.shape.merge(simd, self.total, self.part);
    }
}
