//! ggml's `Q5_0`: 32 5-bit numbers and a scale.

use super::panel::{Codes, Group, PanelPlace, behind_scale, five_bits, within};
use super::unpack::{self, half_at, widen_blocks};
use super::{Format, Layout, Simd};

/// The format.
pub(crate) struct Q5_0;

impl Format for Q5_0 {
    const NAME: &str = "Q5_0";
    const GGUF: Option<u32> = Some(6);
    const NUMBERS: usize = 32;
    const BYTES: usize = 22;
    const HALF_SCALES: &[usize] = &[0];
    const PIECES: Layout = &[[2, 1], [4, 5]];

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        widen_blocks(blocks, out, widen_block);
    }
}

impl Codes for Q5_0 {
    const HALVES: bool = false;
    const SMALL: bool = true;

    #[inline(always)]
    unsafe fn group<S: Simd>(simd: S, place: PanelPlace, _: usize) -> Group<S> {
        within!(behind_scale(simd, place, five_bits(simd, place, 2), 16.0))
    }
}

#[inline(always)]
fn widen_block(block: &[u8; Q5_0::BYTES], out: &mut [f32; Q5_0::NUMBERS]) {
    let scale = half_at(block, 0);
    let [first, second] = unpack::five_bits(&block[2..]);
    let (low, high) = out.split_at_mut(16);
    unpack::group::<16, 16>(low, first, scale, 0.0);
    unpack::group::<16, 16>(high, second, scale, 0.0);
}
