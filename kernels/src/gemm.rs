//! Products of activations and weight matrices, shared by the operations that contain one.
//!
//! Every output element is the dot product of one row of activations and one row of weights:
//! one vector accumulator walked over the columns from first to last, then summed over its lanes
//! in a fixed order. Weights in panels have a row in each lane and need no such sum. Tiles compute
//! several such elements side by side to hide latency and to reuse loads, but never change the
//! order within one, so that an element is the same to the last bit however many rows the batch has
//! and wherever in a tile the element lies. Weights in panels are multiplied as
//! [`Arithmetic`] says; others are widened to f32, which is exact, either in registers or, when
//! several rows of activations share them or they are stored in blocks, once into scratch memory.
#![expect(
    unsafe_code,
    reason = "tiles load vectors from raw pointers and write disjoint outputs"
)]

mod block;
mod floats;
mod integers;
mod operands;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod view;
mod walk;

use std::ops::Range;

use block::Block;
pub(crate) use floats::FloatBlock;
pub(crate) use integers::IntegerBlock;

use crate::features::InstructionSet;
use crate::panels::{Arithmetic, PANEL_ROWS};
use crate::parallel::{self, SharedOutput};
use crate::scratch::with_scratch;
use crate::simd;

pub use operands::CODE_MAX;
pub(crate) use operands::Operands;
pub use view::{Bands, WeightFormat, WeightView};

use view::BandView;
pub(crate) use view::{Arrangement, Band};

/// Tasks for each thread, so that those that finish early find more to do.
const TASKS_PER_THREAD: usize = 4;
/// Multiply-adds that are worth handing to another thread: some ten microseconds.
const TASK_WORK_MIN: usize = 100_000;

/// Rows of activations, all of them in order or those that `index` picks.
#[derive(Clone, Copy, Debug)]
pub struct InputRows<'a> {
    /// `[rows, columns]`.
    pub values: &'a [f32],
    /// Elements of one row.
    pub columns: usize,
    /// The rows to use, if not all.
    pub index: Option<&'a [u32]>,
    /// One factor for each row of `values`.
    pub scales: Option<&'a [f32]>,
}

impl<'a> InputRows<'a> {
    /// All rows of `values`, unscaled.
    pub fn all(values: &'a [f32], columns: usize) -> Self {
        Self {
            values,
            columns,
            index: None,
            scales: None,
        }
    }

    /// Rows that the product takes.
    pub fn count(&self) -> usize {
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

    /// The numbers of one of them.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.values[self.source(row) * self.columns..][..self.columns]
    }

    /// The factor on its products.
    #[inline(always)]
    pub fn scale(&self, row: usize) -> f32 {
        match self.scales {
            Some(scales) => scales[self.source(row)],
            None => 1.0,
        }
    }
}

/// `out[token, row] = dot(input[token], weight[row]) * factor * weight_scale[row] * scale[token]`.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// The weights.
    pub weight: WeightView<'a>,
    /// One factor for each row of the weights.
    pub weight_scales: Option<&'a [f32]>,
    /// What is multiplied.
    pub input: InputRows<'a>,
    /// One factor for all.
    pub factor: f32,
}

impl<'a> Product<'a> {
    /// The product without scales.
    pub fn new(weight: WeightView<'a>, input: InputRows<'a>) -> Self {
        Self {
            weight,
            weight_scales: None,
            input,
            factor: 1.0,
        }
    }

    /// Multiply-adds.
    pub fn work(&self) -> usize {
        self.weight.rows() * self.weight.columns() * self.input.count()
    }

    /// Panics unless the parts and an output of `out_len` numbers agree.
    pub fn check(&self, out_len: usize) {
        assert_eq!(
            self.input.columns,
            self.weight.columns(),
            "inputs of a product"
        );
        assert_eq!(
            out_len,
            self.input.count() * self.weight.rows(),
            "outputs of a product"
        );
        let rows = self.weight.rows();
        assert!(
            self.weight_scales.is_none_or(|scales| scales.len() == rows),
            "weight scales"
        );
    }

    /// The product, spread over threads.
    pub fn run(&self, instructions: InstructionSet, out: &mut [f32]) {
        self.check(out.len());
        let rows = rows_per_task(self.weight.rows(), self.work(), 1);
        let out = SharedOutput::new(out);
        Operands::with(self, instructions, |operands| {
            parallel::for_each(self.weight.rows().div_ceil(rows), self.work(), |task| {
                let range = task * rows..((task + 1) * rows).min(self.weight.rows());
                // SAFETY: tasks have disjoint rows of the weights, thus columns of the output.
                unsafe { self.run_rows(instructions, operands, range, &out) }
            });
        });
    }

