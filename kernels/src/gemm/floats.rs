//! Products with floating-point numbers in panels: f32 activations times the 16 numbers of a column
//! of a panel, widened in registers.
//!
//! The columns of a block are added up in turns in two sums, so that the processor need not wait for
//! one addition after the other; the blocks, scaled, from first to last.

use std::marker::PhantomData;

use super::codes::Place;
use super::walk::{BlockProduct, walk};
use super::{InputRows, Panels};
use crate::blocks::{BlockFormat, ScaledFormat};
use crate::simd::{F8_FOLD, Program, Simd};

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
        let product = FloatProduct::<F> {
            input: self.panels.part.product.input,
            format: PhantomData,
        };
        walk(simd, &self.panels, &product);
    }
}

/// Numbers of one format times activations.
struct FloatProduct<'a, F> {
    input: InputRows<'a>,
    format: PhantomData<F>,
}

impl<F: Numbers> BlockProduct for FloatProduct<'_, F> {
    const COLUMNS: usize = F::COLUMNS;
    const BYTES: usize = F::BYTES;
    const INPUT_BYTES: usize = 4;
    type Input = *const f32;

    #[inline(always)]
    fn input(&self, token: usize) -> Self::Input {
        self.input.row(token).as_ptr()
    }

    #[inline(always)]
    unsafe fn add<S: Simd, const T: usize>(
        simd: S,
        place: Place,
        inputs: &mut [Self::Input; T],
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
            // SAFETY: so many columns are left.
            inputs[t] = unsafe { inputs[t].add(F::COLUMNS) };
        }
    }
}
