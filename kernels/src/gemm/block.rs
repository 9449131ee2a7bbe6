//! The vector code of products.

use std::ops::Range;

use super::Product;
use super::view::{BandView, WeightFormat};
use crate::blocks::BlockFormat;
use crate::element::Element;
use crate::parallel::SharedOutput;
use crate::simd::{
    AsBf16, AsF8, AsF32, Format, LANES_MAX, Program, Simd, load_slice, store_slice, widen_rows,
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
pub(super) const PANEL_ROWS: usize = 8;
const PANEL_COLUMNS: usize = 512;
/// Weight rows of a tile for several rows of activations; divides `PANEL_ROWS`.
const TILE_ROWS: usize = 4;
/// Most activation rows of a tile: 24 accumulators of 32 vector registers, or 12 of 16 with half
/// as many.
const TILE_TOKENS: usize = 6;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Some columns of the output of a product.
pub(super) struct Block<'a> {
    pub(super) product: &'a Product<'a>,
    /// The weights, or those of their rows that have one format.
    pub(super) weight: BandView<'a>,
    /// Rows of `weight`.
    pub(super) rows: Range<usize>,
    pub(super) out: &'a SharedOutput<'a, f32>,
    /// `scratch_len` numbers.
    pub(super) scratch: &'a mut [f32],
}

impl Program for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let tokens = self.product.input.len();
        match self.weight.format {
            _ if tokens == 0 => {}
            F32 if tokens == 1 => self.run_single::<S, AsF32>(simd),
            BF16 if tokens == 1 => self.run_single::<S, AsBf16>(simd),
            F8E4M3 if tokens == 1 => self.run_single::<S, AsF8>(simd),
            BF16 if tokens < WIDEN_TOKENS_MIN => self.run_few::<S, AsBf16>(simd),
            F8E4M3 if tokens < WIDEN_TOKENS_MIN => self.run_few::<S, AsF8>(simd),
            _ => self.run_panels(simd),
        }
    }
}

