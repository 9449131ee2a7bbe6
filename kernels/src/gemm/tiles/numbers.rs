//! Products with BF16 weights in panels, on AMX tiles.
//!
//! Activations are sums of two BF16 numbers, so that results have the precision of f32 sums of
//! exact products, for twice the work of plain BF16. `TDPBF16PS` adds, for each element, the
//! products of 16 pairs of columns, pair after pair; the order for one element (columns from first
//! to last, the first part of the activations before the second) is the same for any number of
//! rows of activations, so that no row's result depends on the others.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::{ROW_BYTES, Sums, configure, load, multiply_bf16, release, store, zero};
use crate::gemm::Panels;
use crate::gemm::operands::{Split, TILE_NUMBERS, TILE_TOKENS};
use crate::panels::{GROUP_COLUMNS, PANEL_ROWS};

/// Bytes of the weights of a panel in 32 columns: one tile.
const TILE_BYTES: usize = PANEL_ROWS * GROUP_COLUMNS * 2;

/// Bytes of 16 rows of activations in 32 columns: one tile.
const INPUT_BYTES: usize = TILE_NUMBERS * 2;
/// How many tiles ahead of their use weights are asked for.
const TILES_AHEAD: usize = 3;

// The tiles that hold one block of 16 tokens and four panels, or two of each.
const SUMS: [usize; 4] = [0, 1, 2, 3];
const INPUTS: [usize; 2] = [4, 5];
const WEIGHTS: [usize; 2] = [6, 7];

/// Computes the part's elements.
pub(in crate::gemm) fn run(panels: Panels<'_>, input: Split<'_>) {
    let product = Tiles { panels, input };
    let tokens = product.tokens();
    let mut first = 0;
    while first < tokens {
        let last = (first + 2 * TILE_TOKENS).min(tokens);
        // SAFETY: activations are only split where the processor has the instructions.
        unsafe { product.run_tokens(first, last) };
        first = last;
    }
}

struct Tiles<'a> {
    panels: Panels<'a>,
    input: Split<'a>,
}

