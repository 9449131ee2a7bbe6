//! ggml's `Q4_K`: 256 4-bit numbers in groups of 32 with 6-bit scales and minima.

use super::panel::{Codes, Group, NIBBLES, PanelPlace, bits, four, twice_scaled, within};
use super::unpack::{self, half_at, six_bit_pair, widen_blocks};
use super::{Format, Layout, Simd};

/// The format.
pub(crate) struct Q4K;

impl Format for Q4K {
    const NAME: &str = "Q4_K";
    const GGUF: Option<u32> = Some(12);
    const NUMBERS: usize = 256;
    const BYTES: usize = 144;
    const HALF_SCALES: &[usize] = &[0, 2];
    const PIECES: Layout = &[[2, 2], [1, 12], [4, 32]];

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        widen_blocks(blocks, out, widen_block);
    }
}

impl Codes for Q4K {
    const HALVES: bool = false;
    const SMALL: bool = true;

    #[inline(always)]
    unsafe fn group<S: Simd>(simd: S, place: PanelPlace, group: usize) -> Group<S> {
        let mut codes = [simd.splat_integer(0); 8];
        for (index, codes) in codes.iter_mut().enumerate() {
            let both = within!(four(simd, place, 16 + group / 2 * 32 + 4 * index));
            *codes = bits(simd, both, group % 2 * 4, NIBBLES);
        }
        within!(twice_scaled(simd, place, group, codes))
    }
}

#[inline(always)]
fn widen_block(block: &[u8; Q4K::BYTES], out: &mut [f32; Q4K::NUMBERS]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    for (index, out) in out.chunks_exact_mut(32).enumerate() {
        let (group_scale, group_minimum) = six_bit_pair(&block[4..16], index);
        let shift = index % 2 * 4;
        let codes = unpack::codes(&block[16 + index / 2 * 32..], |_, byte| {
            (byte >> shift) & 15
        });
        unpack::group::<0, 32>(out, codes, scale * group_scale, minimum * group_minimum);
    }
}
