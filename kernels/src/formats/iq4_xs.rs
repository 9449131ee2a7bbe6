//! ggml's `IQ4_XS`: 256 4-bit codes that stand for numbers of `IQ4_NL`'s table, in groups of 32 with 6-bit scales.

use super::iq4_nl::{RAISED, table_number};
use super::panel::{Codes, Group, PanelPlace, bits, byte, centred, halves, nibbles, within};
use super::unpack::{half_at, widen_blocks};
use super::{Format, Layout, Simd};

/// The format.
pub(crate) struct Iq4Xs;

/// Where the upper bits of the groups' scales are, the lower ones, and the codes.
const HIGH: usize = 2;
const LOW: usize = 4;
const CODES: usize = 8;

impl Format for Iq4Xs {
    const NAME: &str = "IQ4_XS";
    const GGUF: Option<u32> = Some(23);
    const NUMBERS: usize = 256;
    const BYTES: usize = 136;
    const HALF_SCALES: &[usize] = &[0];
    const PIECES: Layout = &[[2, 1], [1, 6], [4, 32]];

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        widen_blocks(blocks, out, widen_block);
    }
}

impl Codes for Iq4Xs {
    const HALVES: bool = false;
    const SMALL: bool = false;

    #[inline(always)]
    unsafe fn group<S: Simd>(simd: S, place: PanelPlace, group: usize) -> Group<S> {
        let mut codes = within!(nibbles(simd, place, CODES + 16 * group));
        for codes in &mut codes {
            *codes = simd.look_up(&RAISED, *codes);
        }
        let high = within!(byte(simd, place, HIGH + group / 4));
        let high = simd.shift_left(bits(simd, high, group % 4 * 2, 3), 4);
        let low = within!(byte(simd, place, LOW + group / 2));
        let raised = simd.or(bits(simd, low, group % 2 * 4, 15), high);
        let steps = simd.subtract(simd.numbers(raised), simd.splat(32.0));
        let scale = within!(simd.multiply(halves(simd, place, 0), steps));
        centred(simd, codes, scale, 128.0)
    }
}

#[inline(always)]
fn widen_block(block: &[u8; Iq4Xs::BYTES], out: &mut [f32; Iq4Xs::NUMBERS]) {
    let scale = half_at(block, 0);
    let groups = block[CODES..].chunks_exact(16);
    for (group, (codes, out)) in groups.zip(out.chunks_exact_mut(32)).enumerate() {
        let low = (block[LOW + group / 2] >> (group % 2 * 4)) & 15;
        let high = (block[HIGH + group / 4] >> (group % 4 * 2)) & 3;
        let scale = scale * f32::from(i16::from(low | (high << 4)) - 32);
        let (first, second) = out.split_at_mut(16);
        for ((first, second), &byte) in first.iter_mut().zip(second).zip(codes) {
            *first = scale * table_number(byte & 15);
            *second = scale * table_number(byte >> 4);
        }
    }
}