impl Tiles<'_> {
    fn tokens(&self) -> usize {
        self.panels.part.product.input.len()
    }

    /// All panels times some rows of activations, at most two tiles of them.
    ///
    /// # Safety
    /// The processor has AMX-BF16, and this process may use it.
    unsafe fn run_tokens(&self, first: usize, last: usize) {
        let rows = [
            (last - first).min(TILE_TOKENS),
            (last - first).saturating_sub(TILE_TOKENS),
        ];
        let mut panels = self.panels.numbers();
        // SAFETY: the caller's promise; nothing else on this thread uses tiles meanwhile.
        unsafe {
            if rows[1] > 0 {
                // Sums 0 and 1 are those of the first 16 tokens, 2 and 3 those of the others.
                let [a, b] = rows;
                configure(tiles([a, a, b, b], [a, b]));
                while panels.len() >= 2 {
                    self.pairs::<2>(panels.start, first, rows);
                    panels.start += 2;
                }
                for panel in panels {
                    self.pairs::<1>(panel, first, rows);
                }
            } else {
                configure(tiles([rows[0]; 4], [rows[0]; 2]));
                while panels.len() >= 4 {
                    self.single::<4>(panels.start, first, rows[0]);
                    panels.start += 4;
                }
                for panel in panels {
                    self.single::<1>(panel, first, rows[0]);
                }
            }
            release();
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

    /// The first tiles of both parts of the activations, for 16 rows from row `token` on.
    fn inputs(&self, token: usize) -> [*const u8; 2] {
        let len = self.steps() * TILE_NUMBERS;
        let first = token / TILE_TOKENS * len;
        let half = self.input.parts.len() / 2;
        [first, half + first].map(|first| self.input.parts[first..first + len].as_ptr().cast())
    }

    fn steps(&self) -> usize {
        self.panels.part.weight.columns / GROUP_COLUMNS
    }

    /// `P` panels, at most four, times one tile of activations.
    ///
    /// # Safety
    /// As `run_tokens`; the tiles are configured for `rows` rows.
    #[inline(always)]
    unsafe fn single<const P: usize>(&self, panel: usize, token: usize, rows: usize) {
        let weights = self.weights::<P>(panel);
        let inputs = self.inputs(token);
        // SAFETY: tiles of activations and of weights lie within the slices that the pointers
        // are taken from.
        unsafe {
            zero_sums::<P>();
            for step in 0..self.steps() {
                load::<{ INPUTS[0] }>(inputs[0].add(step * INPUT_BYTES), ROW_BYTES);
                load::<{ INPUTS[1] }>(inputs[1].add(step * INPUT_BYTES), ROW_BYTES);
                for (index, weights) in weights.iter().enumerate() {
                    let weights = weights.add(step * TILE_BYTES);
                    for line in (0..TILE_BYTES).step_by(ROW_BYTES) {
                        let ahead = weights.wrapping_add(TILES_AHEAD * TILE_BYTES + line);
                        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                    }
                    match index {
                        0 => multiply_single::<{ SUMS[0] }, { WEIGHTS[0] }>(weights),
                        1 => multiply_single::<{ SUMS[1] }, { WEIGHTS[1] }>(weights),
                        2 => multiply_single::<{ SUMS[2] }, { WEIGHTS[0] }>(weights),
                        _ => multiply_single::<{ SUMS[3] }, { WEIGHTS[1] }>(weights),
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
    /// As `run_tokens`; the tiles are configured for `rows` rows.
    #[inline(always)]
    unsafe fn pairs<const P: usize>(&self, panel: usize, token: usize, rows: [usize; 2]) {
        let weights = self.weights::<P>(panel);
        let first = self.inputs(token);
        let second = self.inputs(token + TILE_TOKENS);
        // SAFETY: as in `single`.
        unsafe {
            zero_sums::<4>();
            for step in 0..self.steps() {
                load::<{ WEIGHTS[0] }>(weights[0].add(step * TILE_BYTES), ROW_BYTES);
                if P == 2 {
                    load::<{ WEIGHTS[1] }>(weights[1].add(step * TILE_BYTES), ROW_BYTES);
                }
                for part in 0..2 {
                    load::<{ INPUTS[0] }>(first[part].add(step * INPUT_BYTES), ROW_BYTES);
                    load::<{ INPUTS[1] }>(second[part].add(step * INPUT_BYTES), ROW_BYTES);
                    multiply_bf16::<{ SUMS[0] }, { INPUTS[0] }, { WEIGHTS[0] }>();
                    multiply_bf16::<{ SUMS[2] }, { INPUTS[1] }, { WEIGHTS[0] }>();
                    if P == 2 {
                        multiply_bf16::<{ SUMS[1] }, { INPUTS[0] }, { WEIGHTS[1] }>();
                        multiply_bf16::<{ SUMS[3] }, { INPUTS[1] }, { WEIGHTS[1] }>();
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
    /// As `run_tokens`; the tile has at most 16 rows of 64 bytes.
    unsafe fn put(&self, tile: usize, panel: usize, token: usize, rows: usize) {
        let mut sums = Sums([[0.0; PANEL_ROWS]; TILE_TOKENS]);
        let pointer = (&raw mut sums).cast();
        // SAFETY: the caller's promise.
        unsafe {
            match tile {
                0 => store::<{ SUMS[0] }>(pointer),
                1 => store::<{ SUMS[1] }>(pointer),
                2 => store::<{ SUMS[2] }>(pointer),
                _ => store::<{ SUMS[3] }>(pointer),
            }
        }
        for (index, sums) in sums.0[..rows].iter().enumerate() {
            self.panels.put(panel, 0, token + index, sums);
        }
    }
}

/// Rows of the tiles of sums and of activations; weights fill theirs.
fn tiles(sums: [usize; 4], inputs: [usize; 2]) -> [(usize, usize); 8] {
    let [a, b, c, d] = sums;
    let [e, f] = inputs;
    [a, b, c, d, e, f, PANEL_ROWS, PANEL_ROWS].map(|rows| (rows, ROW_BYTES))
}

/// Clears the first `COUNT` tiles of sums, one or all.
///
/// # Safety
/// As `configure`, which has been called.
#[inline(always)]
unsafe fn zero_sums<const COUNT: usize>() {
    // SAFETY: the caller's promise.
    unsafe {
        zero::<{ SUMS[0] }>();
        if COUNT > 1 {
            zero::<{ SUMS[1] }>();
            zero::<{ SUMS[2] }>();
            zero::<{ SUMS[3] }>();
        }
    }
}

/// Loads weights and multiplies them with both parts of a tile of activations.
///
/// # Safety
/// `weights` addresses a tile.
#[inline(always)]
unsafe fn multiply_single<const SUM: usize, const WEIGHT: usize>(weights: *const u8) {
    // SAFETY: the caller's promise.
    unsafe {
        load::<WEIGHT>(weights, ROW_BYTES);
        multiply_bf16::<SUM, { INPUTS[0] }, WEIGHT>();
        multiply_bf16::<SUM, { INPUTS[1] }, WEIGHT>();
    }
}
