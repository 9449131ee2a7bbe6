//! Products with floating-point numbers in panels: f32 activations times the 16 numbers of a column
//! of a panel, widened in registers.
//!
//! The columns of a block are added up in turns in two sums, so that the processor need not wait for
//! one addition after the other; the blocks, scaled, from first to last.

use super::Panels;
use super::codes::Place;
use crate::blocks::{BlockFormat, ScaledFormat};
use crate::panels::PANEL_ROWS;
use crate::simd::{F8_FOLD, LANES_MAX, Program, Simd};

/// Numbers of activations that are walked again and again while they stay in the L2 cache.
const TOKEN_BLOCK_NUMBERS: usize = 192 * 1024;
/// How far ahead of their use weights are asked for.
const AHEAD_BYTES: usize = 4096;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Some columns of the output.
pub(super) struct FloatBlock<'a> {
    pub(super) format: BlockFormat,
    pub(super) panels: Panels<'a>,
}

/// A format of floating-point numbers, in panels.
trait Numbers {
    /// Columns that share a scale, and are walked together.
    const COLUMNS: usize;
    /// Bytes of so many columns of one row.
    const BYTES: usize;

    /// What numbers are to be multiplied with.
    ///
    /// # Safety
    /// `place` is that of a whole block of `S::LANES` rows. The same goes for `column`.
    unsafe fn scale<S: Simd>(simd: S, place: Place) -> S::Vector;

    /// The numbers of one column of the block.
    ///
    /// # Safety
    /// As `scale`.
    unsafe fn column<S: Simd>(simd: S, place: Place, column: usize) -> S::Vector;
}

/// Half-precision numbers, which have no scales.
struct Halves;

impl Numbers for Halves {
    const COLUMNS: usize = 32;
    const BYTES: usize = 64;

    #[inline(always)]
    unsafe fn scale<S: Simd>(simd: S, _: Place) -> S::Vector {
        simd.splat(1.0)
    }

    #[inline(always)]
    unsafe fn column<S: Simd>(simd: S, place: Place, column: usize) -> S::Vector {
        // SAFETY: the column lies within the block, by the caller's promise.
        unsafe { simd.load_f16(place.piece(2 * column, 2)) }
    }
}

/// E4M3 numbers behind an f32 scale.
struct F8<const COLUMNS: usize>;

impl<const COLUMNS: usize> Numbers for F8<COLUMNS> {
    const COLUMNS: usize = COLUMNS;
    const BYTES: usize = 4 + COLUMNS;

    #[inline(always)]
    unsafe fn scale<S: Simd>(simd: S, place: Place) -> S::Vector {
        // SAFETY: the block begins with the scale.
        let scale = unsafe { simd.load(place.piece(0, 4).cast()) };
        simd.multiply(scale, simd.splat(F8_FOLD))
    }

    #[inline(always)]
    unsafe fn column<S: Simd>(simd: S, place: Place, column: usize) -> S::Vector {
        // SAFETY: the column lies within the block, by the caller's promise.
        unsafe { simd.load_f8(place.piece(4 + column, 1)) }
    }
}

impl Program for FloatBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.format {
            BlockFormat::F16 => self.run_format::<S, Halves>(simd),
            BlockFormat::Scaled(ScaledFormat::F8x32) => self.run_format::<S, F8<32>>(simd),
            BlockFormat::Scaled(ScaledFormat::F8x128) => self.run_format::<S, F8<128>>(simd),
            other => unreachable!("{other:?} as floating-point numbers"),
        }
    }
}

impl FloatBlock<'_> {
    #[inline(always)]
    fn run_format<S: Simd, F: Numbers>(&self, simd: S) {
        let tokens = self.panels.part.product.input.len();
        let columns = self.panels.part.weight.columns;
        let block = (TOKEN_BLOCK_NUMBERS / columns).max(8).next_multiple_of(8);
        let mut first = 0;
        while first < tokens {
            let last = (first + block).min(tokens);
            for panel in self.panels.numbers() {
                let mut lane = 0;
                while lane < PANEL_ROWS {
                    let mut token = first;
                    while token < last {
                        token += match (S::MANY_REGISTERS, last - token) {
                            (true, 8..) => self.tile::<S, F, 8>(simd, panel, lane, token),
                            (true, 4..) => self.tile::<S, F, 4>(simd, panel, lane, token),
                            (_, 2..) => self.tile::<S, F, 2>(simd, panel, lane, token),
                            _ => self.tile::<S, F, 1>(simd, panel, lane, token),
                        };
                    }
                    lane += S::LANES;
                }
            }
            first = last;
        }
    }

    /// `S::LANES` rows of a panel times `T` rows of activations; returns `T`.
    #[inline(always)]
    fn tile<S: Simd, F: Numbers, const T: usize>(
        &self,
        simd: S,
        panel: usize,
        lane: usize,
        token: usize,
    ) -> usize {
        let mut inputs = [std::ptr::null(); T];
        for (t, input) in inputs.iter_mut().enumerate() {
            *input = self.panels.part.product.input.row(token + t).as_ptr();
        }
        let weights = self.panels.part.weight.panel(panel);
        let block_bytes = F::BYTES * PANEL_ROWS;
        let blocks = self.panels.part.weight.columns / F::COLUMNS;
        assert_eq!(weights.len(), blocks * block_bytes, "bytes of a panel");

        let mut sums = [simd.splat(0.0); T];
        for block in weights.chunks_exact(block_bytes) {
            let place = Place {
                block: block.as_ptr(),
                row: lane,
            };
            for line in (0..F::BYTES * S::LANES).step_by(LINE) {
                simd.prefetch(place.block.wrapping_add(AHEAD_BYTES + line));
            }
            // SAFETY: rows of activations have as many columns as rows of weights.
            unsafe {
                add_block::<S, F, T>(simd, place, &inputs, &mut sums);
                for input in &mut inputs {
                    *input = input.add(F::COLUMNS);
                }
            }
        }
        for (t, sum) in sums.into_iter().enumerate() {
            let mut values = [0.0; LANES_MAX];
            // SAFETY: the array has room for all lanes.
            unsafe { simd.store(values.as_mut_ptr(), sum) };
            self.panels.put(panel, lane, token + t, &values[..S::LANES]);
        }
        T
    }
}

/// Adds the products of one block for `T` rows of activations.
///
/// # Safety
/// `place` is that of a whole block, and `inputs` address as many numbers as it has columns.
#[inline(always)]
unsafe fn add_block<S: Simd, F: Numbers, const T: usize>(
    simd: S,
    place: Place,
    inputs: &[*const f32; T],
    sums: &mut [S::Vector; T],
) {
    let [mut even, mut odd] = [[simd.splat(0.0); T]; 2];
    for column in (0..F::COLUMNS).step_by(2) {
        // SAFETY: both columns are among the block's.
        unsafe {
            let first = F::column(simd, place, column);
            let second = F::column(simd, place, column + 1);
            for t in 0..T {
                let row = inputs[t].add(column);
                even[t] = simd.multiply_add(first, simd.splat(*row), even[t]);
                odd[t] = simd.multiply_add(second, simd.splat(*row.add(1)), odd[t]);
            }
        }
    }
    // SAFETY: the caller's promise.
    let scale = unsafe { F::scale(simd, place) };
    for t in 0..T {
        sums[t] = simd.multiply_add(scale, simd.add(even[t], odd[t]), sums[t]);
    }
}
