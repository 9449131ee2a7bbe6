//! What the panels of each block format hold: codes, scales and minima.
//!
//! See [`crate::blocks`] for the blocks and [`crate::panels`] for their order in memory. There are no
//! closures here: one that is not inlined is compiled without the vector instructions.

use crate::panels::PANEL_ROWS;
use crate::simd::Simd;

/// 32 columns of some rows. A number is `scale * code - minimum`; scales and minima are those of
/// the first and of the second 16 columns.
pub(super) struct Group<S: Simd> {
    /// Unsigned bytes, four columns in each vector.
    pub(super) codes: [S::Integers; 8],
    pub(super) scales: [S::Vector; 2],
    pub(super) minima: [S::Vector; 2],
}

/// The lanes of a panel's block that a vector holds.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The panel's block.
    block: *const u8,
    /// The first row.
    row: usize,
}

impl Place {
    /// Those that part `part` of a panel's sums is for.
    #[inline(always)]
    pub(super) fn part<S: Simd>(block: *const u8, part: usize) -> Self {
        Self {
            block,
            row: part * S::LANES,
        }
    }

    /// What the rows have of the piece of `size` bytes that begins at byte `at` of their blocks.
    #[inline(always)]
    pub(super) fn piece(self, at: usize, size: usize) -> *const u8 {
        self.block.wrapping_add(at * PANEL_ROWS + self.row * size)
    }
}

/// A block format, in panels.
pub(super) trait Codes {
    /// Columns of a block, a multiple of 32.
    const COLUMNS: usize;
    /// Bytes of a block of one row.
    const BYTES: usize;
    /// Whether the two halves of a group have scales of their own.
    const HALVES: bool;
    /// Whether all codes are below 128.
    const SMALL: bool;

    /// One group of a block.
    ///
    /// # Safety
    /// `place` is that of a whole block of `S::LANES` rows.
    unsafe fn group<S: Simd>(simd: S, place: Place, group: usize) -> Group<S>;
}

macro_rules! formats {
    ($(
        $name:ident, $columns:literal, $bytes:literal, $halves:literal, $small:literal, $group:path;
    )*) => {$(
        pub(super) struct $name;

        impl Codes for $name {
            const COLUMNS: usize = $columns;
            const BYTES: usize = $bytes;
            const HALVES: bool = $halves;
            const SMALL: bool = $small;

            #[inline(always)]
            unsafe fn group<S: Simd>(simd: S, place: Place, group: usize) -> Group<S> {
                // SAFETY: the caller's promise.
                unsafe { $group(simd, place, group) }
            }
        }
    )*};
}

// Named as the variants of `BlockFormat` and `ScaledFormat`.
formats! {
    Q8_0, 32, 34, false, false, q8_0;
    Q4_0, 32, 18, false, true, q4_0;
    Q4_1, 32, 20, false, true, q4_1;
    Mxfp4, 32, 17, false, true, mxfp4;
    Q5_0, 32, 22, false, true, q5_0;
    Q5_1, 32, 24, false, true, q5_1;
    Q2K, 256, 84, true, true, q2_k;
    Q3K, 256, 110, true, true, q3_k;
    Q4K, 256, 144, false, true, q4_k;
    Q5K, 256, 176, false, true, q5_k;
    Q6K, 256, 210, true, true, q6_k;
    I8x128, 128, 132, false, false, scaled::bytes;
    I8x32, 32, 36, false, false, scaled::bytes;
    I4x128, 128, 68, false, true, scaled::nibbles;
    I4x32, 32, 20, false, true, scaled::nibbles;
    I4x32Bf16, 32, 18, false, true, scaled::nibbles_bf16;
    Nvfp4, 64, 40, true, true, scaled::nvfp4;
}

// SAFETY (of every load below): the piece lies within the block, by the promise of `group`.
macro_rules! within {
    ($expression:expr) => {
        // SAFETY: see the comment above this macro.
        unsafe { $expression }
    };
}

// Below the macro, which it uses.
mod scaled;

/// Half-precision numbers.
#[inline(always)]
unsafe fn halves<S: Simd>(simd: S, place: Place, at: usize) -> S::Vector {
    within!(simd.load_f16(place.piece(at, 2)))
}

/// Four codes or parts of codes of each row.
#[inline(always)]
unsafe fn four<S: Simd>(simd: S, place: Place, at: usize) -> S::Integers {
    within!(simd.load_integers(place.piece(at, 4)))
}

