//! Signed bytes behind an f32 scale.

use super::panel::{Codes, Group, Place, centred, raised_bytes, singles, within};
use super::unpack::{single_at, widen_blocks};
use super::{Format, IntegerBlock, Layout, Separate, Simd};

/// 128 numbers to a scale.
pub(crate) struct I8x128;
/// 32 numbers to a scale.
pub(crate) struct I8x32;

impl Format for I8x128 {
    const NAME: &str = "INT8";
    const NUMBERS: usize = 128;
    const BYTES: usize = 4 + Self::NUMBERS;
    const PIECES: Layout = &[[4, 33]];
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
    fn multiply_codes<S: Simd>(simd: S, block: &IntegerBlock<'_>) {
        block.multiply::<S, Self>(simd);
    }
}

impl Codes for I8x128 {
    const HALVES: bool = false;
    const SMALL: bool = false;

    #[inline(always)]
    unsafe fn group<S: Simd>(simd: S, place: Place, group: usize) -> Group<S> {
        let codes = within!(raised_bytes(simd, place, 4 + 32 * group));
        centred(simd, codes, within!(singles(simd, place)), 128.0)
    }
}

impl Format for I8x32 {
    const NAME: &str = "INT8";
    const NUMBERS: usize = 32;
    const BYTES: usize = 4 + Self::NUMBERS;
    const PIECES: Layout = &[[4, 9]];
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
    fn multiply_codes<S: Simd>(simd: S, block: &IntegerBlock<'_>) {
        block.multiply::<S, Self>(simd);
    }
}

impl Codes for I8x32 {
    const HALVES: bool = false;
    const SMALL: bool = false;

    #[inline(always)]
    unsafe fn group<S: Simd>(simd: S, place: Place, group: usize) -> Group<S> {
        let codes = within!(raised_bytes(simd, place, 4 + 32 * group));
        centred(simd, codes, within!(singles(simd, place)), 128.0)
    }
}

#[inline(always)]
fn widen_block<const BYTES: usize, const NUMBERS: usize>(
    block: &[u8; BYTES],
    out: &mut [f32; NUMBERS],
) {
    let scale = single_at(block, 0);
    for (out, &byte) in out.iter_mut().zip(&block[4..]) {
        *out = scale * f32::from(byte as i8);
    }
}