    /// The columns `rows` of the output, on this thread. Weights in panels need `operands`.
    ///
    /// # Safety
    /// `out` has been checked, and no other task may access these columns at the same time.
    pub(crate) unsafe fn run_rows(
        &self,
        instructions: InstructionSet,
        operands: Operands<'_>,
        rows: Range<usize>,
        out: &SharedOutput<'_, f32>,
    ) {
        for weight in self.weight.bands() {
            let start = rows.start.max(weight.first_row);
            let end = rows.end.min(weight.first_row + weight.band.rows);
            if start >= end || self.input.count() == 0 {
                continue;
            }
            let part = Part {
                product: self,
                weight,
                rows: start - weight.first_row..end - weight.first_row,
                out,
            };
            part.run(instructions, operands);
        }
    }
}

/// Some columns of the output, from weights of one format.
struct Part<'a> {
    product: &'a Product<'a>,
    weight: BandView<'a>,
    /// Rows of `weight`.
    rows: Range<usize>,
    out: &'a SharedOutput<'a, f32>,
}

impl Part<'_> {
    /// Chooses the kernel.
    fn run(self, instructions: InstructionSet, operands: Operands<'_>) {
        let (format, arithmetic) = (self.weight.band.format, self.weight.arithmetic());
        match (format, arithmetic) {
            (_, None) => with_scratch(Block::scratch_len(&self), |scratch| {
                simd::dispatch(instructions, Block::new(self, scratch));
            }),
            (WeightFormat::Blocks(format), Some(Arithmetic::Integers)) => {
                let input = operands.quantised.expect("quantised activations");
                let panels = Panels::new(self);
                let block = IntegerBlock {
                    format,
                    input,
                    panels,
                };
                simd::dispatch(instructions, block);
            }
            (format, Some(arithmetic)) => {
                let panels = Panels::new(self);
                #[cfg(target_arch = "x86_64")]
                if let (Arithmetic::Tiles, Some(input)) = (arithmetic, operands.split) {
                    return tiles::run(panels, input);
                }
                simd::dispatch(instructions, FloatBlock { format, panels });
            }
        }
    }

    /// Stores elements of the output for one row of activations, `sums` for consecutive rows of
    /// weights.
    #[inline(always)]
    fn put(&self, row: usize, token: usize, sums: &[f32]) {
        let product = self.product;
        let row = self.weight.first_row + row;
        let scale = product.factor * product.input.scale(token);
        let at = token * product.weight.rows() + row;
        // SAFETY: these columns of the output belong to this part alone.
        let out = unsafe { self.out.range(at..at + sums.len()) };
        match product.weight_scales {
            Some(scales) => {
                for ((out, sum), weight_scale) in out.iter_mut().zip(sums).zip(&scales[row..]) {
                    *out = sum * (scale * weight_scale);
                }
            }
            None => {
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = sum * scale;
                }
            }
        }
    }
}

/// A part whose weights are in panels.
struct Panels<'a> {
    part: Part<'a>,
    /// Rows of the first panel that do not count.
    skipped: usize,
}

impl<'a> Panels<'a> {
    fn new(part: Part<'a>) -> Self {
        let skipped = part.weight.skipped().expect("weights in panels");
        Self { part, skipped }
    }

    /// The panels that have rows of the part.
    #[inline(always)]
    fn numbers(&self) -> Range<usize> {
        let rows = &self.part.rows;
        (self.skipped + rows.start) / PANEL_ROWS..(self.skipped + rows.end).div_ceil(PANEL_ROWS)
    }

    /// Where the elements of all the panel's rows go for some rows of activations, and how many
    /// numbers lie between two of the latter; `None` unless sums can be stored as they are.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn place(&self, panel: usize, tokens: Range<usize>) -> Option<(*mut f32, usize)> {
        let (part, product) = (&self.part, self.part.product);
        let first = (panel * PANEL_ROWS).checked_sub(self.skipped)?;
        let whole = part.rows.start <= first && first + PANEL_ROWS <= part.rows.end;
        let scaled = product.factor != 1.0
            || product.weight_scales.is_some()
            || product.input.scales.is_some();
        if !whole || scaled {
            return None;
        }
        let stride = product.weight.rows();
        let at = tokens.start * stride + part.weight.first_row + first;
        let len = (tokens.len() - 1) * stride + PANEL_ROWS;
        Some((part.out.pointer(at..at + len), stride))
    }

    /// Stores the elements of one row of activations and of the panel's rows, as far as they
    /// belong to the part.
    #[inline(always)]
    fn put(&self, panel: usize, token: usize, sums: &[f32; PANEL_ROWS]) {
        let first = panel * PANEL_ROWS;
        let rows = &self.part.rows;
        let start = (self.skipped + rows.start).clamp(first, first + PANEL_ROWS);
        let end = (self.skipped + rows.end).clamp(first, first + PANEL_ROWS);
        if start < end {
            let sums = &sums[start - first..end - first];
            self.part.put(start - self.skipped, token, sums);
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
    // As many for each thread: otherwise some wait for the others.
    let tasks = (work / TASK_WORK_MIN).next_multiple_of(threads).min(wanted);
    let tasks = tasks.div_ceil(products.max(1)).max(1);
    rows.div_ceil(tasks).next_multiple_of(PANEL_ROWS)
}
