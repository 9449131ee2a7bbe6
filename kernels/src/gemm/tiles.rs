//! Products with BF16 weights in panels, on AMX tiles.
//!
//! Activations are sums of two BF16 numbers, so that results have the precision of f32 sums of
//! exact products, for twice the work of plain BF16. The order of sums for one element (columns
//! from first to last, 32 at a time, the first part of the activations before the second) is the
//! same for any number of rows of activations.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::Panels;
use super::operands::Split;
use crate::amx::{
    ROW_BYTES, TILE_NUMBERS, TILE_ROWS as TILE_TOKENS, configure, load, multiply, multiply_bf16,
    release, store_sums, zero_sums,
};
use crate::panels::{GROUP_COLUMNS, PANEL_ROWS};

/// Bytes of a tile of weights: those of a panel in 32 columns.
const TILE_BYTES: usize = PANEL_ROWS * GROUP_COLUMNS * 2;
/// Bytes of a tile of activations: one part of 16 rows in 32 columns.
const INPUT_BYTES: usize = TILE_NUMBERS * 2;
/// How many tiles ahead of their use weights are asked for.
const TILES_AHEAD: usize = 3;

// The tiles behind those of sums.
const INPUTS: [usize; 2] = [4, 5];
const WEIGHTS: [usize; 2] = [6, 7];

/// Computes the part's elements, for two tiles of activations at a time, and for what remains.
pub(in crate::gemm) fn run(panels: Panels<'_>, input: Split<'_>) {
    let product = Tiles { panels, input };
    let tokens = product.panels.part.product.input.count();
    let paired = tokens - tokens % (2 * TILE_TOKENS);
    // SAFETY: activations are only split where the processor has the instructions; nothing else
    // on this thread uses tiles meanwhile.
    unsafe {
        if paired > 0 {
            configure(tiles([TILE_TOKENS; 2]));
            for first in (0..paired).step_by(2 * TILE_TOKENS) {
                product.run_pair(first, [TILE_TOKENS; 2]);
            }
        }
        let rest = tokens - paired;
        if rest > TILE_TOKENS {
            let rows = [TILE_TOKENS, rest - TILE_TOKENS];
            configure(tiles(rows));
            product.run_pair(paired, rows);
        } else if rest > 0 {
            configure(tiles([rest; 2]));
            product.run_single(paired, rest);
        }
        release();
    }
}

struct Tiles<'a> {
    panels: Panels<'a>,
    input: Split<'a>,
}

