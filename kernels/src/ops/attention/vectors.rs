//! Attention in f32, of keys and values of any format that are widened a tile at a time.

use std::marker::PhantomData;
use std::ops::Range;

use super::TILE;
use super::state::{SoftmaxState, StateShape};
use super::walk::{TileArithmetic, Walker};
use crate::simd::{Format, Simd, Strided, load_slice, store_slice, widen_rows};

/// Most queries of one register tile: 24 sums of 32 vector registers.
const TILE_QUERIES: usize = 6;
/// Vectors of one register tile, along positions or along a head.
const TILE_VECTORS: usize = 4;

/// Memory of a walk over keys and values that are stored as `F`.
pub(super) struct Vectors<'a, F> {
    /// Keys `[head_dim, TILE]`.
    keys: &'a mut [f32],
    /// Values `[TILE, stride]`.
    values: &'a mut [f32],
    /// Scores, then weights, `[TILE_QUERIES, TILE]`.
    scores: &'a mut [f32],
    format: PhantomData<F>,
}

impl<'a, F> Vectors<'a, F> {
    /// Numbers of scratch memory that a walk needs.
    pub(super) fn scratch_len(shape: StateShape) -> usize {
        2 * TILE * shape.stride + TILE_QUERIES * TILE
    }

    /// In so much scratch memory.
    pub(super) fn new(shape: StateShape, scratch: &'a mut [f32]) -> Self {
        let (keys, rest) = scratch.split_at_mut(TILE * shape.stride);
        let (values, scores) = rest.split_at_mut(TILE * shape.stride);
        Self {
            keys,
            values,
            scores,
            format: PhantomData,
        }
    }
}

impl<S: Simd, F: Format> TileArithmetic<S> for Vectors<'_, F> {
    const POSITIONS: usize = TILE;

    #[inline(always)]
    fn load(&mut self, walker: &Walker<'_>, simd: S, start: usize, positions: Range<usize>) {
        let shape = walker.cache_shape();
        let (block_size, head_dim) = (shape.block_size, shape.head_dim);
        let stride = walker.stride();
        assert!(
            positions.start >= start && positions.end <= start + TILE,
            "positions of a tile"
        );
        assert!(
            self.keys.len() >= head_dim * TILE && self.values.len() >= TILE * stride,
            "tiles"
        );
        walker.prefetch_after(simd, positions.clone());
        let mut walked = positions.start;
        while walked < positions.end {
            let (position, count) = walker.neighbours(walked, positions.end);
            let offset = position % block_size;
            let block = walker
                .block(position / block_size)
                .as_ptr()
                .cast::<F::Raw>();
            // SAFETY: `count` positions from `offset` on lie within the block, and the same
            // number from `walked - start` on within the tiles.
            unsafe {
                let keys = block.add(shape.key_index(offset, 0));
                let out = self.keys.as_mut_ptr().add(walked - start);
                widen_rows::<S, F>(
                    simd,
                    Strided::new(keys, block_size),
                    Strided::new(out, TILE),
                    head_dim,
                    count,
                );
                let values = block.add(shape.value_index(offset, 0));
                let out = self.values.as_mut_ptr().add((walked - start) * stride);
                widen_rows::<S, F>(
                    simd,
                    Strided::new(values, head_dim),
                    Strided::new(out, stride),
                    count,
                    head_dim,
                );
            }
            walked += count;
        }
    }

    #[inline(always)]
    fn walk(&mut self, walker: &Walker<'_>, simd: S, start: usize, mut state: SoftmaxState<'_>) {
        let queries = walker.queries();
        let mut query = 0;
        while query < queries {
            query += match (S::MANY_REGISTERS, queries - query) {
                (true, 6..) => self.queries::<S, 6>(walker, simd, start, query, &mut state),
                (true, 3..) => self.queries::<S, 3>(walker, simd, start, query, &mut state),
                (_, 2..) => self.queries::<S, 2>(walker, simd, start, query, &mut state),
                _ => self.queries::<S, 1>(walker, simd, start, query, &mut state),
            };
        }
    }
}

