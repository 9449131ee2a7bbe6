//! The vector code of products.

use std::ops::Range;

use super::view::{BandView, WeightFormat};
use super::{Part, Product};
use crate::element::Element;
use crate::formats::BlockFormat;
use crate::simd::{
    AsBf16, AsF8, AsF32, Format, LANES_MAX, Program, Simd, Strided, load_slice, store_slice,
    widen_rows,
};

const F32: WeightFormat = WeightFormat::Numbers(Element::F32);
const BF16: WeightFormat = WeightFormat::Numbers(Element::BF16);
const F8E4M3: WeightFormat = WeightFormat::Numbers(Element::F8E4M3);

/// Rows of activations from which on widening the weights into scratch memory pays.
const WIDEN_TOKENS_MIN: usize = 4;
/// Numbers of activations that are walked again and again while they stay in the L2 cache.
const TOKEN_BLOCK_NUMBERS: usize = 192 * 1024;
/// Weight rows and columns that are walked together, such that their f32 numbers stay in the L1
/// cache. Also the weight rows of a tile for a single row of activations.
pub(super) const STRIP_ROWS: usize = 8;
const STRIP_COLUMNS: usize = 512;
/// Weight rows of a tile for several rows of activations; divides `STRIP_ROWS`.
const TILE_ROWS: usize = 4;
/// Most activation rows of a tile: 24 accumulators of 32 vector registers, or 12 of 16 with half
/// as many.
const TILE_TOKENS: usize = 6;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Some columns of the output of a product, in f32.
pub(super) struct Block<'a> {
    part: Part<'a>,
    /// `scratch_len` numbers.
    scratch: &'a mut [f32],
}

impl Program for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let tokens = self.part.product.input.count();
        match self.part.weight.band.format {
            F32 if tokens == 1 => self.run_single::<S, AsF32>(simd),
            BF16 if tokens == 1 => self.run_single::<S, AsBf16>(simd),
            F8E4M3 if tokens == 1 => self.run_single::<S, AsF8>(simd),
            BF16 if tokens < WIDEN_TOKENS_MIN => self.run_few::<S, AsBf16>(simd),
            F8E4M3 if tokens < WIDEN_TOKENS_MIN => self.run_few::<S, AsF8>(simd),
            _ => self.run_strips(simd),
        }
    }
}

impl<'a> Block<'a> {
    pub(super) fn new(part: Part<'a>, scratch: &'a mut [f32]) -> Self {
        Self { part, scratch }
    }

    /// Numbers of scratch memory that a part needs.
    pub(super) fn scratch_len(part: &Part<'_>) -> usize {
        let tokens = part.product.input.count();
        let strips = match part.weight.band.format {
            F32 => tokens > 1,
            WeightFormat::Numbers(_) => tokens >= WIDEN_TOKENS_MIN,
            WeightFormat::Blocks(_) => true,
        };
        let sums = STRIP_ROWS * LANES_MAX * token_block(part.product).min(tokens);
        if strips {
            STRIP_ROWS * STRIP_COLUMNS + sums
        } else {
            0
        }
    }

    /// One row of activations.
    #[inline(always)]
    fn run_single<S: Simd, F: Format>(&self, simd: S) {
        let mut row = self.part.rows.start;
        while row + STRIP_ROWS <= self.part.rows.end {
            self.tile::<S, F, STRIP_ROWS, 1>(simd, row, 0);
            row += STRIP_ROWS;
        }
        while row < self.part.rows.end {
            self.tile::<S, F, 1, 1>(simd, row, 0);
            row += 1;
        }
    }

    /// Fewer rows of activations than make widening pay: weights are widened in registers.
    #[inline(always)]
    fn run_few<S: Simd, F: Format>(&self, simd: S) {
        let tokens = self.part.product.input.count();
        let mut row = self.part.rows.start;
        while row + TILE_ROWS <= self.part.rows.end {
            let mut token = 0;
            while token + 2 <= tokens {
                self.tile::<S, F, TILE_ROWS, 2>(simd, row, token);
                token += 2;
            }
            if token < tokens {
                self.tile::<S, F, TILE_ROWS, 1>(simd, row, token);
            }
            row += TILE_ROWS;
        }
        while row < self.part.rows.end {
            for token in 0..tokens {
                self.tile::<S, F, 1, 1>(simd, row, token);
            }
            row += 1;
        }
    }

    /// `R` rows of weights times `T` rows of activations.
    #[inline(always)]
    fn tile<S: Simd, F: Format, const R: usize, const T: usize>(
        &self,
        simd: S,
        row: usize,
        token: usize,
    ) {
        let product = self.part.product;
        let mut weights = [std::ptr::null(); R];
        for (r, weights) in weights.iter_mut().enumerate() {
            *weights = self.part.weight.row::<F>(row + r);
        }
        let mut inputs = [std::ptr::null(); T];
        for (t, inputs) in inputs.iter_mut().enumerate() {
            *inputs = product.input.row(token + t).as_ptr();
        }
        let mut sums = [[simd.splat(0.0); T]; R];
        let columns = self.part.weight.columns;
        // SAFETY: rows of weights and of activations have as many numbers as the weights have
        // columns, by `Product::check`.
        unsafe { accumulate::<S, F, R, T, true>(simd, weights, inputs, columns, &mut sums) };
        for (r, sums) in sums.into_iter().enumerate() {
            for (t, sum) in sums.into_iter().enumerate() {
                self.put(row + r, token + t, simd.sum(sum));
            }
        }
    }

