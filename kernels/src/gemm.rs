//! Products of activations and weight matrices, shared by the operations that contain one.
//!
//! Every output element is the dot product of one row of activations and one row of weights:
//! one vector accumulator walked over the columns from first to last, then summed over its lanes
//! in a fixed order. Tiles compute several such elements side by side to hide latency and to
//! reuse loads, but never change the order within one, so that an element is the same to the last
//! bit however many rows the batch has and wherever in a tile the element lies. Weights are
//! widened to f32, which is exact, either in registers or, when several rows of activations share
//! them or they are stored in blocks, once into scratch memory.
#![expect(
    unsafe_code,
    reason = "tiles load vectors from raw pointers and write disjoint outputs"
)]

mod block;
#[cfg(test)]
mod tests;
mod view;

use std::ops::Range;

use block::Block;

use crate::features::InstructionSet;
use crate::parallel::{self, SharedOutput};
use crate::scratch::with_scratch;
use crate::simd;

pub use view::{Bands, WeightFormat, WeightView};

/// Tasks for each thread, so that those that finish early find more to do.
const TASKS_PER_THREAD: usize = 4;
/// Multiply-adds that are worth handing to another thread: some ten microseconds.
const TASK_WORK_MIN: usize = 100_000;

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
        self.weight.rows() * self.weight.columns() * self.input.len()
    }

    /// Panics unless the parts and an output of `out_len` numbers agree.
    pub(crate) fn check(&self, out_len: usize) {
        assert_eq!(
            self.input.columns,
            self.weight.columns(),
            "inputs of a product"
        );
        assert_eq!(
            out_len,
            self.input.len() * self.weight.rows(),
            "outputs of a product"
        );
        let rows = self.weight.rows();
        assert!(
            self.weight_scales.is_none_or(|scales| scales.len() == rows),
            "weight scales"
        );
    }

    /// Naive product.
    pub(crate) fn reference(&self, out: &mut [f32]) {
        self.check(out.len());
        for row in 0..self.weight.rows() {
            let mut weights = vec![0.0; self.weight.columns()];
            self.weight.widen_row(row, &mut weights);
            let scale = self.factor * self.weight_scales.map_or(1.0, |scales| scales[row]);
            for token in 0..self.input.len() {
                let input = self.input.row(token);
                let sum: f32 = input
                    .iter()
                    .zip(&weights)
                    .map(|(x, weight)| x * weight)
                    .sum();
                out[token * self.weight.rows() + row] = sum * scale * self.input.scale(token);
            }
        }
    }

    /// The product, spread over threads.
    pub(crate) fn run(&self, instructions: InstructionSet, out: &mut [f32]) {
        self.check(out.len());
        let rows = rows_per_task(self.weight.rows(), self.work(), 1);
        let out = SharedOutput::new(out);
        parallel::for_each(self.weight.rows().div_ceil(rows), self.work(), |task| {
            let range = task * rows..((task + 1) * rows).min(self.weight.rows());
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
        for band in self.weight.bands() {
            let start = rows.start.max(band.first_row);
            let end = rows.end.min(band.first_row + band.rows);
            if start >= end {
                continue;
            }
            with_scratch(Block::scratch_len(self, &band), |scratch| {
                let block = Block {
                    product: self,
                    weight: band,
                    rows: start - band.first_row..end - band.first_row,
                    out,
                    scratch,
                };
                simd::dispatch(instructions, block);
            });
        }
    }
}

/// Weight rows of one task when `products` products of `rows` rows each, `work` multiply-adds
/// in all, run side by side: enough tasks to balance the threads, none too small to be worth
/// handing over, each a whole number of panels.
pub(crate) fn rows_per_task(rows: usize, work: usize, products: usize) -> usize {
    let threads = parallel::threads_for(work);
    let wanted = if threads == 1 {
        products
    } else {
        threads * TASKS_PER_THREAD
    };
    let tasks = wanted
        .min(work / TASK_WORK_MIN)
        .div_ceil(products.max(1))
        .max(1);
    rows.div_ceil(tasks).next_multiple_of(block::PANEL_ROWS)
}
