//! AMX: products of tiles of BF16 numbers.
//!
//! The compiler knows nothing of tiles, so each instruction is a function, and a kernel keeps its
//! tiles between `configure` and `release`. `TDPBF16PS` adds, for each element of a tile of sums,
//! the products of 16 pairs of columns, pair after pair; the order is the same for any number of
//! rows, so that no row's result depends on the others.
#![expect(unsafe_code, reason = "tiles are instructions of their own")]

use std::arch::asm;
use std::arch::x86_64::{
    __m256i, __m512, __m512i, _mm256_loadu_si256, _mm512_castsi512_ps, _mm512_castsi512_si256,
    _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_extracti64x4_epi64, _mm512_loadu_ps,
    _mm512_or_si512, _mm512_slli_epi32, _mm512_storeu_si512, _mm512_sub_ps,
};
use std::mem::transmute;

/// Rows of a tile.
pub(crate) const TILE_ROWS: usize = 16;
/// Bytes of a row of a tile.
pub(crate) const ROW_BYTES: usize = 64;
/// Columns that one instruction multiplies: the BF16 numbers of a row.
pub(crate) const TILE_COLUMNS: usize = 32;
/// BF16 numbers of a tile.
pub(crate) const TILE_NUMBERS: usize = TILE_ROWS * TILE_COLUMNS;

/// Rows and bytes of a row of each tile, as `LDTILECFG` takes them.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    first_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Sets the rows of all tiles and the bytes of each of their rows.
///
/// # Safety
/// The processor has AMX, and this process may use it. The same goes for all below, for which the
/// tiles must have been configured.
pub(crate) unsafe fn configure(tiles: [(usize, usize); 8]) {
    let mut configuration = Configuration {
        palette: 1,
        first_row: 0,
        reserved: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
    for (tile, (rows, row_bytes)) in tiles.into_iter().enumerate() {
        configuration.row_bytes[tile] = row_bytes as u16;
        configuration.rows[tile] = rows as u8;
    }
    // SAFETY: the configuration has the 64 bytes that are read.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, preserves_flags, readonly));
    }
}

/// Gives the tiles up.
///
/// # Safety
/// As `configure`.
pub(crate) unsafe fn release() {
    // SAFETY: the caller's promise.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) }
}

/// # Safety
/// As `configure`.
#[inline(always)]
pub(crate) unsafe fn zero<const TILE: usize>() {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("tilezero tmm{tile}", tile = const TILE, options(nostack, preserves_flags, nomem));
    }
}

/// # Safety
/// Rows at `pointer`, `stride` bytes apart, are as long as the tile's.
#[inline(always)]
pub(crate) unsafe fn load<const TILE: usize>(pointer: *const u8, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tileloadd tmm{tile}, [{pointer} + {stride}]",
            tile = const TILE,
            pointer = in(reg) pointer,
            stride = in(reg) stride,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// # Safety
/// The tile's rows, `stride` bytes apart, fit at `pointer`.
#[inline(always)]
pub(crate) unsafe fn store<const TILE: usize>(pointer: *mut u8, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tilestored [{pointer} + {stride}], tmm{tile}",
            tile = const TILE,
            pointer = in(reg) pointer,
            stride = in(reg) stride,
            options(nostack, preserves_flags),
        );
    }
}

/// Adds the products of BF16 numbers.
///
/// # Safety
/// As `configure`.
#[inline(always)]
pub(crate) unsafe fn multiply_bf16<const SUM: usize, const INPUT: usize, const WEIGHT: usize>() {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tdpbf16ps tmm{sum}, tmm{input}, tmm{weight}",
            sum = const SUM,
            input = const INPUT,
            weight = const WEIGHT,
            options(nostack, preserves_flags, nomem),
        );
    }
}

/// Clears the tiles of sums, which by convention are the first four.
///
/// # Safety
/// As `configure`.
#[inline(always)]
pub(crate) unsafe fn zero_sums() {
    // SAFETY: the caller's promise.
    unsafe {
        zero::<0>();
        zero::<1>();
        zero::<2>();
        zero::<3>();
    }
}

/// Loads a tile of sums, whose rows are `stride` numbers apart.
///
/// # Safety
/// The tile's rows lie at `sums`.
#[inline(always)]
pub(crate) unsafe fn load_sums(tile: usize, sums: *const f32, stride: usize) {
    let (sums, stride) = (sums.cast(), stride * size_of::<f32>());
    // SAFETY: the caller's promise.
    unsafe {
        match tile {
            0 => load::<0>(sums, stride),
            1 => load::<1>(sums, stride),
            2 => load::<2>(sums, stride),
            _ => load::<3>(sums, stride),
        }
    }
}

/// Stores a tile of sums, whose rows shall be `stride` numbers apart.
///
/// # Safety
/// The tile's rows fit at `out`.
#[inline(always)]
pub(crate) unsafe fn store_sums(tile: usize, out: *mut f32, stride: usize) {
    let (out, stride) = (out.cast(), stride * size_of::<f32>());
    // SAFETY: the caller's promise.
    unsafe {
        match tile {
            0 => store::<0>(out, stride),
            1 => store::<1>(out, stride),
            2 => store::<2>(out, stride),
            _ => store::<3>(out, stride),
        }
    }
}

