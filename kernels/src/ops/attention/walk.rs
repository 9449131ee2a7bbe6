//! The walk of a task's queries over keys and values, tile after tile and partition after partition,
//! whichever arithmetic computes a tile.

use std::ops::Range;

use super::state::{SoftmaxState, StateShape};
#[cfg(target_arch = "x86_64")]
use super::tiles::Tiles;
use super::vectors::Vectors;
use super::{AttentionArgs, PARTITION, Task};
use crate::cpu::kv_cache::KvShape;
use crate::element::Element;
use crate::simd::{AsBf16, AsF8OrNan, AsF32, Format, Program, Simd};

/// Cache lines that are asked for at once.
const PREFETCH_LINES: usize = 256;

/// What the sums over values must still be multiplied with.
pub(super) fn value_fold(element: Element) -> f32 {
    match element {
        Element::F32 => AsF32::FOLD,
        Element::BF16 => AsBf16::FOLD,
        Element::F8E4M3 => AsF8OrNan::FOLD,
    }
}

/// Walks `partitions` and leaves their merged state in `state`.
pub(super) struct Walk<'a> {
    pub(super) args: &'a AttentionArgs<'a>,
    pub(super) task: &'a Task<'a>,
    pub(super) partitions: Range<usize>,
    /// Uses AMX tiles.
    pub(super) on_tiles: bool,
    pub(super) state: &'a mut [f32],
    /// As `scratch_lens` says.
    pub(super) scratch: (&'a mut [f32], &'a mut [u16]),
}

/// How the scores of one tile of positions are computed and its values added.
pub(super) trait TileArithmetic<S: Simd> {
    /// Positions of a tile; divides `PARTITION`.
    const POSITIONS: usize;

    /// Loads keys and values at `positions`, all in the tile that begins at `start`.
    fn load(&mut self, walker: &Walker<'_>, simd: S, start: usize, positions: Range<usize>);

    /// All queries over the loaded tile.
    fn walk(&mut self, walker: &Walker<'_>, simd: S, start: usize, state: SoftmaxState<'_>);
}

impl Walk<'_> {
    /// Numbers of scratch memory, f32 and BF16, that a walk needs.
    pub(super) fn scratch_lens(shape: StateShape, on_tiles: bool) -> (usize, usize) {
        #[cfg(target_arch = "x86_64")]
        if on_tiles {
            let (floats, numbers) = Tiles::scratch_lens(shape);
            return (shape.len() + floats, numbers);
        }
        assert!(!on_tiles, "tiles of another processor");
        (shape.len() + Vectors::<AsF32>::scratch_len(shape), 0)
    }
}

impl Program for Walk<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        #[cfg(target_arch = "x86_64")]
        if self.on_tiles {
            return self.run_tiles(simd);
        }
        match self.args.cache.shape.element {
            Element::F32 => self.run_vectors::<S, AsF32>(simd),
            Element::BF16 => self.run_vectors::<S, AsBf16>(simd),
            Element::F8E4M3 => self.run_vectors::<S, AsF8OrNan>(simd),
        }
    }
}

impl Walk<'_> {
    #[inline(always)]
    fn run_vectors<S: Simd, F: Format>(self, simd: S) {
        let walker = Walker::new(self.args, self.task, F::FOLD);
        let (part, scratch) = self.scratch.0.split_at_mut(walker.shape.len());
        let mut vectors = Vectors::<F>::new(walker.shape, scratch);
        walker.run(simd, &mut vectors, self.partitions, self.state, part);
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn run_tiles<S: Simd>(self, simd: S) {
        let walker = Walker::new(self.args, self.task, AsBf16::FOLD);
        let (floats, numbers) = self.scratch;
        let (part, floats) = floats.split_at_mut(walker.shape.len());
        // SAFETY: tiles are only used if the processor has AMX.
        let mut tiles = unsafe { Tiles::begin(&walker, floats, numbers) };
        walker.run(simd, &mut tiles, self.partitions, self.state, part);
        tiles.end();
    }
}

/// What all arithmetics need to know of a task.
pub(super) struct Walker<'a> {
    args: &'a AttentionArgs<'a>,
    task: &'a Task<'a>,
    shape: StateShape,
    /// Factor on dot products of queries and loaded keys.
    factor: f32,
}

impl<'a> Walker<'a> {
    fn new(args: &'a AttentionArgs<'a>, task: &'a Task<'a>, fold: f32) -> Self {
        Self {
            args,
            task,
            shape: args.state_shape(task),
            factor: fold * args.shape.scale,
        }
    }

    /// Walks the partitions; `part` is as large as `state`.
    #[inline(always)]
    fn run<S: Simd, T: TileArithmetic<S>>(
        &self,
        simd: S,
        tiles: &mut T,
        partitions: Range<usize>,
        state: &mut [f32],
        part: &mut [f32],
    ) {
        let (shape, seen) = (self.shape, &self.task.visible);
        shape.clear(state);
        for partition in partitions {
            shape.clear(part);
            let end = (partition + 1) * PARTITION;
            for start in (partition * PARTITION..end).step_by(T::POSITIONS) {
                let positions = start.max(seen.start)..(start + T::POSITIONS).min(seen.end);
                if !positions.is_empty() {
                    tiles.load(self, simd, start, positions);
                    tiles.walk(self, simd, start, shape.split_mut(part));
                }
            }
            shape.merge(simd, state, part);
        }
    }

