//! Products with floating-point numbers in panels: f32 activations times the 16 numbers of a column
//! of a panel, widened in registers.
//!
//! The columns of a block are added up in turns in two sums, so that the processor need not wait for
//! one addition after the other; the blocks, scaled, from first to last.

use std::marker::PhantomData;

use super::walk::{BlockProduct, PARTS_MAX, Sums, parts, walk};
use super::{InputRows, Panels, WeightFormat};
use crate::element::Element;
use crate::formats::{Numbers, PanelPlace};
use crate::simd::{Program, Simd};

/// Some columns of the output.
pub(crate) struct FloatBlock<'a> {
    pub(super) format: WeightFormat,
    pub(super) panels: Panels<'a>,
}

/// BF16 numbers, which are stored in pairs and have no scales.
struct Bf16;

impl Numbers for Bf16 {
    const COLUMNS: usize = 32;
    const BYTES: usize = 64;

    #[inline(always)]
    unsafe fn pair<S: Simd>(simd: S, place: PanelPlace, column: usize) -> [S::Vector; 2] {
        // SAFETY: the columns lie within the block, by the caller's promise.
        let both = unsafe { simd.load_integers(place.piece(2 * column, 4)) };
        let second = simd.and(both, simd.splat_integer(0xffff_0000_u32 as i32));
        [
            simd.numbers_of_bits(simd.shift_left(both, 16)),
            simd.numbers_of_bits(second),
        ]
    }
}

impl Program for FloatBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.format {
            WeightFormat::Numbers(Element::BF16) => self.multiply::<S, Bf16>(simd),
            WeightFormat::Numbers(element) => unreachable!("{element:?} in panels"),
            WeightFormat::Blocks(format) => format.multiply_numbers(simd, &self),
        }
    }
}

impl FloatBlock<'_> {
    /// Multiplies numbers of the format `F`.
    #[inline(always)]
    pub(crate) fn multiply<S: Simd, F: Numbers>(&self, simd: S) {
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
        block: *const u8,
        inputs: &mut [Self::Input; T],
        sums: &mut [Sums<S>; T],
    ) {
        let [mut even, mut odd] = [[[simd.splat(0.0); PARTS_MAX]; T]; 2];
        for column in (0..F::COLUMNS).step_by(2) {
            for part in 0..parts::<S>() {
                // SAFETY: both columns are among the block's.
                unsafe {
                    let place = PanelPlace::part::<S>(block, part);
                    let [first, second] = F::pair(simd, place, column);
                    for t in 0..T {
                        let row = inputs[t].add(column);
                        even[t][part] = simd.multiply_add(first, simd.splat(*row), even[t][part]);
                        let next = simd.splat(*row.add(1));
                        odd[t][part] = simd.multiply_add(second, next, odd[t][part]);
                    }
                }
            }
        }
        for part in 0..parts::<S>() {
            // SAFETY: the caller's promise.
            let scale = unsafe { F::scale(simd, PanelPlace::part::<S>(block, part)) };
            for t in 0..T {
                let sum = simd.add(even[t][part], odd[t][part]);
                sums[t][part] = simd.multiply_add(scale, sum, sums[t][part]);
            }
        }
        for input in inputs {
            // SAFETY: so many columns are left.
            *input = unsafe { input.add(F::COLUMNS) };
        }
    }
}
