//! ggml's `Q2_K`: 256 2-bit numbers in groups of 16 with 4-bit scales and minima.

use super::panel::{Codes, Group, PAIRS, PanelPlace, bits, byte, four, halves, times_bits, within};
use super::unpack::{self, half_at, widen_blocks};
use super::{Format, Layout, Simd};

/// The format.
pub(crate) struct Q2K;

impl Format for Q2K {
    const NAME: &str = "Q2_K";
    const GGUF: Option<u32> = Some(10);
    const NUMBERS: usize = 256;
    const BYTES: usize = 84;
    const HALF_SCALES: &[usize] = &[80, 82];
    const PIECES: Layout = &[[1, 16], [4, 16], [2, 2]];

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        widen_blocks(blocks, out, widen_block);
    }
}

impl Codes for Q2K {
    const HALVES: bool = true;
    const SMALL: bool = true;

    #[inline(always)]
    unsafe fn group<S: Simd>(simd: S, place: PanelPlace, group: usize) -> Group<S> {
        let mut codes = [simd.splat_integer(0); 8];
        for (index, codes) in codes.iter_mut().enumerate() {
            let packed = within!(four(simd, place, 16 + group / 4 * 32 + 4 * index));
            *codes = bits(simd, packed, group % 4 * 2, PAIRS);
        }
        let (scale, minimum) = within!((halves(simd, place, 80), halves(simd, place, 82)));
        let (first, second) = within!((
            byte(simd, place, 2 * group),
            byte(simd, place, 2 * group + 1)
        ));
        Group {
            codes,
            scales: [
                times_bits(simd, scale, first, 0, 15),
                times_bits(simd, scale, second, 0, 15),
            ],
            minima: [
                times_bits(simd, minimum, first, 4, 15),
                times_bits(simd, minimum, second, 4, 15),
            ],
        }
    }
}

#[inline(always)]
fn widen_block(block: &[u8; Q2K::BYTES], out: &mut [f32; Q2K::NUMBERS]) {
    let (scale, minimum) = (half_at(block, 80), half_at(block, 82));
    for (index, out) in out.chunks_exact_mut(16).enumerate() {
        // Four groups of 32 share 32 bytes, two bits each.
        let bytes = &block[16 + index / 8 * 32 + index % 2 * 16..];
        let shift = index % 8 / 2 * 2;
        let packed = block[index];
        let group_scale = scale * f32::from(packed & 15);
        let group_minimum = minimum * f32::from(packed >> 4);
        let codes = unpack::codes(bytes, |_, byte| (byte >> shift) & 3);
        unpack::group::<0, 16>(out, codes, group_scale, group_minimum);
    }
}