/// An unsigned byte of each row.
#[inline(always)]
unsafe fn byte<S: Simd>(simd: S, place: Place, at: usize) -> S::Integers {
    within!(simd.load_bytes(place.piece(at, 1)))
}

/// The low bits of each byte, or of each integer, after a shift to the right.
#[inline(always)]
fn bits<S: Simd>(simd: S, value: S::Integers, shift: usize, mask: i32) -> S::Integers {
    simd.and(
        simd.shift_right(value, shift as u32),
        simd.splat_integer(mask),
    )
}

const NIBBLES: i32 = 0x0f0f_0f0f;
const PAIRS: i32 = 0x0303_0303;
const SINGLES: i32 = 0x0101_0101;

/// A group with one scale and one minimum.
#[inline(always)]
fn whole<S: Simd>(codes: [S::Integers; 8], scale: S::Vector, minimum: S::Vector) -> Group<S> {
    Group {
        codes,
        scales: [scale; 2],
        minima: [minimum; 2],
    }
}

/// A group whose codes stand for numbers that are `zero` steps smaller.
#[inline(always)]
fn centred<S: Simd>(simd: S, codes: [S::Integers; 8], scale: S::Vector, zero: f32) -> Group<S> {
    whole(codes, scale, simd.multiply(scale, simd.splat(zero)))
}

