//! The walk over weights that lie in panels of blocks: panel after panel, each from its first block
//! to its last.

use super::Panels;
use super::codes::Place;
use crate::panels::PANEL_ROWS;
use crate::simd::{LANES_MAX, Simd};

/// Bytes of activations that are walked again and again while they stay in the L2 cache.
const TOKEN_BLOCK_BYTES: usize = 512 * 1024;
/// How far ahead of their use weights are asked for. Processors do not prefetch beyond the end of
/// a page by themselves.
const AHEAD_BYTES: usize = 4096;
/// Bytes of a cache line.
const LINE: usize = 64;

/// How the blocks of a format are multiplied.
pub(super) trait BlockProduct {
    /// Columns of a block.
    const COLUMNS: usize;
    /// Bytes of a block of one row.
    const BYTES: usize;
    /// Bytes of an activation.
    const INPUT_BYTES: usize;
    /// A place in a row of activations.
    type Input: Copy;

    /// The beginning of a row of activations, which has as many columns as the weights.
    fn input(&self, token: usize) -> Self::Input;

    /// Adds to `sums` the products of one block of some rows of weights, and of `T` rows of
    /// activations, which move on behind the block.
    ///
    /// # Safety
    /// `place` is that of a whole block of `S::LANES` rows, and as many columns of activations
    /// follow `inputs`.
    unsafe fn add<S: Simd, const T: usize>(
        simd: S,
        place: Place,
        inputs: &mut [Self::Input; T],
        sums: &mut [S::Vector; T],
    );
}

/// Computes all elements that belong to the panels' part.
#[inline(always)]
pub(super) fn walk<S: Simd, B: BlockProduct>(simd: S, panels: &Panels<'_>, product: &B) {
    let tokens = panels.part.product.input.len();
    let columns = panels.part.weight.columns;
    let block = TOKEN_BLOCK_BYTES / (columns * B::INPUT_BYTES);
    let block = block.max(8).next_multiple_of(8);
    let walk = Walk { panels, product };
    let mut first = 0;
    while first < tokens {
        let last = (first + block).min(tokens);
        for panel in panels.numbers() {
            let mut lane = 0;
            while lane < PANEL_ROWS {
                let mut token = first;
                while token < last {
                    token += match (S::MANY_REGISTERS, last - token) {
                        (true, 8..) => walk.tile::<S, 8>(simd, panel, lane, token),
                        (true, 4..) => walk.tile::<S, 4>(simd, panel, lane, token),
                        (_, 2..) => walk.tile::<S, 2>(simd, panel, lane, token),
                        _ => walk.tile::<S, 1>(simd, panel, lane, token),
                    };
                }
                lane += S::LANES;
            }
        }
        first = last;
    }
}

struct Walk<'a, B> {
    panels: &'a Panels<'a>,
    product: &'a B,
}

impl<B: BlockProduct> Walk<'_, B> {
    /// `S::LANES` rows of a panel times `T` rows of activations; returns `T`.
    #[inline(always)]
    fn tile<S: Simd, const T: usize>(
        &self,
        simd: S,
        panel: usize,
        lane: usize,
        token: usize,
    ) -> usize {
        let mut inputs = [self.product.input(token); T];
        for (t, input) in inputs.iter_mut().enumerate() {
            *input = self.product.input(token + t);
        }
        let weights = self.panels.part.weight.panel(panel);
        let blocks = self.panels.part.weight.columns / B::COLUMNS;
        let block_bytes = B::BYTES * PANEL_ROWS;
        assert_eq!(weights.len(), blocks * block_bytes, "bytes of a panel");

        let mut sums = [simd.splat(0.0); T];
        for block in weights.chunks_exact(block_bytes) {
            let place = Place {
                block: block.as_ptr(),
                row: lane,
            };
            for line in (0..B::BYTES * S::LANES).step_by(LINE) {
                simd.prefetch(place.block.wrapping_add(AHEAD_BYTES + line));
            }
            // SAFETY: rows of activations have as many columns as the panel has in all its blocks.
            unsafe { B::add::<S, T>(simd, place, &mut inputs, &mut sums) };
        }
        for (t, sum) in sums.into_iter().enumerate() {
            let mut values = [0.0; LANES_MAX];
            // SAFETY: the array has room for all lanes.
            unsafe { simd.store(values.as_mut_ptr(), sum) };
            self.panels.put(panel, lane, token + t, &values[..S::LANES]);
        }
        T
    }
}