    /// Queries of the task.
    pub(super) fn queries(&self) -> usize {
        self.task.rows.len() * self.args.group()
    }

    /// Elements of a query.
    pub(super) fn head_dim(&self) -> usize {
        self.args.cache.shape.head_dim
    }

    /// Numbers from one query's values to the next one's.
    pub(super) fn stride(&self) -> usize {
        self.shape.stride
    }

    /// Factor on dot products of queries and loaded keys.
    pub(super) fn factor(&self) -> f32 {
        self.factor
    }

    /// Where keys and values lie.
    pub(super) fn cache_shape(&self) -> KvShape {
        self.args.cache.shape
    }

    /// The position that is walked as the `walked`-th, and how many, itself included and before
    /// the `end`-th, lie behind one another in its block.
    #[inline(always)]
    pub(super) fn neighbours(&self, walked: usize, end: usize) -> (usize, usize) {
        let block_size = self.args.cache.shape.block_size;
        let Some(selected) = self.task.selected else {
            return (walked, (block_size - walked % block_size).min(end - walked));
        };
        let first = selected[walked];
        let most = (block_size - first as usize % block_size).min(end - walked);
        let own = selected[walked..][..most].iter();
        let count = own
            .zip(first..)
            .take_while(|(position, next)| *position == next);
        (first as usize, count.count())
    }

    /// The position that is walked as the `walked`-th.
    #[inline(always)]
    pub(super) fn position(&self, walked: usize) -> usize {
        self.task
            .selected
            .map_or(walked, |selected| selected[walked] as usize)
    }

    /// Whether each sixteen positions of a tile lie behind one another in a block.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn lies_in_sixteens(&self) -> bool {
        self.task.selected.is_none() && self.args.cache.shape.block_size.is_multiple_of(16)
    }

    /// Asks for the blocks that begin among `positions` after the first of them, or right behind.
    #[inline(always)]
    pub(super) fn prefetch_after<S: Simd>(&self, simd: S, positions: Range<usize>) {
        let mut walked = positions.start;
        while walked < positions.end {
            let (position, count) = self.neighbours(walked, positions.end);
            walked += count;
            let index = position / self.args.cache.shape.block_size;
            if let Some(next) = self.next_block(walked, index) {
                self.prefetch(simd, next);
            }
        }
    }

    /// The block that is needed from the `walked`-th position on, if it is not this one.
    #[inline(always)]
    fn next_block(&self, walked: usize, index: usize) -> Option<usize> {
        if walked >= self.task.visible.end {
            return None;
        }
        let next = self.position(walked) / self.args.cache.shape.block_size;
        (next != index).then_some(next)
    }

    /// Keys and values of the sequence's block at `index` of its table.
    #[inline(always)]
    pub(super) fn block(&self, index: usize) -> &[u8] {
        let cache = self.args.cache;
        let start = cache
            .shape
            .keys_start(self.task.sequence.table[index], self.task.kv_head);
        &cache.bytes[start..][..2 * cache.shape.half_bytes()]
    }

    /// Asks for a block that is needed soon. The processor does not foresee it, since blocks lie
    /// anywhere.
    #[inline(always)]
    fn prefetch<S: Simd>(&self, simd: S, index: usize) {
        for line in self.block(index).chunks(64).take(PREFETCH_LINES) {
            simd.prefetch(line.as_ptr());
        }
    }

    /// Which positions of a tile some of the task's queries, from `first` on, see; positions count
    /// from the tile's first.
    #[inline(always)]
    pub(super) fn visible_to(
        &self,
        tile: Range<usize>,
        first: usize,
        visible: &mut [Range<usize>],
    ) {
        let group = self.args.group();
        let (mut row, mut rest) = (first / group, group - first % group);
        let mut own = self.visible(&tile, row);
        for visible in visible {
            if rest == 0 {
                (row, rest) = (row + 1, group);
                own = self.visible(&tile, row);
            }
            rest -= 1;
            *visible = own.clone();
        }
    }

    /// Which positions of a tile one of the task's rows sees.
    #[inline(always)]
    fn visible(&self, tile: &Range<usize>, row: usize) -> Range<usize> {
        let visible = match self.task.selected {
            Some(selected) => 0..selected.len(),
            None => {
                let row = self.task.rows.start + row;
                self.args.visible(self.task.sequence, row)
            }
        };
        let from = visible.start.clamp(tile.start, tile.end) - tile.start;
        let to = visible.end.clamp(tile.start, tile.end) - tile.start;
        from..to.max(from)
    }

    /// The elements of one of the task's queries.
    #[inline(always)]
    pub(super) fn query(&self, query: usize) -> &[f32] {
        let group = self.args.group();
        let head_dim = self.args.cache.shape.head_dim;
        let row = self.task.sequence.first_row + self.task.rows.start + query / group;
        let head = self.task.kv_head * group + query % group;
        &self.args.qkv[row * self.args.columns() + head * head_dim..][..head_dim]
    }
}
