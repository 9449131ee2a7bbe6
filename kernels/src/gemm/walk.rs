//! The walk over weights that lie in panels of blocks: panel after panel, each from its first block
//! to its last.

use super::Panels;
use crate::panels::PANEL_ROWS;
use crate::simd::{Simd, store_slice};

/// Bytes of activations that are walked again and again while they stay in the L2 cache.
const TOKEN_BLOCK_BYTES: usize = 512 * 1024;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Most parts of a panel's sums.
pub(super) const PARTS_MAX: usize = 2;

/// Sums for all rows of a panel, of which only the first `parts` count.
pub(super) type Sums<S> = [<S as Simd>::Vector; PARTS_MAX];

/// Vectors that hold a number for each row of a panel.
#[inline(always)]
pub(super) const fn parts<S: Simd>() -> usize {
    const { assert!(PANEL_ROWS <= PARTS_MAX * S::LANES) };
    PANEL_ROWS / S::LANES
}

/// How far ahead of their use weights are asked for, since processors do not prefetch beyond the
/// end of a page by themselves: what was fastest on Sapphire Rapids, with AVX-512, and on Zen 3,
/// with AVX2.
const fn ahead_bytes<S: Simd>() -> usize {
    if S::MANY_REGISTERS { 4096 } else { 1024 }
}

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

    /// Adds to `sums` the products of one block of a panel, and of `T` rows of activations, which
    /// move on behind the block.
    ///
    /// # Safety
    /// `block` addresses a whole block, and as many columns of activations follow `inputs`.
    unsafe fn add<S: Simd, const T: usize>(
        simd: S,
        block: *const u8,
        inputs: &mut [Self::Input; T],
        sums: &mut [Sums<S>; T],
    );
}

/// Computes all elements that belong to the panels' part.
#[inline(always)]
pub(super) fn walk<S: Simd, B: BlockProduct>(simd: S, panels: &Panels<'_>, product: &B) {
    let tokens = panels.part.product.input.count();
    let columns = panels.part.weight.columns;
    let block = TOKEN_BLOCK_BYTES / (columns * B::INPUT_BYTES);
    let block = block.max(8).next_multiple_of(8);
    let walk = Walk { panels, product };
    let mut first = 0;
    while first < tokens {
        let last = (first + block).min(tokens);
        for panel in panels.numbers() {
            let mut token = first;
            while token < last {
                // Later ones find the panel in the cache.
                let ask = token == first;
                token += match (S::MANY_REGISTERS, last - token) {
                    (true, 8..) => walk.tile::<S, 8>(simd, panel, token, ask),
                    (true, 4..) => walk.tile::<S, 4>(simd, panel, token, ask),
                    (_, 2..) => walk.tile::<S, 2>(simd, panel, token, ask),
                    _ => walk.tile::<S, 1>(simd, panel, token, ask),
                };
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
    /// A panel times `T` rows of activations; returns `T`. If it is to `ask`, it does so for the
    /// weights that follow.
    #[inline(always)]
    fn tile<S: Simd, const T: usize>(
        &self,
        simd: S,
        panel: usize,
        token: usize,
        ask: bool,
    ) -> usize {
        let mut inputs = [self.product.input(token); T];
        for (t, input) in inputs.iter_mut().enumerate() {
            *input = self.product.input(token + t);
        }
        let weights = self.panels.part.weight.panel(panel);
        let blocks = self.panels.part.weight.columns / B::COLUMNS;
        let block_bytes = B::BYTES * PANEL_ROWS;
        assert_eq!(weights.len(), blocks * block_bytes, "bytes of a panel");

        let mut sums = [[simd.splat(0.0); PARTS_MAX]; T];
        for block in weights.chunks_exact(block_bytes) {
            let block = block.as_ptr();
            if ask {
                for line in (0..block_bytes).step_by(LINE) {
                    simd.prefetch(block.wrapping_add(ahead_bytes::<S>() + line));
                }
            }
            // SAFETY: rows of activations have as many columns as the panel has in all its blocks.
            unsafe { B::add::<S, T>(simd, block, &mut inputs, &mut sums) };
        }
        for (t, sums) in sums.into_iter().enumerate() {
            let mut values = [0.0; PANEL_ROWS];
            for (values, sums) in values.chunks_exact_mut(S::LANES).zip(sums) {
                store_slice(simd, values, sums);
            }
            self.panels.put(panel, token + t, &values);
        }
        T
    }
}
