//! ggml's `IQ4_NL`: 32 4-bit codes that stand for numbers of a table, and a scale.

use super::panel::{Codes, Group, PanelPlace, behind_scale, nibbles, within};
use super::unpack::{half_at, widen_blocks};
use super::{Format, Layout, Simd};

/// The format.
pub(crate) struct Iq4Nl;

/// What the codes stand for (`kvalues_iq4nl`), plus 128.
pub(super) const RAISED: [u8; 16] = [
    1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241,
];

impl Format for Iq4Nl {
    const NAME: &str = "IQ4_NL";
    const GGUF: Option<u32> = Some(20);
    const NUMBERS: usize = 32;
    const BYTES: usize = 18;
    const HALF_SCALES: &[usize] = &[0];
    const PIECES: Layout = &[[2, 1], [4, 4]];

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        widen_blocks(blocks, out, widen_block);
    }
}

impl Codes for Iq4Nl {
    const HALVES: bool = false;
    const SMALL: bool = false;

    #[inline(always)]
    unsafe fn group<S: Simd>(simd: S, place: PanelPlace, _: usize) -> Group<S> {
        let mut codes = within!(nibbles(simd, place, 2));
        for codes in &mut codes {
            *codes = simd.look_up(&RAISED, *codes);
        }
        within!(behind_scale(simd, place, codes, 128.0))
    }
}

#[inline(always)]
fn widen_block(block: &[u8; Iq4Nl::BYTES], out: &mut [f32; Iq4Nl::NUMBERS]) {
    let scale = half_at(block, 0);
    let (low, high) = out.split_at_mut(16);
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(&block[2..]) {
        *low = scale * table_number(byte & 15);
        *high = scale * table_number(byte >> 4);
    }
}

/// What a code stands for.
#[inline(always)]
pub(super) fn table_number(code: u8) -> f32 {
    f32::from(i16::from(RAISED[usize::from(code)]) - 128)
}
