//! Attention over BF16 keys and values on AMX tiles.
//!
//! Queries, and the weights that their scores become, are rounded to BF16; products are exact, and
//! sums are those of f32. Weights are summed as they have been rounded, so that equal ones remain
//! equal shares. The order of sums is the same for any number of queries: elements of a head, or
//! positions, from first to last, 32 at a time.

use std::arch::x86_64::{
    __m512, __m512i, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm_add_ps, _mm_add_ss,
    _mm_cvtss_f32, _mm_movehdup_ps, _mm_movehl_ps, _mm256_add_ps, _mm256_castps256_ps128,
    _mm256_extractf128_ps, _mm512_add_ps, _mm512_and_si512, _mm512_castps512_ps256,
    _mm512_castsi512_ps, _mm512_extractf32x8_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_mask_mov_ps, _mm512_maskz_scalef_ps, _mm512_max_ps, _mm512_reduce_max_ps,
    _mm512_roundscale_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_slli_epi32,
    _mm512_storeu_si512, _mm512_sub_ps,
};
use std::f32::consts::LOG2_E;
use std::ops::Range;

use super::TILE;
use super::state::{SoftmaxState, StateShape};
use super::walk::{TileArithmetic, Walker};
use crate::amx::{
    ROW_BYTES, TILE_COLUMNS, TILE_NUMBERS, TILE_ROWS, configure, interleave, load, load_sums,
    multiply, narrow, narrow_row, release, store_sums, zero_sums,
};
use crate::simd::Simd;

/// Positions that are walked together: twice as many as in vectors, since sums come and go.
const POSITIONS: usize = 2 * TILE;
/// Vectors of scores of a query.
const VECTORS: usize = POSITIONS / TILE_ROWS;
/// Tiles of scores that are computed together.
const SCORE_TILES: usize = 4;
/// Bytes of a tile.
const TILE_BYTES: usize = TILE_NUMBERS * size_of::<u16>();

// The tiles behind those of sums: queries or weights, and keys or values.
const LEFT: usize = 4;
const RIGHT: [usize; 3] = [5, 6, 7];

/// What a walk has in memory.
pub(super) struct Tiles<'a> {
    /// `[queries / 16, head_dim / 32, 16, 32]`.
    queries: &'a mut [u16],
    /// `[128 / 16, head_dim / 32, 16, 16, 2]`: pairs of elements of the keys of 16 positions.
    keys: &'a mut [u16],
    /// `[128 / 32, head_dim / 16, 16, 16, 2]`: 16 elements of the values of pairs of positions.
    values: &'a mut [u16],
    /// Weights of 16 queries `[128 / 32, 16, 32]`.
    weights: &'a mut [u16],
    /// Scores of 16 queries `[16, 128]`.
    scores: &'a mut [f32],
    /// How many of the positions have been loaded, from the first on.
    loaded: usize,
}

impl<'a> Tiles<'a> {
    /// Lengths of the memory of a walk: of its numbers in f32 and of those in BF16.
    pub(super) fn scratch_lens(shape: StateShape) -> (usize, usize) {
        let numbers = (shape.queries + 2 * POSITIONS) * shape.stride + TILE_ROWS * POSITIONS;
        (TILE_ROWS * POSITIONS, numbers)
    }

    /// Rounds the task's queries, and gets the tiles ready until `end`.
    ///
    /// # Safety
    /// The processor has AMX, this process may use it, and nothing else does on this thread.
    pub(super) unsafe fn begin(
        walker: &Walker<'_>,
        scores: &'a mut [f32],
        numbers: &'a mut [u16],
    ) -> Self {
        let (count, head_dim) = (walker.queries(), walker.head_dim());
        assert!(
            head_dim.is_multiple_of(TILE_COLUMNS),
            "heads in whole tiles"
        );
        let padded = count.next_multiple_of(TILE_ROWS);
        let (queries, rest) = numbers.split_at_mut(padded * head_dim);
        let (keys, rest) = rest.split_at_mut(POSITIONS * head_dim);
        let (values, weights) = rest.split_at_mut(POSITIONS * head_dim);
        queries.fill(0);
        for query in 0..count {
            let tiles = &mut queries[query / TILE_ROWS * TILE_ROWS * head_dim..];
            // SAFETY: the processor has the instructions.
            unsafe { narrow_row(walker.query(query), query % TILE_ROWS, tiles) };
        }
        // Of few queries, tiles have no more rows than needed.
        let rows = count.min(TILE_ROWS);
        // SAFETY: the caller's promise.
        unsafe {
            let [right, left] = [TILE_ROWS, rows];
            let rows = [left, left, left, left, left, right, right, right];
            configure(rows.map(|rows| (rows, ROW_BYTES)));
        }
        Self {
            queries,
            keys,
            values,
            weights,
            scores,
            loaded: 0,
        }
    }

