//! Pairs of token and expert, sorted by expert. Launches of `kernels/cuda/group.cu`.

use super::device::{Device, DeviceError, DevicePointer, Grid, KernelArgs, Stream};
use super::layout::ROW_STEP;
use super::pack::int;

/// Segments of experts begin at multiples of this.
pub const SEGMENT_STEP: usize = 8;
/// Largest number of experts.
pub const EXPERTS_MAX: usize = 1024;

const THREADS: usize = 1024;
const WARPS: usize = THREADS / 32;
/// Up to this many slots are sorted by one block.
const ONE_BLOCK_SLOTS_MAX: usize = 4096;
/// Slots of each of several blocks.
const BLOCK_SLOTS: usize = 2048;

/// Some consecutive pairs that one expert computes, `TokenTile` of `layout.cuh`: read it back as
/// four u32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TokenTile {
    /// The expert.
    pub expert: u32,
    /// First pair, a multiple of eight.
    pub first: u32,
    /// Pairs that are real.
    pub count: u32,
    unused: u32,
}

/// Sizes of a sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grouping {
    /// Tokens.
    pub rows: usize,
    /// Experts of a token.
    pub top_k: usize,
    /// Experts of the layer.
    pub experts: usize,
    /// Largest number of pairs of a tile: 8, 16, 32, 64 or 128.
    pub tile_width: usize,
}

/// Memory of a sort.
#[derive(Clone, Copy, Debug)]
pub struct GroupMemory {
    /// u32 `[rows][top_k]`: the chosen experts. What is no expert's number is in no pair.
    pub experts: DevicePointer,
    /// u32 `[rows][top_k]`: where among the pairs, or `NONE`.
    pub pair_of_slot: DevicePointer,
    /// u32 `[pair_capacity]`: the token of each pair, `NONE` in gaps and behind the end.
    pub token_of_pair: DevicePointer,
    /// [`TokenTile`] `[tile_capacity]`, by expert, then by pair.
    pub tiles: DevicePointer,
    /// Two u32: the number of tiles, and the end of the last segment of pairs.
    pub counts: DevicePointer,
    /// [`Grouping::scratch_bytes`] bytes.
    pub scratch: DevicePointer,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct GroupArgs {
    experts: DevicePointer,
    pair_of_slot: DevicePointer,
    token_of_pair: DevicePointer,
    tiles: DevicePointer,
    counts: DevicePointer,
    block_table: DevicePointer,
    slots: i32,
    top_k: i32,
    num_experts: i32,
    tile_width: i32,
    capacity: i32,
    blocks: i32,
}

const _: () = assert!(size_of::<GroupArgs>() == 72);
const _: () = assert!(size_of::<TokenTile>() == 16);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for GroupArgs {}

impl Grouping {
    fn slots(&self) -> usize {
        self.rows * self.top_k
    }

    /// Experts that can have a pair.
    fn used_experts_max(&self) -> usize {
        self.experts.min(self.slots())
    }

    /// Rows that all matrices of pairs have: room for the gap behind each expert's segment, and
    /// for the widest tile to reach behind the last one.
    pub fn pair_capacity(&self) -> usize {
        let gaps = (SEGMENT_STEP - 1) * self.used_experts_max();
        (self.slots() + gaps).next_multiple_of(ROW_STEP) + ROW_STEP
    }

    /// Tiles that there may be.
    pub fn tile_capacity(&self) -> usize {
        let rounding = (self.tile_width - 1) * self.used_experts_max();
        (self.slots() + rounding) / self.tile_width
    }

    fn blocks(&self) -> usize {
        if self.slots() <= ONE_BLOCK_SLOTS_MAX {
            1
        } else {
            self.slots().div_ceil(BLOCK_SLOTS)
        }
    }

    /// Bytes that the sort needs besides its results.
    pub fn scratch_bytes(&self) -> usize {
        self.blocks() * self.experts * size_of::<u32>()
    }

    /// Queues the sort.
    ///
    /// # Safety
    ///
    /// All pointers are valid for the sizes given.
    pub unsafe fn launch(
        &self,
        device: &dyn Device,
        stream: Stream,
        memory: &GroupMemory,
    ) -> Result<(), DeviceError> {
        assert!((1..=EXPERTS_MAX).contains(&self.experts), "experts");
        assert!(
            self.tile_width.is_power_of_two() && (8..=ROW_STEP).contains(&self.tile_width),
            "tile width"
        );
        let args = GroupArgs {
            experts: memory.experts,
            pair_of_slot: memory.pair_of_slot,
            token_of_pair: memory.token_of_pair,
            tiles: memory.tiles,
            counts: memory.counts,
            block_table: memory.scratch,
            slots: int(self.slots()),
            top_k: int(self.top_k),
            num_experts: int(self.experts),
            tile_width: int(self.tile_width),
            capacity: int(self.pair_capacity()),
            blocks: int(self.blocks()),
        };
        let (table_bytes, sums_bytes) = (WARPS * self.experts * 4, WARPS * 8);
        let grid = |blocks| Grid::line(blocks, THREADS as u32).shared(table_bytes + sums_bytes);
        let steps: &[(&'static str, usize)] = if self.blocks() == 1 {
            &[("group", 1)]
        } else {
            &[
                ("group_count", self.blocks()),
                ("group_place", 1),
                ("group_scatter", self.blocks()),
            ]
        };
        for &(kernel, blocks) in steps {
            // SAFETY: the caller's promise; the struct is the kernels'.
            unsafe { device.launch(stream, kernel, grid(blocks), &args)? };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_hold_the_worst_case() {
        let grouping = Grouping {
            rows: 3,
            top_k: 2,
            experts: 4,
            tile_width: 8,
        };
        // Four experts with one pair each but one, which has three.
        assert!(grouping.pair_capacity() >= 4 * 8 + 128 - 8);
        assert_eq!(grouping.tile_capacity(), 4);
        let large = Grouping {
            rows: 8192,
            top_k: 8,
            experts: 128,
            tile_width: 64,
        };
        assert_eq!(large.pair_capacity(), 65_536 + 7 * 128 + 128);
        assert_eq!(large.tile_capacity(), 1024 + 126);
    }
}
