//! ggml's `Q8_0`: 32 8-bit numbers and a scale.

use super::panel::{Codes, Group, PanelPlace, behind_scale, raised_bytes, within};
use super::unpack::{half_at, widen_blocks};
use super::{Format, Layout, Simd};

/// The format.
pub(crate) struct Q8_0;

impl Format for Q8_0 {
    const NAME: &str = "Q8_0";
    const GGUF: Option<u32> = Some(8);
    const NUMBERS: usize = 32;
    const BYTES: usize = 34;
    const HALF_SCALES: &[usize] = &[0];
    const PIECES: Layout = &[[2, 1], [4, 8]];

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        widen_blocks(blocks, out, widen_block);
    }
}

impl Codes for Q8_0 {
    const HALVES: bool = false;
    const SMALL: bool = false;

    #[inline(always)]
    unsafe fn group<S: Simd>(simd: S, place: PanelPlace, _: usize) -> Group<S> {
        within!(behind_scale(
            simd,
            place,
            raised_bytes(simd, place, 2),
            128.0
        ))
    }
}

#[inline(always)]
fn widen_block(block: &[u8; Q8_0::BYTES], out: &mut [f32; Q8_0::NUMBERS]) {
    let scale = half_at(block, 0);
    for (out, &byte) in out.iter_mut().zip(&block[2..]) {
        *out = scale * f32::from(byte as i8);
    }
}