    /// Gives the tiles up.
    pub(super) fn end(self) {
        // SAFETY: `begin` configured them.
        unsafe { release() }
    }

    /// Keys at positions of which each 16 lie in one block, as whole sixteens: what is not among
    /// `positions` is never looked at.
    ///
    /// # Safety
    /// The processor has AVX-512.
    #[target_feature(enable = "avx512f")]
    unsafe fn load_keys(&mut self, walker: &Walker<'_>, start: usize, positions: Range<usize>) {
        let shape = walker.cache_shape();
        let group_len = shape.head_dim * TILE_ROWS;
        let first = (positions.start - start) / TILE_ROWS;
        let last = (positions.end - start).div_ceil(TILE_ROWS);
        for group in first..last {
            let position = start + group * TILE_ROWS;
            let offset = position % shape.block_size;
            let keys = &walker.block(position / shape.block_size)[..shape.half_bytes()];
            let mut even = keys[2 * offset..].as_ptr().cast::<u16>();
            let out = &mut self.keys[group * group_len..][..group_len];
            for out in out.chunks_exact_mut(2 * TILE_ROWS) {
                let odd = even.wrapping_add(shape.block_size);
                // SAFETY: 16 positions from `offset` on lie in the block, for each element.
                unsafe { interleave([even, odd], out.as_mut_ptr()) };
                even = odd.wrapping_add(shape.block_size);
            }
        }
    }

    /// Keys at any positions.
    fn load_scattered_keys(&mut self, walker: &Walker<'_>, start: usize, positions: Range<usize>) {
        let shape = walker.cache_shape();
        let group_len = shape.head_dim * TILE_ROWS;
        for walked in positions {
            let position = walker.position(walked);
            let keys = walker.block(position / shape.block_size);
            let keys = keys[2 * (position % shape.block_size)..].chunks(2 * shape.block_size);
            let (group, lane) = ((walked - start) / TILE_ROWS, (walked - start) % TILE_ROWS);
            let out = &mut self.keys[group * group_len..][..group_len];
            for (dimension, key) in keys.take(shape.head_dim).enumerate() {
                let pair = dimension / 2 * TILE_ROWS + lane;
                out[2 * pair + dimension % 2] = u16::from_le_bytes([key[0], key[1]]);
            }
        }
    }

    /// Values at positions; those of others that are multiplied with them are zero.
    ///
    /// # Safety
    /// The processor has AVX-512.
    #[target_feature(enable = "avx512f")]
    unsafe fn load_values(&mut self, walker: &Walker<'_>, start: usize, positions: Range<usize>) {
        let head_dim = walker.head_dim();
        let steps = (positions.end - start).div_ceil(TILE_COLUMNS);
        let rows = values_of(walker, start, positions);
        let zeros = [0_u8; 2 * TILE_ROWS];
        let rows = rows[..steps * TILE_COLUMNS].as_chunks::<2>().0;
        for (pair, [even, odd]) in rows.iter().enumerate() {
            let (step, row) = (pair / TILE_ROWS, pair % TILE_ROWS);
            let out = &mut self.values[step * head_dim * TILE_COLUMNS..];
            let tiles = out
                .chunks_exact_mut(TILE_NUMBERS)
                .take(head_dim / TILE_ROWS);
            for (group, tile) in tiles.enumerate() {
                let bytes = group * 2 * TILE_ROWS..(group + 1) * 2 * TILE_ROWS;
                let even = even.map_or(&zeros[..], |even| &even[bytes.clone()]);
                let odd = odd.map_or(&zeros[..], |odd| &odd[bytes]);
                let out = &mut tile[row * 2 * TILE_ROWS..][..2 * TILE_ROWS];
                // SAFETY: both have 16 numbers, and there is room for them.
                unsafe {
                    let rows = [even.as_ptr().cast(), odd.as_ptr().cast()];
                    interleave(rows, out.as_mut_ptr());
                }
            }
        }
    }

