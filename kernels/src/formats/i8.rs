//! Signed bytes behind an f32 scale.

use super::panel::{Codes, Group, PanelPlace, centred, raised_bytes, singles, within};
use super::unpack::single_at;
use super::{Format, Layout, ScaleFormat, Separate, Simd};

/// So many numbers to a scale.
pub(crate) struct I8<const COLUMNS: usize>;

impl<const COLUMNS: usize> Format for I8<COLUMNS> {
    const NAME: &str = "INT8";
    const NUMBERS: usize = COLUMNS;
    const BYTES: usize = 4 + COLUMNS;
    const PIECES: Layout = &[[4, 1 + COLUMNS / 4]];
    const SEPARATE: Option<Separate> = Some(Separate {
        code_bytes: COLUMNS,
        scale: ScaleFormat::F32,
    });

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        let blocks = blocks.chunks_exact(Self::BYTES);
        for (block, out) in blocks.zip(out.as_chunks_mut::<COLUMNS>().0) {
            let scale = single_at(block, 0);
            for (out, &byte) in out.iter_mut().zip(&block[4..]) {
                *out = scale * f32::from(byte as i8);
            }
        }
    }
}

impl<const COLUMNS: usize> Codes for I8<COLUMNS> {
    const HALVES: bool = false;
    const SMALL: bool = false;

    #[inline(always)]
    unsafe fn group<S: Simd>(simd: S, place: PanelPlace, group: usize) -> Group<S> {
        let codes = within!(raised_bytes(simd, place, 4 + 32 * group));
        centred(simd, codes, within!(singles(simd, place)), 128.0)
    }
}