/// The same with a scale for each half.
#[inline(always)]
fn centred_halves<S: Simd>(
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
unsafe fn nibbles<S: Simd>(simd: S, place: Place, at: usize) -> [S::Integers; 8] {
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
unsafe fn raised_bytes<S: Simd>(simd: S, place: Place, at: usize) -> [S::Integers; 8] {
    let mut codes = [simd.splat_integer(0); 8];
    for (index, codes) in codes.iter_mut().enumerate() {
        let signed = within!(four(simd, place, at + 4 * index));
        *codes = simd.exclusive_or(signed, simd.splat_integer(0x8080_8080_u32 as i32));
    }
    codes
}

/// A group of `codes` behind a half-precision scale.
#[inline(always)]
unsafe fn behind_scale<S: Simd>(
    simd: S,
    place: Place,
    codes: [S::Integers; 8],
    zero: f32,
) -> Group<S> {
    centred(simd, codes, within!(halves(simd, place, 0)), zero)
}

/// A group of `codes` behind a half-precision scale and a minimum, which has the other sign.
#[inline(always)]
unsafe fn behind_pair<S: Simd>(simd: S, place: Place, codes: [S::Integers; 8]) -> Group<S> {
    let (scale, addend) = within!((halves(simd, place, 0), halves(simd, place, 2)));
    whole(codes, scale, simd.subtract(simd.splat(0.0), addend))
}

#[inline(always)]
unsafe fn q8_0<S: Simd>(simd: S, place: Place, _: usize) -> Group<S> {
    within!(behind_scale(
        simd,
        place,
        raised_bytes(simd, place, 2),
        128.0
    ))
}

#[inline(always)]
unsafe fn q4_0<S: Simd>(simd: S, place: Place, _: usize) -> Group<S> {
    within!(behind_scale(simd, place, nibbles(simd, place, 2), 8.0))
}

#[inline(always)]
unsafe fn q4_1<S: Simd>(simd: S, place: Place, _: usize) -> Group<S> {
    within!(behind_pair(simd, place, nibbles(simd, place, 4)))
}

/// Twice the numbers that E2M1 codes stand for, plus 12.
const RAISED_E2M1: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];

/// The 32 codes of E2M1 numbers in 16 bytes.
#[inline(always)]
unsafe fn raised_e2m1<S: Simd>(simd: S, place: Place, at: usize) -> [S::Integers; 8] {
    let mut codes = within!(nibbles(simd, place, at));
    for codes in &mut codes {
        *codes = simd.look_up(&RAISED_E2M1, *codes);
    }
    codes
}

#[inline(always)]
unsafe fn mxfp4<S: Simd>(simd: S, place: Place, _: usize) -> Group<S> {
    // The scale is a power of two, of which the exponent's bits are stored. (The least one, 2^-127,
    // becomes 0; with it, no sum of products would be other than 0 beside any other block.)
    let exponent = within!(byte(simd, place, 0));
    let scale = simd.numbers_of_bits(simd.shift_left(exponent, 23));
    let half_scale = simd.multiply(scale, simd.splat(0.5));
    centred(simd, within!(raised_e2m1(simd, place, 1)), half_scale, 12.0)
}

/// `nibbles` behind four bytes with a fifth bit for each.
#[inline(always)]
unsafe fn five_bits<S: Simd>(simd: S, place: Place, at: usize) -> [S::Integers; 8] {
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

#[inline(always)]
unsafe fn q5_0<S: Simd>(simd: S, place: Place, _: usize) -> Group<S> {
    within!(behind_scale(simd, place, five_bits(simd, place, 2), 16.0))
}

#[inline(always)]
unsafe fn q5_1<S: Simd>(simd: S, place: Place, _: usize) -> Group<S> {
    within!(behind_pair(simd, place, five_bits(simd, place, 4)))
}

#[inline(always)]
unsafe fn q2_k<S: Simd>(simd: S, place: Place, group: usize) -> Group<S> {
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

/// A number times some bits of an integer.
#[inline(always)]
fn times_bits<S: Simd>(
    simd: S,
    number: S::Vector,
    value: S::Integers,
    shift: usize,
    mask: i32,
) -> S::Vector {
    simd.multiply(number, simd.numbers(bits(simd, value, shift, mask)))
}

#[inline(always)]
unsafe fn q3_k<S: Simd>(simd: S, place: Place, group: usize) -> Group<S> {
    let mut codes = [simd.splat_integer(0); 8];
    for (index, codes) in codes.iter_mut().enumerate() {
        let low = within!(four(simd, place, 32 + group / 4 * 32 + 4 * index));
        let high = within!(four(simd, place, 4 * index));
        let third = simd.shift_left(bits(simd, high, group, SINGLES), 2);
        *codes = simd.or(bits(simd, low, group % 4 * 2, PAIRS), third);
    }
    let scales = within!([
        q3_k_scale(simd, place, 2 * group),
        q3_k_scale(simd, place, 2 * group + 1)
    ]);
    centred_halves(simd, codes, scales, 4.0)
}

/// The block's scale times six signed bits, of which four are in the first eight bytes and two in
/// the last four.
#[inline(always)]
unsafe fn q3_k_scale<S: Simd>(simd: S, place: Place, index: usize) -> S::Vector {
    let low = within!(byte(simd, place, 96 + index % 8));
    let high = within!(byte(simd, place, 104 + index % 4));
    let high = simd.shift_left(bits(simd, high, index / 4 * 2, 3), 4);
    let six = simd.or(bits(simd, low, index / 8 * 4, 15), high);
    let signed = simd.subtract(simd.numbers(six), simd.splat(32.0));
    simd.multiply(within!(halves(simd, place, 108)), signed)
}

/// Scale and minimum, six bits each, of one of eight groups.
#[inline(always)]
unsafe fn six_bit_pair<S: Simd>(simd: S, place: Place, group: usize) -> [S::Vector; 2] {
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
unsafe fn twice_scaled<S: Simd>(
    simd: S,
    place: Place,
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

#[inline(always)]
unsafe fn q4_k<S: Simd>(simd: S, place: Place, group: usize) -> Group<S> {
    let mut codes = [simd.splat_integer(0); 8];
    for (index, codes) in codes.iter_mut().enumerate() {
        let both = within!(four(simd, place, 16 + group / 2 * 32 + 4 * index));
        *codes = bits(simd, both, group % 2 * 4, NIBBLES);
    }
    within!(twice_scaled(simd, place, group, codes))
}

#[inline(always)]
unsafe fn q5_k<S: Simd>(simd: S, place: Place, group: usize) -> Group<S> {
    let mut codes = [simd.splat_integer(0); 8];
    for (index, codes) in codes.iter_mut().enumerate() {
        let both = within!(four(simd, place, 48 + group / 2 * 32 + 4 * index));
        let fifth = within!(four(simd, place, 16 + 4 * index));
        let fifth = simd.shift_left(bits(simd, fifth, group, SINGLES), 4);
        *codes = simd.or(bits(simd, both, group % 2 * 4, NIBBLES), fifth);
    }
    within!(twice_scaled(simd, place, group, codes))
}

#[inline(always)]
unsafe fn q6_k<S: Simd>(simd: S, place: Place, group: usize) -> Group<S> {
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

/// The block's scale times a signed byte.
#[inline(always)]
unsafe fn q6_k_scale<S: Simd>(simd: S, place: Place, index: usize) -> S::Vector {
    let byte = within!(byte(simd, place, 192 + index));
    let raised = simd.numbers(simd.exclusive_or(byte, simd.splat_integer(128)));
    let signed = simd.subtract(raised, simd.splat(128.0));
    simd.multiply(within!(halves(simd, place, 208)), signed)
}
