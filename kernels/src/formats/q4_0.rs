//! ggml's `Q4_0`: 32 4-bit numbers and a scale.

use super::panel::{Codes, Group, PanelPlace, behind_scale, nibbles, within};
use super::unpack::{self, half_at, widen_blocks};
use super::{Format, Layout, Simd};

/// The format.
pub(crate) struct Q4_0;

impl Format for Q4_0 {
    const NAME: &str = "Q4_0";
    const GGUF: Option<u32> = Some(2);
    const NUMBERS: usize = 32;
    const BYTES: usize = 18;
    const HALF_SCALES: &[usize] = &[0];
    const PIECES: Layout = &[[2, 1], [4, 4]];

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        widen_blocks(blocks, out, widen_block);
    }
}

impl Codes for Q4_0 {
    const HALVES: bool = false;
    const SMALL: bool = true;

    #[inline(always)]
    unsafe fn group<S: Simd>(simd: S, place: PanelPlace, _: usize) -> Group<S> {
        within!(behind_scale(simd, place, nibbles(simd, place, 2), 8.0))
    }
}

#[inline(always)]
fn widen_block(block: &[u8; Q4_0::BYTES], out: &mut [f32; Q4_0::NUMBERS]) {
    let scale = half_at(block, 0);
    let (low, high) = out.split_at_mut(16);
    unpack::group::<8, 16>(
        low,
        unpack::codes(&block[2..], |_, byte| byte & 15),
        scale,
        0.0,
    );
    unpack::group::<8, 16>(
        high,
        unpack::codes(&block[2..], |_, byte| byte >> 4),
        scale,
        0.0,
    );
}