impl Block<'_> {
    /// Numbers of scratch memory that a product needs.
    pub(super) fn scratch_len(product: &Product<'_>, weight: &BandView<'_>) -> usize {
        let tokens = product.input.len();
        let panels = match weight.format {
            F32 => tokens > 1,
            WeightFormat::Numbers(_) => tokens >= WIDEN_TOKENS_MIN,
            WeightFormat::Blocks(_) => tokens > 0,
        };
        let sums = PANEL_ROWS * LANES_MAX * token_block(product).min(tokens);
        if panels {
            PANEL_ROWS * PANEL_COLUMNS + sums
        } else {
            0
        }
    }

    /// One row of activations.
    #[inline(always)]
    fn run_single<S: Simd, F: Format>(&self, simd: S) {
        let mut row = self.rows.start;
        while row + PANEL_ROWS <= self.rows.end {
            self.tile::<S, F, PANEL_ROWS, 1>(simd, row, 0);
            row += PANEL_ROWS;
        }
        while row < self.rows.end {
            self.tile::<S, F, 1, 1>(simd, row, 0);
            row += 1;
        }
    }

    /// Fewer rows of activations than make widening pay: weights are widened in registers.
    #[inline(always)]
    fn run_few<S: Simd, F: Format>(&self, simd: S) {
        let tokens = self.product.input.len();
        let mut row = self.rows.start;
        while row + TILE_ROWS <= self.rows.end {
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
        while row < self.rows.end {
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
        let product = self.product;
        let mut weights = [std::ptr::null(); R];
        for (r, weights) in weights.iter_mut().enumerate() {
            *weights = self.weight.row::<F>(row + r);
        }
        let mut inputs = [std::ptr::null(); T];
        for (t, inputs) in inputs.iter_mut().enumerate() {
            *inputs = product.input.row(token + t).as_ptr();
        }
        let mut sums = [[simd.splat(0.0); T]; R];
        let columns = self.weight.columns;
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
        let product = self.product;
        let fold = match self.weight.format {
            F8E4M3 => AsF8::FOLD,
            _ => 1.0,
        };
        let row = self.weight.first_row + row;
        let weight_scale = match product.weight_scales {
            Some(scales) => scales[row],
            None => 1.0,
        };
        let at = token * product.weight.rows() + row;
        // SAFETY: these columns of the output belong to this block alone.
        let out = unsafe { self.out.range(at..at + 1) };
        out[0] = sum * (fold * product.factor * weight_scale) * product.input.scale(token);
    }

    /// Many rows of activations, in blocks that stay in the cache while the weights pass by.
    #[inline(always)]
    fn run_panels<S: Simd>(mut self, simd: S) {
        let tokens = self.product.input.len();
        let block = token_block(self.product);
        let (panel, sums) =
            std::mem::take(&mut self.scratch).split_at_mut(PANEL_ROWS * PANEL_COLUMNS);
        let mut first = 0;
        while first < tokens {
            let last = (first + block).min(tokens);
            let sums = &mut sums[..(last - first) * PANEL_ROWS * S::LANES];
            let mut row = self.rows.start;
            while row < self.rows.end {
                let rows = row..(row + PANEL_ROWS).min(self.rows.end);
                sums.fill(0.0);
                self.panel_rows(simd, rows.clone(), first..last, (&mut *panel, &mut *sums));
                for (index, sum) in sums.chunks_exact(S::LANES).enumerate() {
                    let (token, r) = (index / PANEL_ROWS, index % PANEL_ROWS);
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
    fn panel_rows<S: Simd>(
        &self,
        simd: S,
        rows: Range<usize>,
        tokens: Range<usize>,
        (panel, sums): (&mut [f32], &mut [f32]),
    ) {
        let columns = self.weight.columns;
        let mut column = 0;
        while column < columns {
            let range = column..(column + PANEL_COLUMNS).min(columns);
            let weights = self.widened(simd, rows.clone(), range.clone(), panel);
            let mut token = tokens.start;
            while token < tokens.end {
                let sums = &mut sums[(token - tokens.start) * PANEL_ROWS * S::LANES..];
                let (at, columns) = (token, range.clone());
                token += match (S::MANY_REGISTERS, tokens.end - token) {
                    // Eight are better cut in halves than in six and two.
                    (true, 6 | 7 | 9..) => {
                        self.panel_tile::<S, TILE_TOKENS>(simd, &weights, at, columns, sums)
                    }
                    (true, 4..) => self.panel_tile::<S, 4>(simd, &weights, at, columns, sums),
                    (false, 3..) => self.panel_tile::<S, 3>(simd, &weights, at, columns, sums),
                    (_, 2..) => self.panel_tile::<S, 2>(simd, &weights, at, columns, sums),
                    _ => self.panel_tile::<S, 1>(simd, &weights, at, columns, sums),
                };
            }
            column = range.end;
        }
    }

    /// Some columns of some rows of weights as f32, in `panel` unless they are stored so. Rows
    /// that are missing to a whole panel repeat the last one.
    #[inline(always)]
    fn widened<S: Simd>(
        &self,
        simd: S,
        rows: Range<usize>,
        columns: Range<usize>,
        panel: &mut [f32],
    ) -> [*const f32; PANEL_ROWS] {
        let weight = self.weight;
        let (stride, len) = (weight.columns, columns.len());
        assert!(
            rows.len() <= PANEL_ROWS && len <= PANEL_COLUMNS,
            "a panel of weights"
        );
        assert!(
            panel.len() == PANEL_ROWS * PANEL_COLUMNS,
            "scratch memory of a panel"
        );
        let target = (panel.as_mut_ptr(), PANEL_COLUMNS);
        // SAFETY: the columns lie within the rows, and the panel has room for all.
        unsafe {
            match weight.format {
                F32 => {}
                BF16 => {
                    let source = weight.row::<AsBf16>(rows.start).add(columns.start);
                    widen_rows::<S, AsBf16>(simd, (source, stride), target, rows.len(), len);
                }
                F8E4M3 => {
                    let source = weight.row::<AsF8>(rows.start).add(columns.start);
                    widen_rows::<S, AsF8>(simd, (source, stride), target, rows.len(), len);
                }
                WeightFormat::Blocks(format) => {
                    widen_blocks(weight, format, &rows, &columns, panel);
                }
            }
        }
        let mut pointers = [std::ptr::null(); PANEL_ROWS];
        for (r, pointer) in pointers.iter_mut().enumerate() {
            let r = r.min(rows.len() - 1);
            *pointer = match weight.format {
                F32 => weight
                    .row::<AsF32>(rows.start + r)
                    .wrapping_add(columns.start),
                _ => panel[r * PANEL_COLUMNS..].as_ptr(),
            };
        }
        pointers
    }

    /// A panel of weights times `T` rows of activations; returns `T`.
    #[inline(always)]
    fn panel_tile<S: Simd, const T: usize>(
        &self,
        simd: S,
        weights: &[*const f32; PANEL_ROWS],
        token: usize,
        columns: Range<usize>,
        sums: &mut [f32],
    ) -> usize {
        let mut inputs = [std::ptr::null(); T];
        for (t, inputs) in inputs.iter_mut().enumerate() {
            *inputs = self.product.input.row(token + t)[columns.clone()].as_ptr();
        }
        let at = |t: usize, r: usize| (t * PANEL_ROWS + r) * S::LANES;
        let mut first = 0;
        while first < PANEL_ROWS {
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

/// Widens some columns of some rows into a panel. Panels begin at multiples of all blocks.
#[inline(always)]
fn widen_blocks(
    weight: BandView<'_>,
    format: BlockFormat,
    rows: &Range<usize>,
    columns: &Range<usize>,
    panel: &mut [f32],
) {
    let blocks = columns.start / format.numbers()..columns.end / format.numbers();
    let bytes = blocks.start * format.bytes()..blocks.end * format.bytes();
    for (row, out) in rows.clone().zip(panel.chunks_exact_mut(PANEL_COLUMNS)) {
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
