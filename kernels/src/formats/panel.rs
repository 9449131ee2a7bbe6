//! What formats have in common when panels of 16 rows are unpacked into vectors.
//!
//! There are no closures here: one that is not inlined is compiled without the vector instructions.

use super::Format;
use crate::panels::PANEL_ROWS;
use crate::simd::Simd;

/// 32 columns of some rows. A number is `scale * code - minimum`; scales and minima are those of
/// the first and of the second 16 columns.
pub(crate) struct Group<S: Simd> {
    /// Unsigned bytes, four columns in each vector.
    pub(crate) codes: [S::Integers; 8],
    pub(crate) scales: [S::Vector; 2],
    pub(crate) minima: [S::Vector; 2],
}

/// The lanes of a panel's block that a vector holds.
#[derive(Clone, Copy)]
pub(crate) struct PanelPlace {
    /// The panel's block.
    block: *const u8,
    /// The first row.
    row: usize,
}

impl PanelPlace {
    /// Those that part `part` of a panel's sums is for.
    #[inline(always)]
    pub(crate) fn part<S: Simd>(block: *const u8, part: usize) -> Self {
        Self {
            block,
            row: part * S::LANES,
        }
    }

    /// What the rows have of the piece of `size` bytes that begins at byte `at` of their blocks.
    #[inline(always)]
    pub(crate) fn piece(self, at: usize, size: usize) -> *const u8 {
        self.block.wrapping_add(at * PANEL_ROWS + self.row * size)
    }
}

/// How the codes of a format are unpacked.
pub(crate) trait Codes: Format {
    /// Whether the two halves of a group have scales of their own.
    const HALVES: bool;
    /// Whether all codes are below 128.
    const SMALL: bool;

    /// One group of a block.
    ///
    /// # Safety
    /// `place` is that of a whole block of `S::LANES` rows.
    unsafe fn group<S: Simd>(simd: S, place: PanelPlace, group: usize) -> Group<S>;
}

/// A format of floating-point numbers, in panels.
pub(crate) trait Numbers {
    /// Columns that share a scale, and are walked together.
    const COLUMNS: usize;
    /// Bytes of so many columns of one row.
    const BYTES: usize;

    /// What numbers are to be multiplied with: 1, unless the format has scales.
    ///
    /// # Safety
    /// `place` is that of a whole block of `S::LANES` rows. The same goes for `pair`.
    #[inline(always)]
    unsafe fn scale<S: Simd>(simd: S, _place: PanelPlace) -> S::Vector {
        simd.splat(1.0)
    }

    /// The numbers of an even column of the block, and of the next one.
    ///
    /// # Safety
    /// As `scale`.
    unsafe fn pair<S: Simd>(simd: S, place: PanelPlace, column: usize) -> [S::Vector; 2];
}

// SAFETY (of every load below): the piece lies within the block, by the promise of `group`.
macro_rules! within {
    ($expression:expr) => {
        // SAFETY: see the comment above this macro.
        unsafe { $expression }
    };
}

pub(super) use within;

/// Half-precision numbers.
#[inline(always)]
pub(super) unsafe fn halves<S: Simd>(simd: S, place: PanelPlace, at: usize) -> S::Vector {
    within!(simd.load_f16(place.piece(at, 2)))
}

/// Four codes or parts of codes of each row.
#[inline(always)]
pub(super) unsafe fn four<S: Simd>(simd: S, place: PanelPlace, at: usize) -> S::Integers {
    within!(simd.load_integers(place.piece(at, 4)))
}

/// An unsigned byte of each row.
#[inline(always)]
pub(super) unsafe fn byte<S: Simd>(simd: S, place: PanelPlace, at: usize) -> S::Integers {
    within!(simd.load_bytes(place.piece(at, 1)))
}

/// The low bits of each byte, or of each integer, after a shift to the right.
#[inline(always)]
pub(super) fn bits<S: Simd>(simd: S, value: S::Integers, shift: usize, mask: i32) -> S::Integers {
    simd.and(
        simd.shift_right(value, shift as u32),
        simd.splat_integer(mask),
    )
}

/// The low four bits of each byte.
pub(super) const NIBBLES: i32 = 0x0f0f_0f0f;
/// The low two.
pub(super) const PAIRS: i32 = 0x0303_0303;
/// The lowest.
pub(super) const SINGLES: i32 = 0x0101_0101;

/// A group with one scale and one minimum.
#[inline(always)]
pub(super) fn whole<S: Simd>(
    codes: [S::Integers; 8],
    scale: S::Vector,
    minimum: S::Vector,
) -> Group<S> {
    Group {
        codes,
        scales: [scale; 2],
        minima: [minimum; 2],
    }
}

/// A group whose codes stand for numbers that are `zero` steps smaller.
#[inline(always)]
pub(super) fn centred<S: Simd>(
    simd: S,
    codes: [S::Integers; 8],
    scale: S::Vector,
    zero: f32,
) -> Group<S> {
    whole(codes, scale, simd.multiply(scale, simd.splat(zero)))
}

/// The same with a scale for each half.
#[inline(always)]
pub(super) fn centred_halves<S: Simd>(
    simd: S,
    codes: [S::Integers; 8],
    scales: [S::Vector; 2],
    zero: f32,
) -> Group<S> {
    let zero = simd.splat(zero);
    let [first, second] = scales;
    Group {
        codes,
        scales,
        minima: [simd.multiply(first, zero), simd.multiply(second, zero)],
    }
}

