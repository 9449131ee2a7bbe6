//! What the panels of [`ScaledFormat`](crate::ScaledFormat)s hold.

use super::{Group, Place, centred, centred_halves, raised_bytes, raised_e2m1};
use crate::simd::{F8_FOLD, Simd};

/// Bytes of a scale in f32.
const SINGLE: usize = 4;

/// The f32 that each row's block begins with.
#[inline(always)]
unsafe fn singles<S: Simd>(simd: S, place: Place) -> S::Vector {
    within!(simd.load(place.piece(0, SINGLE).cast()))
}

/// Signed bytes behind a scale.
#[inline(always)]
pub(super) unsafe fn bytes<S: Simd>(simd: S, place: Place, group: usize) -> Group<S> {
    let codes = within!(raised_bytes(simd, place, SINGLE + 32 * group));
    centred(simd, codes, within!(singles(simd, place)), 128.0)
}

/// 4-bit codes behind a scale.
#[inline(always)]
pub(super) unsafe fn nibbles<S: Simd>(simd: S, place: Place, group: usize) -> Group<S> {
    let codes = within!(super::nibbles(simd, place, SINGLE + 16 * group));
    centred(simd, codes, within!(singles(simd, place)), 8.0)
}

/// 4-bit codes behind a BF16 scale.
#[inline(always)]
pub(super) unsafe fn nibbles_bf16<S: Simd>(simd: S, place: Place, _: usize) -> Group<S> {
    let codes = within!(super::nibbles(simd, place, 2));
    let scale = within!(simd.load_bf16(place.piece(0, 2).cast()));
    centred(simd, codes, scale, 8.0)
}

/// E2M1 codes; each half of a group has an E4M3 scale, which is divided by the block's number.
#[inline(always)]
pub(super) unsafe fn nvfp4<S: Simd>(simd: S, place: Place, group: usize) -> Group<S> {
    let divisor = within!(singles(simd, place));
    let first = within!(half_scale(simd, place, divisor, 2 * group));
    let second = within!(half_scale(simd, place, divisor, 2 * group + 1));
    let codes = within!(raised_e2m1(simd, place, 2 * SINGLE + 16 * group));
    centred_halves(simd, codes, [first, second], 12.0)
}

/// Half the scale with this number: codes stand for twice their numbers.
#[inline(always)]
unsafe fn half_scale<S: Simd>(
    simd: S,
    place: Place,
    divisor: S::Vector,
    index: usize,
) -> S::Vector {
    let scale = within!(simd.load_f8(place.piece(SINGLE + index, 1)));
    let half = simd.multiply(scale, simd.splat(F8_FOLD * 0.5));
    simd.divide(half, divisor)
}
