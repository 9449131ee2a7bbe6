//! NVFP4: 64 E2M1 numbers, one E4M3 scale for each 16 of them, and an f32 by which these are divided (NVIDIA 2025,
//! "Pretraining Large Language Models with NVFP4").

use super::panel::{Codes, Group, PanelPlace, centred_halves, raised_e2m1, singles, within};
use super::unpack::{e4m3, single_at, twice_e2m1, widen_blocks};
use super::{Format, Layout, ScaleFormat, Separate, Simd};
use crate::simd::F8_FOLD;

/// The format.
pub(crate) struct Nvfp4;

impl Format for Nvfp4 {
    const NAME: &str = "NVFP4";
    const NUMBERS: usize = 64;
    const BYTES: usize = 40;
    const PIECES: Layout = &[[4, 1], [1, 4], [4, 8]];
    const SEPARATE: Option<Separate> = Some(Separate {
        code_bytes: Self::NUMBERS / 2,
        scale: ScaleFormat::F32,
    });

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        widen_blocks(blocks, out, widen_block);
    }
}

impl Codes for Nvfp4 {
    const HALVES: bool = true;
    const SMALL: bool = true;

    #[inline(always)]
    unsafe fn group<S: Simd>(simd: S, place: PanelPlace, group: usize) -> Group<S> {
        let divisor = within!(singles(simd, place));
        let first = within!(half_scale(simd, place, divisor, 2 * group));
        let second = within!(half_scale(simd, place, divisor, 2 * group + 1));
        let codes = within!(raised_e2m1(simd, place, 8 + 16 * group));
        centred_halves(simd, codes, [first, second], 12.0)
    }
}

/// Half the scale with this number: codes stand for twice their numbers.
#[inline(always)]
unsafe fn half_scale<S: Simd>(
    simd: S,
    place: PanelPlace,
    divisor: S::Vector,
    index: usize,
) -> S::Vector {
    let scale = within!(simd.load_f8(place.piece(4 + index, 1)));
    let half = simd.multiply(scale, simd.splat(F8_FOLD * 0.5));
    simd.divide(half, divisor)
}

#[inline(always)]
fn widen_block(block: &[u8; Nvfp4::BYTES], out: &mut [f32; Nvfp4::NUMBERS]) {
    let divisor = single_at(block, 0);
    let (codes, _) = block[8..].as_chunks::<16>();
    let (groups, _) = out.as_chunks_mut::<16>();
    for (index, out) in groups.iter_mut().enumerate() {
        // Numbers are stored doubled: then they are whole.
        let half_scale = e4m3(block[4 + index]) / divisor * 0.5;
        let shift = index % 2 * 4;
        for (out, &byte) in out.iter_mut().zip(&codes[index / 2]) {
            *out = half_scale * f32::from(twice_e2m1((byte >> shift) & 15));
        }
    }
}
