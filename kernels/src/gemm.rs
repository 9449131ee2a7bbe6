//! Products of activations and weight matrices, shared by the operations that contain one.
//!
//! Every output element is the dot product of one row of activations and one row of weights:
//! one vector accumulator walked over the columns from first to last, then summed over its lanes
//! in a fixed order. Tiles compute several such elements side by side to hide latency and to
//! reuse loads, but never change the order within one, so that an element is the same to the last
//! bit however many rows the batch has and wherever in a tile the element lies. Weights are
//! widened to f32, which is exact, either in registers or, when several rows of activations share
//! them, once into scratch memory.
#![expect(
    unsafe_code,
    reason = "tiles load vectors from raw pointers and write disjoint outputs"
)]

use std::ops::Range;

use crate::element::Element;
use crate::features::InstructionSet;
use crate::parallel::{self, SharedOutput};
use crate::scratch::with_scratch;
use crate::simd::{self, AsBf16, AsF8, AsF32, Format, Program, Simd};

/// Rows of activations from which on widening the weights into scratch memory pays.
const WIDEN_TOKENS_MIN: usize = 4;
/// Numbers of activations that are walked again and again while they stay in the L2 cache.
const TOKEN_BLOCK_NUMBERS: usize = 128 * 1024;
/// Weight rows of one tile, and of one tile for a single row of activations.
const TILE_ROWS: usize = 4;
const TILE_ROWS_SINGLE: usize = 8;
/// Most activation rows of one tile: 24 accumulators of 32 vector registers, or 12 of 16 with
/// half as many.
const TILE_TOKENS: usize = 6;

/// A weight matrix `[rows, columns]` in its stored format.
#[derive(Clone, Copy, Debug)]
pub struct WeightView<'a> {
    element: Element,
    bytes: &'a [u8],
    rows: usize,
    columns: usize,
}

impl<'a> WeightView<'a> {
    /// A view of exactly `rows * columns` numbers, aligned as their type wants it.
    pub fn new(element: Element, bytes: &'a [u8], rows: usize, columns: usize) -> Self {
        assert_eq!(
            bytes.len(),
            rows * columns * element.bytes(),
            "bytes of a weight matrix"
        );
        assert_eq!(
            bytes.as_ptr() as usize % element.bytes(),
            0,
            "alignment of a weight matrix"
        );
        Self {
            element,
            bytes,
            rows,
            columns,
        }
    }

    /// Number format.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// One number, widened.
    pub fn read(&self, row: usize, column: usize) -> f32 {
        self.element.read(self.bytes, row * self.columns + column)
    }

    /// The stored bytes of one row.
    pub fn row_bytes(&self, row: usize) -> &'a [u8] {
        let len = self.columns * self.element.bytes();
        &self.bytes[row * len..][..len]
    }

    /// The stored numbers of one row; `F` must be the view's format.
    #[inline(always)]
    fn row<F: Format>(&self, row: usize) -> *const F::Raw {
        debug_assert_eq!(size_of::<F::Raw>(), self.element.bytes());
        self.row_bytes(row).as_ptr().cast()
    }
}

/// Rows of activations, all of them in order or those that `index` picks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InputRows<'a> {
    /// `[rows, columns]`.
    pub(crate) values: &'a [f32],
    /// Elements of one row.
    pub(crate) columns: usize,
    /// The rows to use, if not all.
    pub(crate) index: Option<&'a [u32]>,
    /// One factor for each row of `values`.
    pub(crate) scales: Option<&'a [f32]>,
}

impl<'a> InputRows<'a> {
    /// All rows of `values`, unscaled.
    pub(crate) fn all(values: &'a [f32], columns: usize) -> Self {
        Self {
            values,
            columns,
            index: None,
            scales: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self.index {
            Some(index) => index.len(),
            None => self.values.len() / self.columns,
        }
    }

    #[inline(always)]
    fn source(&self, row: usize) -> usize {
        match self.index {
            Some(index) => index[row] as usize,
            None => row,
        }
    }

    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &'a [f32] {
        &self.values[self.source(row) * self.columns..][..self.columns]
    }

    #[inline(always)]
    pub(crate) fn scale(&self, row: usize) -> f32 {
        match self.scales {
            Some(scales) => scales[self.source(row)],
            None => 1.0,
        }
    }
}