    /// Scales an element and stores it.
    #[inline(always)]
    fn put(&self, row: usize, token: usize, sum: f32) {
        let fold = match self.part.weight.band.format {
            F8E4M3 => AsF8::FOLD,
            _ => 1.0,
        };
        self.part.put(row, token, &[sum * fold]);
    }

    /// Many rows of activations, in blocks that stay in the cache while the weights pass by.
    #[inline(always)]
    fn run_strips<S: Simd>(mut self, simd: S) {
        let tokens = self.part.product.input.count();
        let block = token_block(self.part.product);
        let (strip, sums) =
            std::mem::take(&mut self.scratch).split_at_mut(STRIP_ROWS * STRIP_COLUMNS);
        let mut first = 0;
        while first < tokens {
            let last = (first + block).min(tokens);
            let sums = &mut sums[..(last - first) * STRIP_ROWS * S::LANES];
            let mut row = self.part.rows.start;
            while row < self.part.rows.end {
                let rows = row..(row + STRIP_ROWS).min(self.part.rows.end);
                sums.fill(0.0);
                self.strip_rows(simd, rows.clone(), first..last, strip, sums);
                for (index, sum) in sums.chunks_exact(S::LANES).enumerate() {
                    let (token, r) = (index / STRIP_ROWS, index % STRIP_ROWS);
                    if row + r < rows.end {
                        self.put(row + r, first + token, simd.sum(load_slice(simd, sum)));
                    }
                }
                row = rows.end;
            }
            first = last;
        }
    }

    /// Accumulators of some rows of weights, walked over all columns.
    #[inline(always)]
    fn strip_rows<S: Simd>(
        &self,
        simd: S,
        rows: Range<usize>,
        tokens: Range<usize>,
        strip: &mut [f32],
        sums: &mut [f32],
    ) {
        let columns = self.part.weight.columns;
        let mut column = 0;
        while column < columns {
            let range = column..(column + STRIP_COLUMNS).min(columns);
            let weights = self.widened(simd, rows.clone(), range.clone(), strip);
            let mut token = tokens.start;
            while token < tokens.end {
                let sums = &mut sums[(token - tokens.start) * STRIP_ROWS * S::LANES..];
                let (at, columns) = (token, range.clone());
                token += match (S::MANY_REGISTERS, tokens.end - token) {
                    // Eight are better cut in halves than in six and two.
                    (true, 6 | 7 | 9..) => {
                        self.strip_tile::<S, TILE_TOKENS>(simd, &weights, at, columns, sums)
                    }
                    (true, 4..) => self.strip_tile::<S, 4>(simd, &weights, at, columns, sums),
                    (false, 3..) => self.strip_tile::<S, 3>(simd, &weights, at, columns, sums),
                    (_, 2..) => self.strip_tile::<S, 2>(simd, &weights, at, columns, sums),
                    _ => self.strip_tile::<S, 1>(simd, &weights, at, columns, sums),
                };
            }
            column = range.end;
        }
    }

    /// Some columns of some rows of weights as f32, in `strip` unless they are stored so. Rows
    /// that are missing to a whole strip repeat the last one.
    #[inline(always)]
    fn widened<S: Simd>(
        &self,
        simd: S,
        rows: Range<usize>,
        columns: Range<usize>,
        strip: &mut [f32],
    ) -> [*const f32; STRIP_ROWS] {
        let weight = self.part.weight;
        let (stride, len) = (weight.columns, columns.len());
        assert!(
            rows.len() <= STRIP_ROWS && len <= STRIP_COLUMNS,
            "a strip of weights"
        );
        assert!(
            strip.len() == STRIP_ROWS * STRIP_COLUMNS,
            "scratch memory of a strip"
        );
        let target = Strided::new(strip.as_mut_ptr(), STRIP_COLUMNS);
        // SAFETY: the columns lie within the rows, and the strip has room for all.
        unsafe {
            match weight.band.format {
                F32 => {}
                BF16 => {
                    let source = weight.row::<AsBf16>(rows.start).add(columns.start);
                    widen_rows::<S, AsBf16>(
                        simd,
                        Strided::new(source, stride),
                        target,
                        rows.len(),
                        len,
                    );
                }
                F8E4M3 => {
                    let source = weight.row::<AsF8>(rows.start).add(columns.start);
                    widen_rows::<S, AsF8>(
                        simd,
                        Strided::new(source, stride),
                        target,
                        rows.len(),
                        len,
                    );
                }
                WeightFormat::Blocks(format) => {
                    widen_blocks(weight, format, &rows, &columns, strip);
                }
            }
        }
        let mut pointers = [std::ptr::null(); STRIP_ROWS];
        for (r, pointer) in pointers.iter_mut().enumerate() {
            let r = r.min(rows.len() - 1);
            *pointer = match weight.band.format {
                F32 => weight
                    .row::<AsF32>(rows.start + r)
                    .wrapping_add(columns.start),
                _ => strip[r * STRIP_COLUMNS..].as_ptr(),
            };
        }
        pointers
    }