impl Tiles<'_> {
    /// All panels times two tiles of activations, of so many rows, from row `first` on.
    ///
    /// # Safety
    /// The processor has AMX-BF16, this process may use it, and tiles are configured for as many
    /// rows.
    unsafe fn run_pair(&self, first: usize, rows: [usize; 2]) {
        let mut panels = self.panels.numbers();
        // SAFETY: the caller's promise.
        unsafe {
            while panels.len() >= 2 {
                self.pairs::<2>(panels.start, first, rows);
                panels.start += 2;
            }
            for panel in panels {
                self.pairs::<1>(panel, first, rows);
            }
        }
    }

    /// All panels times one tile of activations.
    ///
    /// # Safety
    /// As `run_pair`, for both tiles of which as many rows are configured.
    unsafe fn run_single(&self, first: usize, rows: usize) {
        let mut panels = self.panels.numbers();
        // SAFETY: the caller's promise.
        unsafe {
            while panels.len() >= 4 {
                self.single::<4>(panels.start, first, rows);
                panels.start += 4;
            }
            for panel in panels {
                self.single::<1>(panel, first, rows);
            }
        }
    }

    /// The first weights of each of `P` panels.
    fn weights<const P: usize>(&self, panel: usize) -> [*const u8; P] {
        std::array::from_fn(|index| {
            let bytes = self.panels.part.weight.panel(panel + index);
            assert_eq!(bytes.len(), self.steps() * TILE_BYTES, "bytes of a panel");
            bytes.as_ptr()
        })
    }

    /// The first tile of the activations, for 16 rows from row `token` on.
    fn inputs(&self, token: usize) -> *const u8 {
        let len = self.steps() * 2 * TILE_NUMBERS;
        let first = token / TILE_TOKENS * len;
        self.input.parts[first..first + len].as_ptr().cast()
    }

    fn steps(&self) -> usize {
        self.panels.part.weight.columns / GROUP_COLUMNS
    }

    /// `P` panels, at most four, times one tile of activations.
    ///
    /// # Safety
    /// As `run_single`.
    #[inline(always)]
    unsafe fn single<const P: usize>(&self, panel: usize, token: usize, rows: usize) {
        let weights = self.weights::<P>(panel);
        let inputs = self.inputs(token);
        // SAFETY: tiles of activations and of weights lie within the slices that the pointers
        // are taken from.
        unsafe {
            zero_sums();
            for step in 0..self.steps() {
                let inputs = inputs.add(step * 2 * INPUT_BYTES);
                load::<{ INPUTS[0] }>(inputs, ROW_BYTES);
                load::<{ INPUTS[1] }>(inputs.add(INPUT_BYTES), ROW_BYTES);
                for (index, weights) in weights.iter().enumerate() {
                    let weights = weights.add(step * TILE_BYTES);
                    for line in (0..TILE_BYTES).step_by(ROW_BYTES) {
                        let ahead = weights.wrapping_add(TILES_AHEAD * TILE_BYTES + line);
                        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                    }
                    match index {
                        0 => multiply_parts::<0, { WEIGHTS[0] }>(weights),
                        1 => multiply_parts::<1, { WEIGHTS[1] }>(weights),
                        2 => multiply_parts::<2, { WEIGHTS[0] }>(weights),
                        _ => multiply_parts::<3, { WEIGHTS[1] }>(weights),
                    }
                }
            }
            for index in 0..P {
                self.put(index, panel + index, token, rows);
            }
        }
    }

    /// `P` panels, at most two, times two tiles of activations.
    ///
    /// # Safety
    /// As `run_pair`.
    #[inline(always)]
    unsafe fn pairs<const P: usize>(&self, panel: usize, token: usize, rows: [usize; 2]) {
        let weights = self.weights::<P>(panel);
        let inputs = [token, token + TILE_TOKENS].map(|token| self.inputs(token));
        // SAFETY: as in `single`.
        unsafe {
            zero_sums();
            for step in 0..self.steps() {
                load::<{ WEIGHTS[0] }>(weights[0].add(step * TILE_BYTES), ROW_BYTES);
                if P == 2 {
                    load::<{ WEIGHTS[1] }>(weights[1].add(step * TILE_BYTES), ROW_BYTES);
                }
                for part in 0..2 {
                    let [first, second] =
                        inputs.map(|inputs| inputs.add((2 * step + part) * INPUT_BYTES));
                    load::<{ INPUTS[0] }>(first, ROW_BYTES);
                    load::<{ INPUTS[1] }>(second, ROW_BYTES);
                    multiply_bf16::<0, { INPUTS[0] }, { WEIGHTS[0] }>();
                    multiply_bf16::<2, { INPUTS[1] }, { WEIGHTS[0] }>();
                    if P == 2 {
                        multiply_bf16::<1, { INPUTS[0] }, { WEIGHTS[1] }>();
                        multiply_bf16::<3, { INPUTS[1] }, { WEIGHTS[1] }>();
                    }
                }
            }
            for index in 0..P {
                self.put(index, panel + index, token, rows[0]);
                self.put(2 + index, panel + index, token + TILE_TOKENS, rows[1]);
            }
        }
    }

    /// Stores the elements that a tile of sums holds.
    ///
    /// # Safety
    /// As `run_pair`; the tile has `rows` rows.
    #[inline(always)]
    unsafe fn put(&self, tile: usize, panel: usize, token: usize, rows: usize) {
        if let Some((out, stride)) = self.panels.place(panel, token..token + rows) {
            // SAFETY: the place has room for the tile.
            return unsafe { store_sums(tile, out, stride) };
        }
        // SAFETY: the caller's promise.
        unsafe { self.put_rows(tile, panel, token, rows) }
    }

    /// The same for elements of which some do not count or are still to be multiplied.
    ///
    /// # Safety
    /// As `put`.
    #[inline(never)]
    unsafe fn put_rows(&self, tile: usize, panel: usize, token: usize, rows: usize) {
        let mut sums = Sums([[0.0; PANEL_ROWS]; TILE_TOKENS]);
        // SAFETY: a tile has at most 16 rows of 64 bytes.
        unsafe { store_sums(tile, sums.0.as_mut_ptr().cast(), PANEL_ROWS) };
        for (index, sums) in sums.0[..rows].iter().enumerate() {
            self.panels.put(panel, token + index, sums);
        }
    }
}

/// Sums of a tile.
#[repr(C, align(64))]
struct Sums([[f32; PANEL_ROWS]; TILE_TOKENS]);

/// Rows of all tiles for two tiles of activations: sums 0 and 1 are those of the first, 2 and 3
/// those of the second. Weights fill their tiles.
fn tiles([first, second]: [usize; 2]) -> [(usize, usize); 8] {
    let (sums, inputs) = ([first, first, second, second], [first, second]);
    let mut rows = sums.into_iter().chain(inputs);
    std::array::from_fn(|_| (rows.next().unwrap_or(PANEL_ROWS), ROW_BYTES))
}

/// Loads weights and multiplies them with both parts of a tile of activations.
///
/// # Safety
/// `weights` addresses a tile.
#[inline(always)]
unsafe fn multiply_parts<const SUM: usize, const WEIGHT: usize>(weights: *const u8) {
    // SAFETY: the caller's promise.
    unsafe {
        multiply::<SUM, { INPUTS[0] }, WEIGHT>(weights);
        multiply_bf16::<SUM, { INPUTS[1] }, WEIGHT>();
    }
}