/// `out[token, row] = dot(input[token], weight[row]) * factor * weight_scale[row] * scale[token]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product<'a> {
    pub(crate) weight: WeightView<'a>,
    /// One factor for each row of the weights.
    pub(crate) weight_scales: Option<&'a [f32]>,
    pub(crate) input: InputRows<'a>,
    /// One factor for all.
    pub(crate) factor: f32,
}

impl<'a> Product<'a> {
    pub(crate) fn new(weight: WeightView<'a>, input: InputRows<'a>) -> Self {
        Self {
            weight,
            weight_scales: None,
            input,
            factor: 1.0,
        }
    }

    /// Multiply-adds.
    pub(crate) fn work(&self) -> usize {
        self.weight.rows * self.weight.columns * self.input.len()
    }

    /// Panics unless the parts and an output of `out_len` numbers agree.
    pub(crate) fn check(&self, out_len: usize) {
        assert_eq!(
            self.input.columns, self.weight.columns,
            "inputs of a product"
        );
        assert_eq!(
            out_len,
            self.input.len() * self.weight.rows,
            "outputs of a product"
        );
        let rows = self.weight.rows;
        assert!(
            self.weight_scales.is_none_or(|scales| scales.len() == rows),
            "weight scales"
        );
    }

    /// Naive product.
    pub(crate) fn reference(&self, out: &mut [f32]) {
        self.check(out.len());
        for row in 0..self.weight.rows {
            let columns = 0..self.weight.columns;
            let weights: Vec<f32> = columns
                .map(|column| self.weight.read(row, column))
                .collect();
            let scale = self.factor * self.weight_scales.map_or(1.0, |scales| scales[row]);
            for token in 0..self.input.len() {
                let input = self.input.row(token);
                let sum: f32 = input
                    .iter()
                    .zip(&weights)
                    .map(|(x, weight)| x * weight)
                    .sum();
                out[token * self.weight.rows + row] = sum * scale * self.input.scale(token);
            }
        }
    }

    /// The product, spread over threads.
    pub(crate) fn run(&self, instructions: InstructionSet, out: &mut [f32]) {
        self.check(out.len());
        let rows = rows_per_task(self.weight.rows, self.work());
        let out = SharedOutput::new(out);
        parallel::for_each(self.weight.rows.div_ceil(rows), self.work(), |task| {
            let range = task * rows..((task + 1) * rows).min(self.weight.rows);
            // SAFETY: tasks have disjoint rows of the weights, thus columns of the output.
            unsafe { self.run_rows(instructions, range, &out) }
        });
    }

    /// The columns `rows` of the output, on this thread.
    ///
    /// # Safety
    /// `out` has been checked, and no other task may access these columns at the same time.
    pub(crate) unsafe fn run_rows(
        &self,
        instructions: InstructionSet,
        rows: Range<usize>,
        out: &SharedOutput<'_, f32>,
    ) {
        let widens = self.weight.element != Element::F32 && self.input.len() >= WIDEN_TOKENS_MIN;
        let scratch = if widens {
            TILE_ROWS * padded(self.weight.columns)
        } else {
            0
        };
        with_scratch(scratch, |scratch| {
            simd::dispatch(
                instructions,
                Block {
                    product: self,
                    rows,
                    out,
                    scratch,
                },
            );
        });
    }
}

/// Weight rows of one task: enough tasks to balance the threads, each a whole number of tiles.
pub(crate) fn rows_per_task(rows: usize, work: usize) -> usize {
    let tasks = match parallel::threads_for(work) {
        1 => 1,
        threads => threads * 8,
    };
    rows.div_ceil(tasks).next_multiple_of(TILE_ROWS_SINGLE)
}

/// Columns of a row in scratch memory, such that every row starts on a cache line.
fn padded(columns: usize) -> usize {
    columns.next_multiple_of(simd::LANES_MAX)
}

/// Some columns of the output of a product.
struct Block<'a> {
    product: &'a Product<'a>,
    rows: Range<usize>,
    out: &'a SharedOutput<'a, f32>,
    scratch: &'a mut [f32],
}

impl Program for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let element = self.product.weight.element;
        let wide = element == Element::F32 || !self.scratch.is_empty();
        match (self.product.input.len(), element) {
            (0, _) => {}
            (1, Element::F32) => self.run_single::<S, AsF32>(simd),
            (1, Element::BF16) => self.run_single::<S, AsBf16>(simd),
            (1, Element::F8E4M3) => self.run_single::<S, AsF8>(simd),
            _ if wide => self.run_wide(simd),
            (_, Element::BF16) => self.run_few::<S, AsBf16>(simd),
            (_, _) => self.run_few::<S, AsF8>(simd),
        }
    }
}