impl<F> Vectors<'_, F> {
    /// `Q` queries, from `first` on, over one tile; returns `Q`.
    #[inline(always)]
    fn queries<S: Simd, const Q: usize>(
        &mut self,
        walker: &Walker<'_>,
        simd: S,
        start: usize,
        first: usize,
        state: &mut SoftmaxState<'_>,
    ) -> usize {
        let mut queries = [std::ptr::null(); Q];
        let mut visible = [const { 0..0 }; Q];
        for (q, query) in queries.iter_mut().enumerate() {
            *query = walker.query(first + q).as_ptr();
        }
        walker.visible_to(start..start + TILE, first, &mut visible);
        if visible.iter().all(Range::is_empty) {
            return Q;
        }
        let stride = walker.stride();
        tile_scores::<S, Q>(simd, queries, walker.head_dim(), self.keys, self.scores);
        for (q, visible) in visible.iter().enumerate() {
            if !visible.is_empty() {
                let scores = &mut self.scores[q * TILE..][..TILE];
                weigh(walker, simd, scores, visible, first + q, state);
            }
        }
        let values = &mut state.values[first * stride..][..Q * stride];
        add_values::<S, Q>(simd, self.values, self.scores, &visible, stride, values);
        Q
    }
}

/// Makes weights of a query's scores in the tile that begins where `visible` is 0, and takes
/// them into its state.
#[inline(always)]
fn weigh<S: Simd>(
    walker: &Walker<'_>,
    simd: S,
    scores: &mut [f32],
    visible: &Range<usize>,
    query: usize,
    state: &mut SoftmaxState<'_>,
) {
    scores[..visible.start].fill(f32::NEG_INFINITY);
    scores[visible.end..].fill(f32::NEG_INFINITY);
    let old = state.maxima[query];
    let largest = scale_and_find_largest(simd, scores, walker.factor(), old);
    let sum = weights_of_scores(simd, scores, largest);
    if largest > old {
        let (keep, stride) = ((old - largest).exp(), walker.stride());
        state.sums[query] *= keep;
        scale_all(simd, &mut state.values[query * stride..][..stride], keep);
        state.maxima[query] = largest;
    }
    state.sums[query] += sum;
}

/// `Q` dot products of `head_dim` elements with each of a tile's keys. A score is one chain of
/// multiply-adds over the head's elements, whichever lane it is in. Queries have `head_dim` elements.
#[inline(always)]
pub(in crate::ops) fn tile_scores<S: Simd, const Q: usize>(
    simd: S,
    queries: [*const f32; Q],
    head_dim: usize,
    keys: &[f32],
    out: &mut [f32],
) {
    assert!(
        keys.len() >= head_dim * TILE && out.len() >= Q * TILE,
        "tiles of scores"
    );
    let mut lane = 0;
    while lane < TILE {
        let mut sums = [[simd.splat(0.0); TILE_VECTORS]; Q];
        let mut row = keys[lane..].as_ptr();
        for dimension in 0..head_dim {
            let mut key = [simd.splat(0.0); TILE_VECTORS];
            for (v, key) in key.iter_mut().enumerate() {
                // SAFETY: the tile has `head_dim * TILE` keys by the assertion, and TILE is a
                // multiple of the lanes of TILE_VECTORS vectors.
                *key = unsafe { simd.load(row.add(v * S::LANES)) };
            }
            for (sums, query) in sums.iter_mut().zip(queries) {
                // SAFETY: queries have `head_dim` elements.
                let query = simd.splat(unsafe { *query.add(dimension) });
                for (sum, key) in sums.iter_mut().zip(key) {
                    *sum = simd.multiply_add(query, key, *sum);
                }
            }
            row = row.wrapping_add(TILE);
        }
        for (q, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                let index = q * TILE + lane + v * S::LANES;
                store_slice(simd, &mut out[index..index + S::LANES], sum);
            }
        }
        lane += TILE_VECTORS * S::LANES;
    }
}

/// Multiplies the scores by `factor`; returns the largest of them and `old`.
#[inline(always)]
fn scale_and_find_largest<S: Simd>(simd: S, scores: &mut [f32], factor: f32, old: f32) -> f32 {
    let mut largest = simd.splat(old);
    for part in scores.chunks_exact_mut(S::LANES) {
        let scaled = simd.multiply(load_slice(simd, part), simd.splat(factor));
        largest = simd.maximum(largest, scaled);
        store_slice(simd, part, scaled);
    }
    simd.largest(largest)
}

/// Replaces scores by `exp(score - largest)`; returns their sum.
#[inline(always)]
fn weights_of_scores<S: Simd>(simd: S, scores: &mut [f32], largest: f32) -> f32 {
    let mut sum = simd.splat(0.0);
    for part in scores.chunks_exact_mut(S::LANES) {
        let weight = simd.exp(simd.subtract(load_slice(simd, part), simd.splat(largest)));
        sum = simd.add(sum, weight);
        store_slice(simd, part, weight);
    }
    simd.sum(sum)
}

#[inline(always)]
fn scale_all<S: Simd>(simd: S, values: &mut [f32], factor: f32) {
    for part in values.chunks_exact_mut(S::LANES) {
        let scaled = simd.multiply(load_slice(simd, part), simd.splat(factor));
        store_slice(simd, part, scaled);
    }
}