    /// Scores of the 16 queries from `first` on, without their factor.
    ///
    /// # Safety
    /// The tiles are configured.
    #[inline(always)]
    unsafe fn score(&mut self, first: usize, head_dim: usize) {
        let steps = head_dim / TILE_COLUMNS;
        let queries = &self.queries[first * head_dim..][..TILE_ROWS * head_dim];
        let queries = queries.as_ptr().cast::<u8>();
        for tile in (0..self.loaded.div_ceil(TILE_ROWS)).step_by(SCORE_TILES) {
            let keys = &self.keys[tile * TILE_ROWS * head_dim..][..TILE * head_dim];
            let keys = keys.as_ptr().cast::<u8>();
            let scores = self.scores[tile * TILE_ROWS..].as_mut_ptr();
            // SAFETY: all tiles lie within the memory of the walk.
            unsafe {
                zero_sums();
                for step in 0..steps {
                    let keys = |group: usize| keys.add((group * steps + step) * TILE_BYTES);
                    load::<LEFT>(queries.add(step * TILE_BYTES), ROW_BYTES);
                    multiply::<0, LEFT, { RIGHT[0] }>(keys(0));
                    multiply::<1, LEFT, { RIGHT[1] }>(keys(1));
                    multiply::<2, LEFT, { RIGHT[2] }>(keys(2));
                    multiply::<3, LEFT, { RIGHT[0] }>(keys(3));
                }
                for index in 0..SCORE_TILES {
                    store_sums(index, scores.add(index * TILE_ROWS), POSITIONS);
                }
            }
        }
    }

    /// Adds `G` groups of 16 elements of weighted values, from element 16 * `group` on, to the
    /// `sums` of 16 queries `[16, head_dim]`.
    ///
    /// # Safety
    /// The tiles are configured.
    #[inline(always)]
    unsafe fn add_values<const G: usize>(&self, group: usize, sums: &mut [f32]) {
        let head_dim = sums.len() / TILE_ROWS;
        let groups = head_dim / TILE_ROWS;
        let steps = self.loaded.div_ceil(TILE_COLUMNS);
        let values = &self.values[..steps * head_dim * TILE_COLUMNS];
        let (weights, values) = (
            self.weights.as_ptr().cast::<u8>(),
            values.as_ptr().cast::<u8>(),
        );
        let sums = sums[group * TILE_ROWS..].as_mut_ptr();
        // SAFETY: the caller's promise; all tiles lie within the memory of the walk.
        unsafe {
            for index in 0..G {
                load_sums(index, sums.add(index * TILE_ROWS), head_dim);
            }
            for step in 0..steps {
                let values =
                    |index: usize| values.add((step * groups + group + index) * TILE_BYTES);
                load::<LEFT>(weights.add(step * TILE_BYTES), ROW_BYTES);
                multiply::<0, LEFT, { RIGHT[0] }>(values(0));
                multiply::<1, LEFT, { RIGHT[1] }>(values(1));
                if G == 4 {
                    multiply::<2, LEFT, { RIGHT[2] }>(values(2));
                    multiply::<3, LEFT, { RIGHT[0] }>(values(3));
                }
            }
            for index in 0..G {
                store_sums(index, sums.add(index * TILE_ROWS), head_dim);
            }
        }
    }