impl Block<'_> {
    /// One row of activations.
    #[inline(always)]
    fn run_single<S: Simd, F: Format>(&self, simd: S) {
        let mut row = self.rows.start;
        while row + TILE_ROWS_SINGLE <= self.rows.end {
            let weights = self.weight_rows::<F, TILE_ROWS_SINGLE>(row);
            self.tile::<S, F, TILE_ROWS_SINGLE, 1>(simd, weights, row, 0);
            row += TILE_ROWS_SINGLE;
        }
        while row < self.rows.end {
            self.tile::<S, F, 1, 1>(simd, self.weight_rows::<F, 1>(row), row, 0);
            row += 1;
        }
    }

    /// Fewer rows of activations than make widening pay: weights are widened in registers.
    #[inline(always)]
    fn run_few<S: Simd, F: Format>(&self, simd: S) {
        let tokens = self.product.input.len();
        let mut row = self.rows.start;
        while row + TILE_ROWS <= self.rows.end {
            let weights = self.weight_rows::<F, TILE_ROWS>(row);
            let mut token = 0;
            while token + 2 <= tokens {
                self.tile::<S, F, TILE_ROWS, 2>(simd, weights, row, token);
                token += 2;
            }
            if token < tokens {
                self.tile::<S, F, TILE_ROWS, 1>(simd, weights, row, token);
            }
            row += TILE_ROWS;
        }
        while row < self.rows.end {
            for token in 0..tokens {
                self.tile::<S, F, 1, 1>(simd, self.weight_rows::<F, 1>(row), row, token);
            }
            row += 1;
        }
    }

    /// Many rows of activations, in blocks that stay in the cache while the weights pass by.
    #[inline(always)]
    fn run_wide<S: Simd>(mut self, simd: S) {
        let tokens = self.product.input.len();
        let block = (TOKEN_BLOCK_NUMBERS / self.product.weight.columns.max(1)).max(1);
        let block = block.next_multiple_of(TILE_TOKENS);
        let mut first = 0;
        while first < tokens {
            let last = (first + block).min(tokens);
            let mut row = self.rows.start;
            while row < self.rows.end {
                let rows = TILE_ROWS.min(self.rows.end - row);
                let weights = self.wide_rows(simd, row, rows);
                if rows == TILE_ROWS {
                    self.token_tiles(simd, weights, row, first..last);
                } else {
                    for (r, weights) in weights[..rows].iter().enumerate() {
                        for token in first..last {
                            self.tile::<S, AsF32, 1, 1>(simd, [*weights], row + r, token);
                        }
                    }
                }
                row += rows;
            }
            first = last;
        }
    }

    /// `rows` rows of weights as f32, in scratch memory unless they are stored so.
    #[inline(always)]
    fn wide_rows<S: Simd>(&mut self, simd: S, row: usize, rows: usize) -> [*const f32; TILE_ROWS] {
        let weight = self.product.weight;
        let mut wide = [std::ptr::null(); TILE_ROWS];
        if weight.element == Element::F32 {
            for (r, wide) in wide[..rows].iter_mut().enumerate() {
                *wide = weight.row::<AsF32>(row + r);
            }
            return wide;
        }
        let scratch = self.scratch.chunks_exact_mut(padded(weight.columns));
        for (r, (wide, out)) in wide[..rows].iter_mut().zip(scratch).enumerate() {
            *wide = out.as_ptr();
            let out = &mut out[..weight.columns];
            // SAFETY: a row of the weights has `columns` numbers of its format.
            unsafe {
                if weight.element == Element::BF16 {
                    simd::widen::<S, AsBf16>(simd, weight.row::<AsBf16>(row + r), out);
                } else {
                    simd::widen::<S, AsF8>(simd, weight.row::<AsF8>(row + r), out);
                }
            }
        }
        wide
    }

    #[inline(always)]
    fn token_tiles<S: Simd>(
        &self,
        simd: S,
        weights: [*const f32; TILE_ROWS],
        row: usize,
        tokens: Range<usize>,
    ) {
        let mut token = tokens.start;
        while token < tokens.end {
            token += match (S::MANY_REGISTERS, tokens.end - token) {
                // Eight are better cut in halves than in six and two.
                (true, 6 | 7 | 9..) => {
                    self.tile::<S, AsF32, TILE_ROWS, 6>(simd, weights, row, token)
                }
                (true, 4 | 5 | 8) => self.tile::<S, AsF32, TILE_ROWS, 4>(simd, weights, row, token),
                (false, 3..) => self.tile::<S, AsF32, TILE_ROWS, 3>(simd, weights, row, token),
                (_, 2 | 3) => self.tile::<S, AsF32, TILE_ROWS, 2>(simd, weights, row, token),
                _ => self.tile::<S, AsF32, TILE_ROWS, 1>(simd, weights, row, token),
            };
        }
    }

    #[inline(always)]
    fn weight_rows<F: Format, const R: usize>(&self, row: usize) -> [*const F::Raw; R] {
        let mut rows = [std::ptr::null(); R];
        for (r, pointer) in rows.iter_mut().enumerate() {
            *pointer = self.product.weight.row::<F>(row + r);
        }
        rows
    }

    /// `R` rows of weights times `T` rows of activations; returns `T`.
    #[expect(
        clippy::needless_range_loop,
        reason = "indices say which row of activations"
    )]
    #[inline(always)]
    fn tile<S: Simd, F: Format, const R: usize, const T: usize>(
        &self,
        simd: S,
        weights: [*const F::Raw; R],
        row: usize,
        token: usize,
    ) -> usize {
        let product = self.product;
        let mut inputs = [std::ptr::null(); T];
        for (t, pointer) in inputs.iter_mut().enumerate() {
            *pointer = product.input.row(token + t).as_ptr();
        }
        // SAFETY: rows of weights and of activations have as many numbers as the weights have
        // columns, by `Product::check`; scratch rows were filled to that length.
        let sums = unsafe { dots::<S, F, R, T>(simd, weights, inputs, product.weight.columns) };
        for t in 0..T {
            let scale = product.input.scale(token + t);
            let start = (token + t) * product.weight.rows + row;
            // SAFETY: these columns of the output belong to this block alone.
            let out = unsafe { self.out.range(start..start + R) };
            for (r, out) in out.iter_mut().enumerate() {
                let weight_scale = match product.weight_scales {
                    Some(scales) => scales[row + r],
                    None => 1.0,
                };
                *out = sums[r][t] * (self.fold() * product.factor * weight_scale) * scale;
            }
        }
        T
    }

    /// What loading (or widening) left out of the weights.
    #[inline(always)]
    fn fold(&self) -> f32 {
        match self.product.weight.element {
            Element::F32 => AsF32::FOLD,
            Element::BF16 => AsBf16::FOLD,
            Element::F8E4M3 => AsF8::FOLD,
        }
    }
}

