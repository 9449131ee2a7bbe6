//! Products with weights in blocks: 8-bit activations times the stored codes, in integers.
//!
//! A number is `scale * code - minimum`, and so is its share of a dot product: for each group of
//! 32 columns, `scale * s * dot(codes, activations) - minimum * s * sum(activations)` with the
//! activations' scale `s`. The integer sums are exact; the f32 sum over the groups goes from
//! first to last, whatever else is computed beside it.

use super::Panels;
use super::codes::{self, Codes, Group, Place};
use super::operands::Quantised;
use crate::blocks::{BlockFormat, ScaledFormat};
use crate::panels::{GROUP_COLUMNS, PANEL_ROWS};
use crate::simd::{LANES_MAX, Program, Simd};

/// Bytes of quantised activations that are walked again and again while they stay in the L2
/// cache.
const TOKEN_BLOCK_BYTES: usize = 512 * 1024;

/// How far ahead of their use weights are asked for. Processors do not prefetch beyond the end of
/// a page by themselves.
const AHEAD_BYTES: usize = 4096;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Some columns of the output.
pub(super) struct IntegerBlock<'a> {
    pub(super) format: BlockFormat,
    pub(super) input: Quantised<'a>,
    pub(super) panels: Panels<'a>,
}

impl Program for IntegerBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.format {
            BlockFormat::Q8_0 => self.run_format::<S, codes::Q8_0>(simd),
            BlockFormat::Q4_0 => self.run_format::<S, codes::Q4_0>(simd),
            BlockFormat::Q4_1 => self.run_format::<S, codes::Q4_1>(simd),
            BlockFormat::Mxfp4 => self.run_format::<S, codes::Mxfp4>(simd),
            BlockFormat::Q5_0 => self.run_format::<S, codes::Q5_0>(simd),
            BlockFormat::Q5_1 => self.run_format::<S, codes::Q5_1>(simd),
            BlockFormat::Q2K => self.run_format::<S, codes::Q2K>(simd),
            BlockFormat::Q3K => self.run_format::<S, codes::Q3K>(simd),
            BlockFormat::Q4K => self.run_format::<S, codes::Q4K>(simd),
            BlockFormat::Q5K => self.run_format::<S, codes::Q5K>(simd),
            BlockFormat::Q6K => self.run_format::<S, codes::Q6K>(simd),
            BlockFormat::Scaled(format) => self.run_scaled(simd, format),
            BlockFormat::F16 => unreachable!("half-precision numbers are not codes"),
        }
    }
}

impl IntegerBlock<'_> {
    #[inline(always)]
    fn run_scaled<S: Simd>(&self, simd: S, format: ScaledFormat) {
        match format {
            ScaledFormat::I8x128 => self.run_format::<S, codes::I8x128>(simd),
            ScaledFormat::I8x32 => self.run_format::<S, codes::I8x32>(simd),
            ScaledFormat::I4x128 => self.run_format::<S, codes::I4x128>(simd),
            ScaledFormat::I4x32 => self.run_format::<S, codes::I4x32>(simd),
            ScaledFormat::I4x32Bf16 => self.run_format::<S, codes::I4x32Bf16>(simd),
            ScaledFormat::Nvfp4 => self.run_format::<S, codes::Nvfp4>(simd),
            ScaledFormat::F8x128 | ScaledFormat::F8x32 => unreachable!("{format:?} has no codes"),
        }
    }

    #[inline(always)]
    fn run_format<S: Simd, F: Codes>(&self, simd: S) {
        let tokens = self.panels.part.product.input.len();
        let columns = self.panels.part.weight.columns;
        let block = (TOKEN_BLOCK_BYTES / columns).max(8).next_multiple_of(8);
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
    fn tile<S: Simd, F: Codes, const T: usize>(
        &self,
        simd: S,
        panel: usize,
        lane: usize,
        token: usize,
    ) -> usize {
        let columns = self.panels.part.weight.columns;
        let groups = columns / GROUP_COLUMNS;
        let rows = &self.input.codes[token * columns..(token + T) * columns];
        let factors = &self.input.factors[token * groups..(token + T) * groups];
        // Pointers, so that the loop over them is unrolled and all sums stay in registers.
        let mut inputs = [(std::ptr::null(), std::ptr::null()); T];
        for (t, input) in inputs.iter_mut().enumerate() {
            *input = (rows[t * columns..].as_ptr(), factors[t * groups..].as_ptr());
        }
        let weights = self.panels.part.weight.panel(panel);
        let blocks = columns / F::COLUMNS;
        let block_bytes = F::BYTES * PANEL_ROWS;
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
            for within in 0..F::COLUMNS / GROUP_COLUMNS {
                // SAFETY: the block has these groups, and rows of activations have as many groups
                // as rows of weights.
                unsafe {
                    let group = F::group(simd, place, within);
                    add_group::<S, F, T>(simd, &group, &inputs, &mut sums);
                    for (codes, factors) in &mut inputs {
                        (*codes, *factors) = (codes.add(GROUP_COLUMNS), factors.add(1));
                    }
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

/// Adds the products of one group of columns for `T` rows of activations, side by side, so that
/// the processor need not wait for one sum after the other.
///
/// # Safety
/// `inputs` address 32 bytes each, and the factors of one group.
#[inline(always)]
unsafe fn add_group<S: Simd, F: Codes, const T: usize>(
    simd: S,
    group: &Group<S>,
    inputs: &[(*const i8, *const [f32; 4]); T],
    sums: &mut [S::Vector; T],
) {
    let mut dots = [[simd.splat_integer(0); 2]; T];
    for (index, &four) in group.codes.iter().enumerate() {
        let half = if F::HALVES { index / 4 } else { 0 };
        for (dots, (codes, _)) in dots.iter_mut().zip(inputs) {
            // SAFETY: four of the 32 bytes.
            let values = unsafe { codes.cast::<i32>().add(index).read_unaligned() };
            dots[half] = simd.dot_four(dots[half], four, simd.splat_integer(values));
        }
    }
    for ((sum, dots), (_, row)) in sums.iter_mut().zip(dots).zip(inputs) {
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