    /// The 16 queries from `first` on over one tile of positions.
    ///
    /// # Safety
    /// The processor has AVX-512 BF16, and the tiles are configured.
    #[target_feature(enable = "avx512f,avx512dq,avx512bf16")]
    unsafe fn sixteen(
        &mut self,
        walker: &Walker<'_>,
        start: usize,
        first: usize,
        state: &mut SoftmaxState<'_>,
    ) {
        let head_dim = walker.head_dim();
        let count = (walker.queries() - first).min(TILE_ROWS);
        let tile = start..start + POSITIONS;
        let mut visible = [const { 0..0 }; TILE_ROWS];
        walker.visible_to(tile, first, &mut visible[..count]);
        if visible.iter().all(Range::is_empty) {
            return;
        }
        // SAFETY: the caller's promise.
        unsafe { self.score(first, head_dim) };
        let seen = visible.each_ref().map(seen);
        let factor = walker.factor();
        let maxima = &mut state.maxima[first..first + TILE_ROWS];
        let largest = largest_scores(self.scores, &seen, factor, maxima);
        for (query, seen) in seen.into_iter().enumerate() {
            let scores = &self.scores[query * POSITIONS..][..POSITIONS];
            let weights = &mut self.weights[query * TILE_COLUMNS..];
            let (own, old, largest) = (first + query, maxima[query], largest[query]);
            // SAFETY: the processor has the instructions.
            let sum = unsafe { weigh(scores, seen, factor, largest, weights) };
            if largest > old {
                let keep = (old - largest).exp();
                state.sums[own] *= keep;
                for value in &mut state.values[own * head_dim..][..head_dim] {
                    *value *= keep;
                }
                maxima[query] = largest;
            }
            state.sums[own] += sum;
        }
        // What a query does not see has no weight, and adds zeros, since values are finite.
        let sums = &mut state.values[first * head_dim..][..TILE_ROWS * head_dim];
        let groups = head_dim / TILE_ROWS;
        let fours = groups - groups % 4;
        // SAFETY: the caller's promise.
        unsafe {
            for group in (0..fours).step_by(4) {
                self.add_values::<4>(group, sums);
            }
            for group in (fours..groups).step_by(2) {
                self.add_values::<2>(group, sums);
            }
        }
    }
}

impl<S: Simd> TileArithmetic<S> for Tiles<'_> {
    const POSITIONS: usize = POSITIONS;

    #[inline(always)]
    fn load(&mut self, walker: &Walker<'_>, simd: S, start: usize, positions: Range<usize>) {
        walker.prefetch_after(simd, positions.clone());
        self.loaded = positions.end - start;
        // SAFETY: the processor has the instructions.
        unsafe {
            if walker.lies_in_sixteens() {
                self.load_keys(walker, start, positions.clone());
            } else {
                self.load_scattered_keys(walker, start, positions.clone());
            }
            self.load_values(walker, start, positions);
        }
    }

    #[inline(always)]
    fn walk(&mut self, walker: &Walker<'_>, _: S, start: usize, mut state: SoftmaxState<'_>) {
        for first in (0..walker.queries()).step_by(TILE_ROWS) {
            // SAFETY: `begin` configured the tiles.
            unsafe { self.sixteen(walker, start, first, &mut state) };
        }
    }
}

/// A bit for each position of a tile that lies in the range.
fn seen(visible: &Range<usize>) -> u128 {
    let below = |end: usize| {
        if end < POSITIONS {
            (1_u128 << end) - 1
        } else {
            u128::MAX
        }
    };
    below(visible.end) & !below(visible.start)
}

/// The bytes of the values at those of a tile's positions that are walked.
fn values_of<'a>(
    walker: &'a Walker<'_>,
    start: usize,
    positions: Range<usize>,
) -> [Option<&'a [u8]>; POSITIONS] {
    let shape = walker.cache_shape();
    let mut rows = [None; POSITIONS];
    let mut walked = positions.start;
    while walked < positions.end {
        let (position, count) = walker.neighbours(walked, positions.end);
        let block = walker.block(position / shape.block_size);
        let first = shape.value_index(position % shape.block_size, 0);
        let values = block[2 * first..].chunks_exact(2 * shape.head_dim);
        let own = &mut rows[walked - start..][..count];
        for (row, values) in own.iter_mut().zip(values) {
            *row = Some(values);
        }
        walked += count;
    }
    rows
}

/// Powers of 2 with a smaller exponent are 0 in f32.
const EXPONENT_MIN: f32 = -200.0;
/// 2^x for x from -1/2 to 1/2, the highest power first; within 7.5e-8 of it.
const EXP2: [f32; 6] = [
    0.001_327_647_1,
    0.009_675_541,
    0.055_507_13,
    0.240_221_2,
    0.693_146_94,
    1.000_000_1,
];

