//! MXFP4: 32 4-bit floating-point numbers (E2M1) and a scale that is a power of two (E8M0); Open Compute Project 2023,
//! "OCP Microscaling Formats".

use super::panel::{Codes, Group, PanelPlace, byte, centred, raised_e2m1, within};
use super::unpack::{twice_e2m1, widen_blocks};
use super::{Format, Layout, ScaleFormat, Separate, Simd};

/// Largest E8M0 scale with which all numbers of a block are finite in f32: `6 * 2^125`.
pub const SCALE_MAX: u8 = 252;

/// The format.
pub(crate) struct Mxfp4;

impl Format for Mxfp4 {
    const NAME: &str = "MXFP4";
    const GGUF: Option<u32> = Some(39);
    const NUMBERS: usize = 32;
    const BYTES: usize = 17;
    const PIECES: Layout = &[[1, 1], [4, 4]];
    const SEPARATE: Option<Separate> = Some(Separate {
        code_bytes: 16,
        scale: ScaleFormat::E8M0,
    });

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        widen_blocks(blocks, out, widen_block);
    }

    #[inline(always)]
    fn is_finite(block: &[u8]) -> bool {
        block[0] <= SCALE_MAX
    }
}

impl Codes for Mxfp4 {
    const HALVES: bool = false;
    const SMALL: bool = true;

    #[inline(always)]
    unsafe fn group<S: Simd>(simd: S, place: PanelPlace, _: usize) -> Group<S> {
        // The scale is a power of two, of which the exponent's bits are stored. (The least one, 2^-127,
        // becomes 0; with it, no sum of products would be other than 0 beside any other block.)
        let exponent = within!(byte(simd, place, 0));
        let scale = simd.numbers_of_bits(simd.shift_left(exponent, 23));
        let half_scale = simd.multiply(scale, simd.splat(0.5));
        centred(simd, within!(raised_e2m1(simd, place, 1)), half_scale, 12.0)
    }
}

#[inline(always)]
fn widen_block(block: &[u8; Mxfp4::BYTES], out: &mut [f32; Mxfp4::NUMBERS]) {
    // Half the scale, `2^(exponent - 128)`, of which the two smallest are subnormal.
    let half_scale = f32::from_bits(match block[0] {
        exponent @ 0..2 => 0x0020_0000 << exponent,
        exponent => (u32::from(exponent) - 1) << 23,
    });
    let (low, high) = out.split_at_mut(16);
    for (out, numbers) in [
        (low, doubled(&block[1..], |byte| byte & 15)),
        (high, doubled(&block[1..], |byte| byte >> 4)),
    ] {
        for (out, number) in out.iter_mut().zip(numbers) {
            *out = half_scale * f32::from(number);
        }
    }
}

/// Twice the numbers of 16 codes, all before they are widened, so that both become vector code.
#[inline(always)]
fn doubled(bytes: &[u8], code: impl Fn(u8) -> u8) -> [i8; 16] {
    let mut doubled = [0; 16];
    for (doubled, &byte) in doubled.iter_mut().zip(&bytes[..16]) {
        *doubled = twice_e2m1(code(byte));
    }
    doubled
}