    /// A strip of weights times `T` rows of activations; returns `T`.
    #[inline(always)]
    fn strip_tile<S: Simd, const T: usize>(
        &self,
        simd: S,
        weights: &[*const f32; STRIP_ROWS],
        token: usize,
        columns: Range<usize>,
        sums: &mut [f32],
    ) -> usize {
        let mut inputs = [std::ptr::null(); T];
        for (t, inputs) in inputs.iter_mut().enumerate() {
            *inputs = self.part.product.input.row(token + t)[columns.clone()].as_ptr();
        }
        let at = |t: usize, r: usize| (t * STRIP_ROWS + r) * S::LANES;
        let mut first = 0;
        while first < STRIP_ROWS {
            let mut rows = [std::ptr::null(); TILE_ROWS];
            rows.copy_from_slice(&weights[first..first + TILE_ROWS]);
            let mut tile = [[simd.splat(0.0); T]; TILE_ROWS];
            for (r, tile) in tile.iter_mut().enumerate() {
                for (t, sum) in tile.iter_mut().enumerate() {
                    *sum = load_slice(simd, &sums[at(t, first + r)..][..S::LANES]);
                }
            }
            let len = columns.len();
            // SAFETY: rows of weights and of activations reach to the end of the columns.
            unsafe {
                accumulate::<S, AsF32, TILE_ROWS, T, false>(simd, rows, inputs, len, &mut tile);
            }
            for (r, tile) in tile.into_iter().enumerate() {
                for (t, sum) in tile.into_iter().enumerate() {
                    store_slice(simd, &mut sums[at(t, first + r)..][..S::LANES], sum);
                }
            }
            first += TILE_ROWS;
        }
        T
    }
}

/// Widens some columns of some rows into a strip. Strips begin at multiples of all blocks.
#[inline(always)]
fn widen_blocks(
    weight: BandView<'_>,
    format: BlockFormat,
    rows: &Range<usize>,
    columns: &Range<usize>,
    strip: &mut [f32],
) {
    let blocks = columns.start / format.numbers()..columns.end / format.numbers();
    let bytes = blocks.start * format.bytes()..blocks.end * format.bytes();
    for (row, out) in rows.clone().zip(strip.chunks_exact_mut(STRIP_COLUMNS)) {
        let blocks = &weight.row_bytes(row)[bytes.clone()];
        format.widen(blocks, &mut out[..columns.len()]);
    }
}

/// Rows of activations that are walked together.
fn token_block(product: &Product<'_>) -> usize {
    let block = TOKEN_BLOCK_NUMBERS / product.weight.columns().max(1);
    block.max(1).next_multiple_of(TILE_TOKENS)
}

/// Adds the products of all pairs of rows to `sums`, vector by vector: the order of operations
/// for each pair is the same for all `R` and `T`, and for any cut of the columns at multiples of
/// a vector.
///
/// # Safety
/// All pointers address `columns` readable numbers.
#[inline(always)]
unsafe fn accumulate<S: Simd, F: Format, const R: usize, const T: usize, const AHEAD: bool>(
    simd: S,
    weights: [*const F::Raw; R],
    inputs: [*const f32; T],
    columns: usize,
    sums: &mut [[S::Vector; T]; R],
) {
    let mut at = 0;
    while at + S::LANES <= columns {
        let mut input = [simd.splat(0.0); T];
        for (input, row) in input.iter_mut().zip(inputs) {
            // SAFETY: a whole vector lies before the end.
            *input = unsafe { simd.load(row.add(at)) };
        }
        for (sums, row) in sums.iter_mut().zip(weights) {
            if AHEAD && (at * size_of::<F::Raw>()).is_multiple_of(LINE) {
                // Rows are about as long as a page, where the processor's own prefetching ends.
                simd.prefetch(row.wrapping_add(at + R * columns).cast());
            }
            // SAFETY: a whole vector lies before the end.
            let weight = unsafe { F::load(simd, row.add(at)) };
            for (sum, input) in sums.iter_mut().zip(input) {
                *sum = simd.multiply_add(weight, input, *sum);
            }
        }
        at += S::LANES;
    }
    if at == columns {
        return;
    }
    for (sums, row) in sums.iter_mut().zip(weights) {
        // SAFETY: the rest lies before the end.
        let weight = unsafe { F::load_first(simd, row.add(at), columns - at) };
        for (sum, input) in sums.iter_mut().zip(inputs) {
            // SAFETY: the rest lies before the end.
            let input = unsafe { AsF32::load_first(simd, input.add(at), columns - at) };
            *sum = simd.multiply_add(weight, input, *sum);
        }
    }
}
