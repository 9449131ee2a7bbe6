//! ggml's `Q3_K`: 256 3-bit numbers in groups of 16 with 6-bit scales.

use super::panel::{
    Codes, Group, PAIRS, PanelPlace, SINGLES, bits, byte, centred_halves, four, halves, within,
};
use super::unpack::{self, half_at, widen_blocks};
use super::{Format, Layout, Simd};

/// The format.
pub(crate) struct Q3K;

impl Format for Q3K {
    const NAME: &str = "Q3_K";
    const GGUF: Option<u32> = Some(11);
    const NUMBERS: usize = 256;
    const BYTES: usize = 110;
    const HALF_SCALES: &[usize] = &[108];
    const PIECES: Layout = &[[4, 24], [1, 12], [2, 1]];

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        widen_blocks(blocks, out, widen_block);
    }
}

impl Codes for Q3K {
    const HALVES: bool = true;
    const SMALL: bool = true;

    #[inline(always)]
    unsafe fn group<S: Simd>(simd: S, place: PanelPlace, group: usize) -> Group<S> {
        let mut codes = [simd.splat_integer(0); 8];
        for (index, codes) in codes.iter_mut().enumerate() {
            let low = within!(four(simd, place, 32 + group / 4 * 32 + 4 * index));
            let high = within!(four(simd, place, 4 * index));
            let third = simd.shift_left(bits(simd, high, group, SINGLES), 2);
            *codes = simd.or(bits(simd, low, group % 4 * 2, PAIRS), third);
        }
        let scales = within!([
            q3_k_scale(simd, place, 2 * group),
            q3_k_scale(simd, place, 2 * group + 1)
        ]);
        centred_halves(simd, codes, scales, 4.0)
    }
}

#[inline(always)]
fn widen_block(block: &[u8; Q3K::BYTES], out: &mut [f32; Q3K::NUMBERS]) {
    let (high_bits, rest) = block.split_at(32);
    let (low_bits, scales) = rest.split_at(64);
    let scale = half_at(block, 108);
    for (index, out) in out.chunks_exact_mut(16).enumerate() {
        let low = &low_bits[index / 8 * 32 + index % 2 * 16..][..16];
        let high = &high_bits[index % 2 * 16..][..16];
        let shift = index % 8 / 2 * 2;
        let high_shift = index / 2;
        // Six bits of scale: four in the first eight bytes, two in the last four.
        let four = (scales[index % 8] >> (index / 8 * 4)) & 15;
        let two = (scales[8 + index % 4] >> (index / 4 * 2)) & 3;
        let group_scale = scale * f32::from((four | (two << 4)) as i8 - 32);
        let codes = unpack::codes(low, |at, byte| {
            ((byte >> shift) & 3) | (((high[at] >> high_shift) & 1) << 2)
        });
        unpack::group::<4, 16>(out, codes, group_scale, 0.0);
    }
}

/// The block's scale times six signed bits, of which four are in the first eight bytes and two in
/// the last four.
#[inline(always)]
unsafe fn q3_k_scale<S: Simd>(simd: S, place: PanelPlace, index: usize) -> S::Vector {
    let low = within!(byte(simd, place, 96 + index % 8));
    let high = within!(byte(simd, place, 104 + index % 4));
    let high = simd.shift_left(bits(simd, high, index / 4 * 2, 3), 4);
    let six = simd.or(bits(simd, low, index / 8 * 4, 15), high);
    let signed = simd.subtract(simd.numbers(six), simd.splat(32.0));
    simd.multiply(within!(halves(simd, place, 108)), signed)
}