/// Scores of a query at 16 positions, minus infinity where they are not `seen`.
#[target_feature(enable = "avx512f")]
#[inline]
fn seen_scores(scores: &[f32], seen: u128, index: usize) -> __m512 {
    let scores = &scores[index * TILE_ROWS..][..TILE_ROWS];
    // SAFETY: there are 16 scores.
    let all = unsafe { _mm512_loadu_ps(scores.as_ptr()) };
    let none = _mm512_set1_ps(f32::NEG_INFINITY);
    _mm512_mask_mov_ps(none, (seen >> (index * TILE_ROWS)) as u16, all)
}

/// The largest scores that 16 queries have seen, now that they see the positions that have a bit
/// in `seen`. All are found before any weights are made of them, so that none waits for its own.
#[target_feature(enable = "avx512f")]
#[inline]
fn largest_scores(
    scores: &[f32],
    seen: &[u128; TILE_ROWS],
    factor: f32,
    maxima: &[f32],
) -> [f32; TILE_ROWS] {
    let mut largest = [0.0; TILE_ROWS];
    for (query, largest) in largest.iter_mut().enumerate() {
        let scores = &scores[query * POSITIONS..][..POSITIONS];
        let mut most = seen_scores(scores, seen[query], 0);
        for index in 1..VECTORS {
            most = _mm512_max_ps(most, seen_scores(scores, seen[query], index));
        }
        *largest = (_mm512_reduce_max_ps(most) * factor).max(maxima[query]);
    }
    largest
}

/// Makes weights of a query's scores at the positions that have a bit in `seen`, given the
/// `largest` one that it has seen, and zeros of others; returns the sum of weights.
///
/// # Safety
/// The processor has AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512dq,avx512bf16")]
#[inline]
unsafe fn weigh(scores: &[f32], seen: u128, factor: f32, largest: f32, weights: &mut [u16]) -> f32 {
    let shift = _mm512_set1_ps(-largest * LOG2_E);
    let factor = _mm512_set1_ps(factor * LOG2_E);
    let weight = |index| {
        let exponent = _mm512_fmadd_ps(seen_scores(scores, seen, index), factor, shift);
        exp2((seen >> (index * TILE_ROWS)) as u16, exponent)
    };
    let mut total = _mm512_set1_ps(0.0);
    let rows = weights.chunks_mut(TILE_NUMBERS).take(VECTORS / 2);
    for (step, row) in rows.enumerate() {
        let rounded = narrow(weight(2 * step), weight(2 * step + 1));
        let row = &mut row[..TILE_COLUMNS];
        // SAFETY: there is room for a row of a tile.
        unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), rounded) };
        total = _mm512_add_ps(total, pair_sums(rounded));
    }
    sum(total)
}

/// 2^x for `x` of at most 128 in the lanes of `seen`, zero in the others.
#[target_feature(enable = "avx512f")]
#[inline]
fn exp2(seen: u16, x: __m512) -> __m512 {
    // The constant comes first: max yields its second operand if one is NaN.
    let x = _mm512_max_ps(_mm512_set1_ps(EXPONENT_MIN), x);
    let whole = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
    let rest = _mm512_sub_ps(x, whole);
    let mut power = _mm512_set1_ps(EXP2[0]);
    for coefficient in &EXP2[1..] {
        power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(*coefficient));
    }
    _mm512_maskz_scalef_ps(seen, power, whole)
}

/// Sums of pairs of BF16 numbers.
#[target_feature(enable = "avx512f")]
#[inline]
fn pair_sums(numbers: __m512i) -> __m512 {
    let odd = _mm512_and_si512(numbers, _mm512_set1_epi32(0xffff_0000_u32 as i32));
    let even = _mm512_slli_epi32::<16>(numbers);
    _mm512_add_ps(_mm512_castsi512_ps(even), _mm512_castsi512_ps(odd))
}

/// The sum of all lanes, in a fixed order.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
fn sum(lanes: __m512) -> f32 {
    let high = _mm512_extractf32x8_ps::<1>(lanes);
    let eight = _mm256_add_ps(_mm512_castps512_ps256(lanes), high);
    let four = _mm_add_ps(
        _mm256_castps256_ps128(eight),
        _mm256_extractf128_ps::<1>(eight),
    );
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}