/// Dot products of all pairs: the order of operations of each is the same for all `R` and `T`.
///
/// # Safety
/// All pointers address `columns` readable numbers.
#[inline(always)]
unsafe fn dots<S: Simd, F: Format, const R: usize, const T: usize>(
    simd: S,
    weights: [*const F::Raw; R],
    inputs: [*const f32; T],
    columns: usize,
) -> [[f32; T]; R] {
    let mut sums = [[simd.splat(0.0); T]; R];
    let mut at = 0;
    while at + S::LANES <= columns {
        let mut input = [simd.splat(0.0); T];
        for t in 0..T {
            // SAFETY: a whole vector lies before the end.
            input[t] = unsafe { simd.load(inputs[t].add(at)) };
        }
        for r in 0..R {
            // SAFETY: a whole vector lies before the end.
            let weight = unsafe { F::load(simd, weights[r].add(at)) };
            if T == 1 {
                // Rows are about as long as a page, where the processor's own prefetching ends.
                simd.prefetch(weights[r].wrapping_add(at + R * columns).cast());
            }
            for t in 0..T {
                sums[r][t] = simd.multiply_add(weight, input[t], sums[r][t]);
            }
        }
        at += S::LANES;
    }
    if at < columns {
        let count = columns - at;
        for r in 0..R {
            // SAFETY: `count` numbers lie before the end.
            let weight = unsafe { F::load_first(simd, weights[r].add(at), count) };
            for t in 0..T {
                // SAFETY: `count` numbers lie before the end.
                let input = unsafe { AsF32::load_first(simd, inputs[t].add(at), count) };
                sums[r][t] = simd.multiply_add(weight, input, sums[r][t]);
            }
        }
    }
    let mut result = [[0.0; T]; R];
    for (result, sums) in result.iter_mut().zip(sums) {
        for (result, sum) in result.iter_mut().zip(sums) {
            *result = simd.sum(sum);
        }
    }
    result
}
