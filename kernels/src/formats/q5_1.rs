//! ggml's `Q5_1`: 32 5-bit numbers, a scale and a minimum.

use super::panel::{Codes, Group, PanelPlace, behind_pair, five_bits, within};
use super::unpack::{self, half_at, widen_blocks};
use super::{Format, Layout, Simd};

/// The format.
pub(crate) struct Q5_1;

impl Format for Q5_1 {
    const NAME: &str = "Q5_1";
    const GGUF: Option<u32> = Some(7);
    const NUMBERS: usize = 32;
    const BYTES: usize = 24;
    const HALF_SCALES: &[usize] = &[0, 2];
    const PIECES: Layout = &[[2, 2], [4, 5]];

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        widen_blocks(blocks, out, widen_block);
    }
}

impl Codes for Q5_1 {
    const HALVES: bool = false;
    const SMALL: bool = true;

    #[inline(always)]
    unsafe fn group<S: Simd>(simd: S, place: PanelPlace, _: usize) -> Group<S> {
        within!(behind_pair(simd, place, five_bits(simd, place, 4)))
    }
}

#[inline(always)]
fn widen_block(block: &[u8; Q5_1::BYTES], out: &mut [f32; Q5_1::NUMBERS]) {
    let (scale, minimum) = (half_at(block, 0), -half_at(block, 2));
    let [first, second] = unpack::five_bits(&block[4..]);
    let (low, high) = out.split_at_mut(16);
    unpack::group::<0, 16>(low, first, scale, minimum);
    unpack::group::<0, 16>(high, second, scale, minimum);
}
