//! AMX: products of tiles of 16 rows of activations and 16 rows of weights, which lie in panels.
//!
//! The compiler knows nothing of tiles, so each instruction is a function, and a kernel keeps its
//! tiles between `configure` and `release`.

pub(super) mod numbers;

use std::arch::asm;

use super::operands::TILE_TOKENS;
use crate::panels::PANEL_ROWS;

/// Bytes of a row of a tile of weights or of sums.
const ROW_BYTES: usize = 64;

/// Rows and bytes of a row of each tile, as `LDTILECFG` takes them.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    first_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Sums of a tile, `[tokens, PANEL_ROWS]`.
#[repr(C, align(64))]
struct Sums([[f32; PANEL_ROWS]; TILE_TOKENS]);

/// Sets the rows of all tiles and the bytes of each of their rows.
///
/// # Safety
/// The processor has AMX, and this process may use it. The same goes for all below, for which the
/// tiles must have been configured.
unsafe fn configure(tiles: [(usize, usize); 8]) {
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
unsafe fn release() {
    // SAFETY: the caller's promise.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) }
}

/// # Safety
/// As `configure`.
#[inline(always)]
unsafe fn zero<const TILE: usize>() {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("tilezero tmm{tile}", tile = const TILE, options(nostack, preserves_flags, nomem));
    }
}

/// # Safety
/// Rows at `pointer`, `stride` bytes apart, are as long as the tile's.
#[inline(always)]
unsafe fn load<const TILE: usize>(pointer: *const u8, stride: usize) {
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
/// The tile's rows, 64 bytes apart, fit at `pointer`.
#[inline(always)]
unsafe fn store<const TILE: usize>(pointer: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tilestored [{pointer} + {stride}], tmm{tile}",
            tile = const TILE,
            pointer = in(reg) pointer,
            stride = in(reg) ROW_BYTES,
            options(nostack, preserves_flags),
        );
    }
}

/// Adds the products of BF16 numbers.
///
/// # Safety
/// As `configure`.
#[inline(always)]
unsafe fn multiply_bf16<const SUM: usize, const INPUT: usize, const WEIGHT: usize>() {
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