/// Adds to the state of each query the values that it sees, position after position. Those that
/// all see are added side by side.
#[inline(always)]
fn add_values<S: Simd, const Q: usize>(
    simd: S,
    values: &[f32],
    weights: &[f32],
    visible: &[Range<usize>; Q],
    stride: usize,
    out: &mut [f32],
) {
    let mut common = 0..TILE;
    for visible in visible {
        common = common.start.max(visible.start)..common.end.min(visible.end);
    }
    if common.is_empty() {
        for (q, visible) in visible.iter().enumerate() {
            add_own::<S>(simd, values, weights, q, visible.clone(), out);
        }
        return;
    }
    for (q, visible) in visible.iter().enumerate() {
        add_own::<S>(simd, values, weights, q, visible.start..common.start, out);
    }
    weighted_sum::<S, Q>(simd, weights, common.clone(), values, stride, out);
    for (q, visible) in visible.iter().enumerate() {
        add_own::<S>(simd, values, weights, q, common.end..visible.end, out);
    }
}

/// `add_values` for the positions that only query `q` of a tile sees, or not all others.
#[inline(always)]
fn add_own<S: Simd>(
    simd: S,
    values: &[f32],
    weights: &[f32],
    q: usize,
    positions: Range<usize>,
    out: &mut [f32],
) {
    if !positions.is_empty() {
        let stride = values.len() / TILE;
        let out = &mut out[q * stride..][..stride];
        let weights = &weights[q * TILE..][..TILE];
        weighted_sum::<S, 1>(simd, weights, positions, values, stride, out);
    }
}

/// `out[q] += sum over the positions of weights[q] * values`, position after position.
#[inline(always)]
fn weighted_sum<S: Simd, const Q: usize>(
    simd: S,
    weights: &[f32],
    positions: Range<usize>,
    values: &[f32],
    stride: usize,
    out: &mut [f32],
) {
    assert!(
        positions.end <= TILE && values.len() >= TILE * stride && weights.len() >= Q * TILE,
        "tile of values"
    );
    let mut lane = 0;
    while lane + TILE_VECTORS * S::LANES <= stride {
        let lanes = Lanes {
            first: lane,
            stride,
        };
        sum_lanes::<S, Q, TILE_VECTORS>(simd, weights, positions.clone(), values, lanes, out);
        lane += TILE_VECTORS * S::LANES;
    }
    while lane < stride {
        let lanes = Lanes {
            first: lane,
            stride,
        };
        sum_lanes::<S, Q, 1>(simd, weights, positions.clone(), values, lanes, out);
        lane += S::LANES;
    }
}

/// Columns of rows that lie `stride` numbers apart.
#[derive(Clone, Copy)]
struct Lanes {
    first: usize,
    stride: usize,
}

/// `V` vectors of `weighted_sum`, from the first of the lanes on.
#[inline(always)]
fn sum_lanes<S: Simd, const Q: usize, const V: usize>(
    simd: S,
    weights: &[f32],
    positions: Range<usize>,
    values: &[f32],
    lanes: Lanes,
    out: &mut [f32],
) {
    let Lanes {
        first: lane,
        stride,
    } = lanes;
    assert!(
        values.len() >= positions.end * stride && lane + V * S::LANES <= stride,
        "lanes"
    );
    let mut sums = [[simd.splat(0.0); V]; Q];
    for (q, sums) in sums.iter_mut().enumerate() {
        for (v, sum) in sums.iter_mut().enumerate() {
            let index = q * stride + lane + v * S::LANES;
            *sum = load_slice(simd, &out[index..index + S::LANES]);
        }
    }
    let mut row = values[positions.start * stride + lane..].as_ptr();
    let mut column = weights[positions.start..].as_ptr();
    for _ in positions {
        let mut value = [simd.splat(0.0); V];
        for (v, value) in value.iter_mut().enumerate() {
            // SAFETY: the position's row has `stride` numbers, and the lanes lie within, by the
            // assertion.
            *value = unsafe { simd.load(row.add(v * S::LANES)) };
        }
        for (q, sums) in sums.iter_mut().enumerate() {
            // SAFETY: there are `Q * TILE` weights, and positions are below TILE, by the
            // assertions.
            let weight = simd.splat(unsafe { *column.add(q * TILE) });
            for (sum, value) in sums.iter_mut().zip(value) {
                *sum = simd.multiply_add(weight, value, *sum);
            }
        }
        (row, column) = (row.wrapping_add(stride), column.wrapping_add(1));
    }
    for (q, sums) in sums.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            let index = q * stride + lane + v * S::LANES;
            store_slice(simd, &mut out[index..index + S::LANES], sum);
        }
    }
}
