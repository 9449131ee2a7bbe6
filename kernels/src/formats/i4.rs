//! 4-bit integers, stored with 8 added, behind a scale. Each 16 bytes hold 32, the first half in their low bits.

use super::panel::{Codes, Group, PanelPlace, centred, nibbles, singles, within};
use super::unpack::{single_at, widen_blocks};
use super::{Format, Layout, ScaleFormat, Separate, Simd};
use crate::element::widen_bf16;

/// So many numbers to an f32 scale.
pub(crate) struct I4<const COLUMNS: usize>;

impl<const COLUMNS: usize> Format for I4<COLUMNS> {
    const NAME: &str = "INT4";
    const NUMBERS: usize = COLUMNS;
    const BYTES: usize = 4 + COLUMNS / 2;
    const PIECES: Layout = &[[4, 1 + COLUMNS / 8]];
    const SEPARATE: Option<Separate> = Some(Separate {
        code_bytes: COLUMNS / 2,
        scale: ScaleFormat::F32,
    });

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        let blocks = blocks.chunks_exact(Self::BYTES);
        for (block, out) in blocks.zip(out.as_chunks_mut::<COLUMNS>().0) {
            widen_codes(&block[4..], single_at(block, 0), out);
        }
    }
}

impl<const COLUMNS: usize> Codes for I4<COLUMNS> {
    const HALVES: bool = false;
    const SMALL: bool = true;

    #[inline(always)]
    unsafe fn group<S: Simd>(simd: S, place: PanelPlace, group: usize) -> Group<S> {
        let codes = within!(nibbles(simd, place, 4 + 16 * group));
        centred(simd, codes, within!(singles(simd, place)), 8.0)
    }
}

/// 32 numbers to a BF16 scale.
pub(crate) struct I4x32Bf16;

impl Format for I4x32Bf16 {
    const NAME: &str = "INT4";
    const NUMBERS: usize = 32;
    const BYTES: usize = 18;
    const PIECES: Layout = &[[2, 1], [4, 4]];
    const SEPARATE: Option<Separate> = Some(Separate {
        code_bytes: 16,
        scale: ScaleFormat::BF16,
    });

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        widen_blocks(blocks, out, widen_block);
    }
}

impl Codes for I4x32Bf16 {
    const HALVES: bool = false;
    const SMALL: bool = true;

    #[inline(always)]
    unsafe fn group<S: Simd>(simd: S, place: PanelPlace, _: usize) -> Group<S> {
        let codes = within!(nibbles(simd, place, 2));
        let scale = within!(simd.load_bf16(place.piece(0, 2).cast()));
        centred(simd, codes, scale, 8.0)
    }
}

#[inline(always)]
fn widen_block(block: &[u8; I4x32Bf16::BYTES], out: &mut [f32; I4x32Bf16::NUMBERS]) {
    let scale = widen_bf16(u16::from_le_bytes([block[0], block[1]]));
    widen_codes(&block[2..], scale, out);
}

#[inline(always)]
fn widen_codes(codes: &[u8], scale: f32, out: &mut [f32]) {
    let (codes, _) = codes.as_chunks::<16>();
    for (codes, out) in codes.iter().zip(out.as_chunks_mut::<32>().0) {
        let (low, high) = out.split_at_mut(16);
        for ((low, high), &byte) in low.iter_mut().zip(high).zip(codes) {
            *low = scale * f32::from((byte & 15) as i8 - 8);
            *high = scale * f32::from((byte >> 4) as i8 - 8);
        }
    }
}
