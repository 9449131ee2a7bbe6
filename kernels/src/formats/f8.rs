//! E4M3 numbers behind an f32 scale.

use super::panel::{Numbers, Place};
use super::unpack::{e4m3, single_at, widen_blocks};
use super::{Arithmetic, FloatBlock, Format, Layout, Separate, Simd};
use crate::simd::F8_FOLD;

/// 128 numbers to a scale.
pub(crate) struct F8x128;
/// 32 numbers to a scale.
pub(crate) struct F8x32;

impl Format for F8x128 {
    const NAME: &str = "FP8";
    const NUMBERS: usize = 128;
    const BYTES: usize = 4 + Self::NUMBERS;
    const PIECES: Layout = &[[4, 1], [1, Self::NUMBERS]];
    const ARITHMETIC: Arithmetic = Arithmetic::Floats;
    const SEPARATE: Option<Separate> = Some(Separate {
        code_bytes: Self::NUMBERS,
        bf16_scale: false,
    });

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        widen_blocks(
            blocks,
            out,
            widen_block::<{ Self::BYTES }, { Self::NUMBERS }>,
        );
    }

    #[inline(always)]
    fn multiply_numbers<S: Simd>(simd: S, block: &FloatBlock<'_>) {
        block.multiply::<S, Columns<{ Self::NUMBERS }>>(simd);
    }
}

impl Format for F8x32 {
    const NAME: &str = "FP8";
    const NUMBERS: usize = 32;
    const BYTES: usize = 4 + Self::NUMBERS;
    const PIECES: Layout = &[[4, 1], [1, Self::NUMBERS]];
    const ARITHMETIC: Arithmetic = Arithmetic::Floats;
    const SEPARATE: Option<Separate> = Some(Separate {
        code_bytes: Self::NUMBERS,
        bf16_scale: false,
    });

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        widen_blocks(
            blocks,
            out,
            widen_block::<{ Self::BYTES }, { Self::NUMBERS }>,
        );
    }

    #[inline(always)]
    fn multiply_numbers<S: Simd>(simd: S, block: &FloatBlock<'_>) {
        block.multiply::<S, Columns<{ Self::NUMBERS }>>(simd);
    }
}

/// A block of so many columns in panels.
struct Columns<const COLUMNS: usize>;

impl<const COLUMNS: usize> Numbers for Columns<COLUMNS> {
    const COLUMNS: usize = COLUMNS;
    const BYTES: usize = 4 + COLUMNS;

    #[inline(always)]
    unsafe fn scale<S: Simd>(simd: S, place: Place) -> S::Vector {
        // SAFETY: the block begins with the scale.
        let scale = unsafe { simd.load(place.piece(0, 4).cast()) };
        simd.multiply(scale, simd.splat(F8_FOLD))
    }

    #[inline(always)]
    unsafe fn pair<S: Simd>(simd: S, place: Place, column: usize) -> [S::Vector; 2] {
        let [first, second] = [4 + column, 5 + column].map(|at| place.piece(at, 1));
        // SAFETY: the columns lie within the block, by the caller's promise.
        unsafe { [simd.load_f8(first), simd.load_f8(second)] }
    }
}

#[inline(always)]
fn widen_block<const BYTES: usize, const NUMBERS: usize>(
    block: &[u8; BYTES],
    out: &mut [f32; NUMBERS],
) {
    let scale = single_at(block, 0);
    for (out, &byte) in out.iter_mut().zip(&block[4..]) {
        *out = scale * e4m3(byte);
    }
}
