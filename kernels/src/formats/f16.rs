//! IEEE half precision: a block is one number, and has no scale.

use super::panel::{Numbers, PanelPlace};
use super::unpack::widen_f16;
use super::{Format, Layout, Simd};

/// The format.
pub(crate) struct F16;

impl Format for F16 {
    const NAME: &str = "F16";
    const GGUF: Option<u32> = Some(1);
    const NUMBERS: usize = 1;
    const BYTES: usize = 2;
    const HALF_SCALES: &[usize] = &[0];
    const PIECES: Layout = &[[2, 1]];

    #[inline(always)]
    fn widen(blocks: &[u8], out: &mut [f32]) {
        for (out, bits) in out.iter_mut().zip(blocks.as_chunks::<2>().0) {
            *out = widen_f16(u16::from_le_bytes(*bits));
        }
    }
}

impl Numbers for F16 {
    const COLUMNS: usize = 32;
    const BYTES: usize = 64;

    #[inline(always)]
    unsafe fn pair<S: Simd>(simd: S, place: PanelPlace, column: usize) -> [S::Vector; 2] {
        let [first, second] = [2 * column, 2 * column + 2].map(|at| place.piece(at, 2));
        // SAFETY: the columns lie within the block, by the caller's promise.
        unsafe { [simd.load_f16(first), simd.load_f16(second)] }
    }
}