/// Loads a tile of the right operand and multiplies it with the left one.
///
/// # Safety
/// As `load`.
#[inline(always)]
pub(crate) unsafe fn multiply<const SUM: usize, const LEFT: usize, const RIGHT: usize>(
    right: *const u8,
) {
    // SAFETY: the caller's promise.
    unsafe {
        load::<RIGHT>(right, ROW_BYTES);
        multiply_bf16::<SUM, LEFT, RIGHT>();
    }
}

/// Writes the nearest BF16 numbers of `numbers` as the row `row` of tiles that follow one another.
///
/// # Safety
/// The processor has AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) unsafe fn narrow_row(numbers: &[f32], row: usize, tiles: &mut [u16]) {
    let tiles = tiles.as_chunks_mut::<TILE_NUMBERS>().0;
    for (numbers, tile) in numbers.as_chunks().0.iter().zip(tiles) {
        let (low, high) = halves(numbers);
        put(narrow(low, high), row, tile);
    }
}

/// Writes `numbers` as sums of two BF16 numbers, the second of which is the nearest to what the
/// first leaves: together they have at least 16 significant bits. They are the row `row` of pairs
/// of tiles that follow one another.
///
/// # Safety
/// The processor has AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) unsafe fn split_row(numbers: &[f32], row: usize, tiles: &mut [u16]) {
    let tiles = tiles.as_chunks_mut::<TILE_NUMBERS>().0;
    let pairs = tiles.as_chunks_mut::<2>().0;
    for (numbers, [first, second]) in numbers.as_chunks().0.iter().zip(pairs) {
        let (low, high) = halves(numbers);
        let part = narrow(low, high);
        put(part, row, first);
        let low = _mm512_sub_ps(low, widen(_mm512_castsi512_si256(part)));
        let high = _mm512_sub_ps(high, widen(_mm512_extracti64x4_epi64::<1>(part)));
        put(narrow(low, high), row, second);
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn halves(numbers: &[f32; TILE_COLUMNS]) -> (__m512, __m512) {
    // SAFETY: there are 32 numbers.
    unsafe {
        let high = numbers.as_ptr().add(TILE_COLUMNS / 2);
        (_mm512_loadu_ps(numbers.as_ptr()), _mm512_loadu_ps(high))
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn put(numbers: __m512i, row: usize, tile: &mut [u16; TILE_NUMBERS]) {
    let out = &mut tile[row * TILE_COLUMNS..][..TILE_COLUMNS];
    // SAFETY: there is room for 32 numbers.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), numbers) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn widen(numbers: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(numbers)))
}

/// The nearest BF16 numbers; those that are not normal become zeros.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
pub(crate) fn narrow(low: __m512, high: __m512) -> __m512i {
    // SAFETY: vectors of the same size, in which any bits are valid.
    unsafe { transmute(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Writes 16 numbers of each of two rows as pairs: a row of a right operand.
///
/// # Safety
/// The processor has AVX-512; the rows are readable, and the pairs writable.
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) unsafe fn interleave(rows: [*const u16; 2], pairs: *mut u16) {
    // SAFETY: the caller's promise.
    unsafe {
        let even = _mm512_cvtepu16_epi32(_mm256_loadu_si256(rows[0].cast()));
        let odd = _mm512_cvtepu16_epi32(_mm256_loadu_si256(rows[1].cast()));
        let both = _mm512_or_si512(even, _mm512_slli_epi32::<16>(odd));
        _mm512_storeu_si512(pairs.cast(), both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::{narrow_bf16, widen_bf16};
    use crate::features::InstructionSet;
    use crate::random::random_values;

    #[test]
    fn rows_of_tiles_hold_the_nearest_bf16_numbers_or_two_that_keep_sixteen_bits() {
        if InstructionSet::detect() < InstructionSet::Amx {
            return;
        }
        let numbers = random_values(1, 300 * TILE_COLUMNS, 3.0);
        let mut narrowed = vec![0; 300 * TILE_NUMBERS];
        let mut split = vec![0; 2 * narrowed.len()];
        // SAFETY: the processor has the instructions.
        unsafe {
            narrow_row(&numbers, 5, &mut narrowed);
            split_row(&numbers, 5, &mut split);
        }
        for (at, &number) in numbers.iter().enumerate() {
            let (tile, place) = (at / TILE_COLUMNS, 5 * TILE_COLUMNS + at % TILE_COLUMNS);
            assert_eq!(narrowed[tile * TILE_NUMBERS + place], narrow_bf16(number));
            let [first, second] =
                [0, 1].map(|part| split[(2 * tile + part) * TILE_NUMBERS + place]);
            assert_eq!(first, narrow_bf16(number));
            let both = widen_bf16(first) + widen_bf16(second);
            assert!((both - number).abs() <= number.abs() / 65_536.0);
        }
        let written = narrowed.iter().filter(|&&number| number != 0).count();
        assert!(written <= numbers.len(), "other rows stay");
    }
}
