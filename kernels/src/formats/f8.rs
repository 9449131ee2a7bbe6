//! E4M3 numbers behind an f32 scale.

use super::panel::{Numbers, PanelPlace};
use super::unpack::{e4m3, single_at};
use super::{Format, Layout, ScaleFormat, Separate, Simd};
use crate::simd::F8_FOLD;

/// So many numbers to a scale.
pub(crate) struct F8<const COLUMNS: usize>;

impl<const COLUMNS: usize> Format for F8<COLUMNS> {
    const NAME: &str = "FP8";
    const NUMBERS: usize = COLUMNS;
    const BYTES: usize = 4 + COLUMNS;
    const PIECES: Layout = &[[4, 1], [1, COLUMNS]];
    const SEPARATE: Option<Separate> = Some(Separate {
        code_bytes: COLUMNS,
        scale: ScaleFormat::F32,
    });

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        let blocks = blocks.chunks_exact(<Self as Format>::BYTES);
        for (block, out) in blocks.zip(out.as_chunks_mut::<COLUMNS>().0) {
            let scale = single_at(block, 0);
            for (out, &byte) in out.iter_mut().zip(&block[4..]) {
                *out = scale * e4m3(byte);
            }
        }
    }
}

impl<const COLUMNS: usize> Numbers for F8<COLUMNS> {
    const COLUMNS: usize = COLUMNS;
    const BYTES: usize = 4 + COLUMNS;

    #[inline(always)]
    unsafe fn scale<S: Simd>(simd: S, place: PanelPlace) -> S::Vector {
        // SAFETY: the block begins with the scale.
        let scale = unsafe { simd.load(place.piece(0, 4).cast()) };
        simd.multiply(scale, simd.splat(F8_FOLD))
    }

    #[inline(always)]
    unsafe fn pair<S: Simd>(simd: S, place: PanelPlace, column: usize) -> [S::Vector; 2] {
        let [first, second] = [4 + column, 5 + column].map(|at| place.piece(at, 1));
        // SAFETY: the columns lie within the block, by the caller's promise.
        unsafe { [simd.load_f8(first), simd.load_f8(second)] }
    }
}
