//! ggml's `Q6_K`: 256 6-bit numbers in groups of 16 with 8-bit scales.

use super::panel::{
    Codes, Group, NIBBLES, PAIRS, PanelPlace, bits, byte, centred_halves, four, halves, within,
};
use super::unpack::{self, half_at, widen_blocks};
use super::{Format, Layout, Simd};

/// The format.
pub(crate) struct Q6K;

impl Format for Q6K {
    const NAME: &str = "Q6_K";
    const GGUF: Option<u32> = Some(14);
    const NUMBERS: usize = 256;
    const BYTES: usize = 210;
    const HALF_SCALES: &[usize] = &[208];
    const PIECES: Layout = &[[4, 48], [1, 16], [2, 1]];

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        widen_blocks(blocks, out, widen_block);
    }
}

impl Codes for Q6K {
    const HALVES: bool = true;
    const SMALL: bool = true;

    #[inline(always)]
    unsafe fn group<S: Simd>(simd: S, place: PanelPlace, group: usize) -> Group<S> {
        let (half, quarter) = (group / 4, group % 4);
        let mut codes = [simd.splat_integer(0); 8];
        for (index, codes) in codes.iter_mut().enumerate() {
            let low = within!(four(simd, place, half * 64 + quarter % 2 * 32 + 4 * index));
            let high = within!(four(simd, place, 128 + half * 32 + 4 * index));
            let high = simd.shift_left(bits(simd, high, quarter * 2, PAIRS), 4);
            *codes = simd.or(bits(simd, low, quarter / 2 * 4, NIBBLES), high);
        }
        let scales = within!([
            q6_k_scale(simd, place, 2 * group),
            q6_k_scale(simd, place, 2 * group + 1)
        ]);
        centred_halves(simd, codes, scales, 32.0)
    }
}

#[inline(always)]
fn widen_block(block: &[u8; Q6K::BYTES], out: &mut [f32; Q6K::NUMBERS]) {
    let (low_bits, rest) = block.split_at(128);
    let (high_bits, scales) = rest.split_at(64);
    let scale = half_at(block, 208);
    for (index, out) in out.chunks_exact_mut(16).enumerate() {
        // Half a block is four groups of 32: low nibbles of two times 32 bytes, then the high ones.
        let (half, quarter, side) = (index / 8, index % 8 / 2, index % 2);
        let low = &low_bits[half * 64 + quarter % 2 * 32 + side * 16..][..16];
        let high = &high_bits[half * 32 + side * 16..][..16];
        let (shift, high_shift) = (quarter / 2 * 4, quarter * 2);
        let group_scale = scale * f32::from(scales[index] as i8);
        let codes = unpack::codes(low, |at, byte| {
            ((byte >> shift) & 15) | (((high[at] >> high_shift) & 3) << 4)
        });
        unpack::group::<32, 16>(out, codes, group_scale, 0.0);
    }
}

/// The block's scale times a signed byte.
#[inline(always)]
unsafe fn q6_k_scale<S: Simd>(simd: S, place: PanelPlace, index: usize) -> S::Vector {
    let byte = within!(byte(simd, place, 192 + index));
    let raised = simd.numbers(simd.exclusive_or(byte, simd.splat_integer(128)));
    let signed = simd.subtract(raised, simd.splat(128.0));
    simd.multiply(within!(halves(simd, place, 208)), signed)
}
