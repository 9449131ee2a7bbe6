//! Products with weights in blocks: 8-bit activations times the stored codes, in integers.
//!
//! A number is `scale * code - minimum`, and so is its share of a dot product: for each group of
//! 32 columns, `scale * s * dot(codes, activations) - minimum * s * sum(activations)` with the
//! activations' scale `s`. The integer sums are exact; the f32 sum over the groups goes from
//! first to last, whatever else is computed beside it.

use std::marker::PhantomData;

use super::Panels;
use super::operands::Quantised;
use super::walk::{BlockProduct, Sums, parts, walk};
use crate::formats::{BlockFormat, Codes, Group, PanelPlace};
use crate::panels::GROUP_COLUMNS;
use crate::simd::{Program, Simd};

/// Some columns of the output.
pub(crate) struct IntegerBlock<'a> {
    pub(super) format: BlockFormat,
    pub(super) input: Quantised<'a>,
    pub(super) panels: Panels<'a>,
}

impl Program for IntegerBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.format.multiply_codes(simd, &self);
    }
}

impl IntegerBlock<'_> {
    /// Multiplies codes of the format `F`.
    #[inline(always)]
    pub(crate) fn multiply<S: Simd, F: Codes>(&self, simd: S) {
        let product = CodeProduct::<F> {
            input: self.input,
            format: PhantomData,
        };
        walk(simd, &self.panels, &product);
    }
}

/// Codes of one format times quantised activations.
struct CodeProduct<'a, F> {
    input: Quantised<'a>,
    format: PhantomData<F>,
}

impl<F: Codes> BlockProduct for CodeProduct<'_, F> {
    const COLUMNS: usize = F::NUMBERS;
    const BYTES: usize = F::BYTES;
    const INPUT_BYTES: usize = 1;
    /// Codes, and the factors of their groups.
    type Input = (*const i8, *const [f32; 4]);

    #[inline(always)]
    fn input(&self, token: usize) -> Self::Input {
        let (codes, factors) = self.input.row(token);
        (codes.as_ptr(), factors.as_ptr())
    }

    #[inline(always)]
    unsafe fn add<S: Simd, const T: usize>(
        simd: S,
        block: *const u8,
        inputs: &mut [Self::Input; T],
        sums: &mut [Sums<S>; T],
    ) {
        for group in 0..F::NUMBERS / GROUP_COLUMNS {
            for part in 0..parts::<S>() {
                // SAFETY: the block has these groups, and so have the activations.
                unsafe {
                    let group = F::group(simd, PanelPlace::part::<S>(block, part), group);
                    add_group::<S, F, T>(simd, &group, inputs, part, sums);
                }
            }
            for (codes, factors) in &mut *inputs {
                // SAFETY: so many columns are left.
                unsafe { (*codes, *factors) = (codes.add(GROUP_COLUMNS), factors.add(1)) };
            }
        }
    }
}

/// Adds to one part of the sums the products of one group of columns for `T` rows of activations,
/// side by side, so that the processor need not wait for one sum after the other.
///
/// # Safety
/// `inputs` address 32 bytes each, and the factors of one group.
#[inline(always)]
unsafe fn add_group<S: Simd, F: Codes, const T: usize>(
    simd: S,
    group: &Group<S>,
    inputs: &[(*const i8, *const [f32; 4]); T],
    part: usize,
    sums: &mut [Sums<S>; T],
) {
    let mut dots = [[simd.splat_integer(0); 2]; T];
    for (index, &four) in group.codes.iter().enumerate() {
        let half = if F::HALVES { index / 4 } else { 0 };
        for (dots, (codes, _)) in dots.iter_mut().zip(inputs) {
            // SAFETY: four of the 32 bytes.
            let values = unsafe { codes.cast::<i32>().add(index).read_unaligned() };
            let values = simd.splat_integer(values);
            dots[half] = match F::SMALL {
                true => simd.dot_four_small(dots[half], four, values),
                false => simd.dot_four(dots[half], four, values),
            };
        }
    }
    for ((sum, dots), (_, row)) in sums.iter_mut().zip(dots).zip(inputs) {
        let sum = &mut sum[part];
        // SAFETY: the caller's promise.
        let [scale, whole, first, second] = unsafe { **row };
        let scale = simd.splat(scale);
        let factor = simd.multiply(group.scales[0], scale);
        *sum = simd.multiply_add(factor, simd.numbers(dots[0]), *sum);
        if F::HALVES {
            let factor = simd.multiply(group.scales[1], scale);
            *sum = simd.multiply_add(factor, simd.numbers(dots[1]), *sum);
            *sum = simd.multiply_add(group.minima[0], simd.splat(-first), *sum);
            *sum = simd.multiply_add(group.minima[1], simd.splat(-second), *sum);
        } else {
            *sum = simd.multiply_add(group.minima[0], simd.splat(-whole), *sum);
        }
    }
}