/// The 32 codes of 16 bytes: low nibbles, then high ones.
#[inline(always)]
pub(super) unsafe fn nibbles<S: Simd>(simd: S, place: PanelPlace, at: usize) -> [S::Integers; 8] {
    let mut codes = [simd.splat_integer(0); 8];
    for index in 0..4 {
        let both = within!(four(simd, place, at + 4 * index));
        codes[index] = bits(simd, both, 0, NIBBLES);
        codes[4 + index] = bits(simd, both, 4, NIBBLES);
    }
    codes
}

/// The 32 codes of as many signed bytes: what they are, plus 128.
#[inline(always)]
pub(super) unsafe fn raised_bytes<S: Simd>(
    simd: S,
    place: PanelPlace,
    at: usize,
) -> [S::Integers; 8] {
    let mut codes = [simd.splat_integer(0); 8];
    for (index, codes) in codes.iter_mut().enumerate() {
        let signed = within!(four(simd, place, at + 4 * index));
        *codes = simd.exclusive_or(signed, simd.splat_integer(0x8080_8080_u32 as i32));
    }
    codes
}

/// A group of `codes` behind a half-precision scale.
#[inline(always)]
pub(super) unsafe fn behind_scale<S: Simd>(
    simd: S,
    place: PanelPlace,
    codes: [S::Integers; 8],
    zero: f32,
) -> Group<S> {
    centred(simd, codes, within!(halves(simd, place, 0)), zero)
}

/// A group of `codes` behind a half-precision scale and a minimum, which has the other sign.
#[inline(always)]
pub(super) unsafe fn behind_pair<S: Simd>(
    simd: S,
    place: PanelPlace,
    codes: [S::Integers; 8],
) -> Group<S> {
    let (scale, addend) = within!((halves(simd, place, 0), halves(simd, place, 2)));
    whole(codes, scale, simd.subtract(simd.splat(0.0), addend))
}

/// Twice the numbers that E2M1 codes stand for, plus 12.
const RAISED_E2M1: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];

/// The 32 codes of E2M1 numbers in 16 bytes.
#[inline(always)]
pub(super) unsafe fn raised_e2m1<S: Simd>(
    simd: S,
    place: PanelPlace,
    at: usize,
) -> [S::Integers; 8] {
    let mut codes = within!(nibbles(simd, place, at));
    for codes in &mut codes {
        *codes = simd.look_up(&RAISED_E2M1, *codes);
    }
    codes
}

/// `nibbles` behind four bytes with a fifth bit for each.
#[inline(always)]
pub(super) unsafe fn five_bits<S: Simd>(simd: S, place: PanelPlace, at: usize) -> [S::Integers; 8] {
    let fifth = within!(four(simd, place, at));
    let mut codes = within!(nibbles(simd, place, at + 4));
    for (index, codes) in codes.iter_mut().enumerate() {
        // Four bits, one to the lowest place of each byte.
        let low = bits(simd, fifth, 4 * index, 15);
        let two = simd.or(low, simd.shift_left(low, 7));
        let all = simd.or(two, simd.shift_left(two, 14));
        let spread = simd.and(all, simd.splat_integer(SINGLES));
        *codes = simd.or(*codes, simd.shift_left(spread, 4));
    }
    codes
}

/// A number times some bits of an integer.
#[inline(always)]
pub(super) fn times_bits<S: Simd>(
    simd: S,
    number: S::Vector,
    value: S::Integers,
    shift: usize,
    mask: i32,
) -> S::Vector {
    simd.multiply(number, simd.numbers(bits(simd, value, shift, mask)))
}

/// Scale and minimum, six bits each, of one of eight groups.
#[inline(always)]
pub(super) unsafe fn six_bit_pair<S: Simd>(
    simd: S,
    place: PanelPlace,
    group: usize,
) -> [S::Vector; 2] {
    const SCALES: usize = 4;
    let (scale, minimum) = if group < 4 {
        let (scale, minimum) = within!((
            byte(simd, place, SCALES + group),
            byte(simd, place, SCALES + group + 4)
        ));
        (bits(simd, scale, 0, 63), bits(simd, minimum, 0, 63))
    } else {
        let low = within!(byte(simd, place, SCALES + group + 4));
        let (scale, minimum) = within!((
            byte(simd, place, SCALES + group - 4),
            byte(simd, place, SCALES + group)
        ));
        let high = simd.shift_left(bits(simd, scale, 6, 3), 4);
        let scale = simd.or(bits(simd, low, 0, 15), high);
        let high = simd.shift_left(bits(simd, minimum, 6, 3), 4);
        (scale, simd.or(bits(simd, low, 4, 15), high))
    };
    [simd.numbers(scale), simd.numbers(minimum)]
}

/// A group whose two factors are products of the block's and of six bits.
#[inline(always)]
pub(super) unsafe fn twice_scaled<S: Simd>(
    simd: S,
    place: PanelPlace,
    group: usize,
    codes: [S::Integers; 8],
) -> Group<S> {
    let [scale, minimum] = within!(six_bit_pair(simd, place, group));
    whole(
        codes,
        within!(simd.multiply(halves(simd, place, 0), scale)),
        within!(simd.multiply(halves(simd, place, 2), minimum)),
    )
}

/// The f32 that each row's block begins with.
#[inline(always)]
pub(super) unsafe fn singles<S: Simd>(simd: S, place: PanelPlace) -> S::Vector {
    within!(simd.load(place.piece(0, 4).cast()))
}
