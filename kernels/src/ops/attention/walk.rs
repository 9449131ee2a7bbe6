//! The walk of a task's queries over keys and values, in vectors.

use std::marker::PhantomData;
use std::ops::Range;

use super::state::{State, StateShape};
#[cfg(target_arch = "x86_64")]
use super::tiles::Tiles;
use super::{AttentionArgs, PARTITION, TILE, Task};
use crate::cpu::kv_cache::KvShape;
use crate::element::Element;
use crate::simd::{
    AsBf16, AsF8OrNan, AsF32, Format, Program, Simd, load_slice, store_slice, widen_rows,
};

/// Most queries of one register tile: 24 sums of 32 vector registers.
const TILE_QUERIES: usize = 6;
/// Vectors of one register tile, along positions or along a head.
const TILE_VECTORS: usize = 4;

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
    fn walk(&mut self, walker: &Walker<'_>, simd: S, start: usize, state: State<'_>);
}

/// In f32, of keys and values that are stored as `F`.
struct Vectors<'a, F> {
    /// Keys `[head_dim, TILE]`.
    keys: &'a mut [f32],
    /// Values `[TILE, stride]`.
    values: &'a mut [f32],
    /// Scores, then weights, `[TILE_QUERIES, TILE]`.
    scores: &'a mut [f32],
    format: PhantomData<F>,
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
        let floats = 2 * TILE * shape.stride + TILE_QUERIES * TILE;
        (shape.len() + floats, 0)
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
        let shape = self.args.state_shape(self.task);
        let walker = Walker::new(self.args, self.task, F::FOLD);
        let (part, rest) = self.scratch.0.split_at_mut(shape.len());
        let (keys, rest) = rest.split_at_mut(TILE * shape.stride);
        let (values, scores) = rest.split_at_mut(TILE * shape.stride);
        let mut vectors = Vectors::<F> {
            keys,
            values,
            scores,
            format: PhantomData,
        };
        walker.run(simd, &mut vectors, self.partitions, (self.state, part));
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn run_tiles<S: Simd>(self, simd: S) {
        let walker = Walker::new(self.args, self.task, AsBf16::FOLD);
        let (floats, numbers) = self.scratch;
        let (part, floats) = floats.split_at_mut(walker.shape.len());
        // SAFETY: tiles are only used if the processor has AMX.
        let mut tiles = unsafe { Tiles::begin(&walker, floats, numbers) };
        walker.run(simd, &mut tiles, self.partitions, (self.state, part));
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
        (state, part): (&mut [f32], &mut [f32]),
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

    /// Factor on dot products of queries and loaded keys.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn factor(&self) -> f32 {
        self.factor
    }

    #[cfg(target_arch = "x86_64")]
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
    #[cfg(target_arch = "x86_64")]
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

    /// Makes weights of a query's scores in the tile that begins where `visible` is 0, and takes
    /// them into its state.
    #[inline(always)]
    fn weigh<S: Simd>(
        &self,
        simd: S,
        scores: &mut [f32],
        visible: &Range<usize>,
        query: usize,
        state: &mut State<'_>,
    ) {
        scores[..visible.start].fill(f32::NEG_INFINITY);
        scores[visible.end..].fill(f32::NEG_INFINITY);
        let old = state.maxima[query];
        let largest = scale_and_find_largest(simd, scores, self.factor, old);
        let sum = weights_of_scores(simd, scores, largest);
        if largest > old {
            let (keep, stride) = ((old - largest).exp(), self.shape.stride);
            state.sums[query] *= keep;
            scale_all(simd, &mut state.values[query * stride..][..stride], keep);
            state.maxima[query] = largest;
        }
        state.sums[query] += sum;
    }
}

impl<S: Simd, F: Format> TileArithmetic<S> for Vectors<'_, F> {
    const POSITIONS: usize = TILE;

    #[inline(always)]
    fn load(&mut self, walker: &Walker<'_>, simd: S, start: usize, positions: Range<usize>) {
        let shape = walker.args.cache.shape;
        let (block_size, head_dim) = (shape.block_size, shape.head_dim);
        let stride = walker.shape.stride;
        assert!(
            positions.start >= start && positions.end <= start + TILE,
            "positions of a tile"
        );
        assert!(
            self.keys.len() >= head_dim * TILE && self.values.len() >= TILE * stride,
            "tiles"
        );
        let mut walked = positions.start;
        while walked < positions.end {
            let (position, count) = walker.neighbours(walked, positions.end);
            let index = position / block_size;
            let offset = position % block_size;
            if let Some(next) = walker.next_block(walked + count, index) {
                walker.prefetch(simd, next);
            }
            let block = walker.block(index).as_ptr().cast::<F::Raw>();
            // SAFETY: `count` positions from `offset` on lie within the block, and the same
            // number from `walked - start` on within the tiles.
            unsafe {
                let keys = block.add(shape.key_index(offset, 0));
                let out = self.keys.as_mut_ptr().add(walked - start);
                widen_rows::<S, F>(simd, (keys, block_size), (out, TILE), head_dim, count);
                let values = block.add(shape.value_index(offset, 0));
                let out = self.values.as_mut_ptr().add((walked - start) * stride);
                widen_rows::<S, F>(simd, (values, head_dim), (out, stride), count, head_dim);
            }
            walked += count;
        }
    }

    #[inline(always)]
    fn walk(&mut self, walker: &Walker<'_>, simd: S, start: usize, mut state: State<'_>) {
        let queries = walker.queries();
        let mut query = 0;
        while query < queries {
            query += match (S::MANY_REGISTERS, queries - query) {
                (true, 6..) => self.queries::<S, 6>(walker, simd, (start, query), &mut state),
                (true, 3..) => self.queries::<S, 3>(walker, simd, (start, query), &mut state),
                (_, 2..) => self.queries::<S, 2>(walker, simd, (start, query), &mut state),
                _ => self.queries::<S, 1>(walker, simd, (start, query), &mut state),
            };
        }
    }
}

impl<F> Vectors<'_, F> {
    /// `Q` queries, from `first` on, over one tile; returns `Q`.
    #[inline(always)]
    fn queries<S: Simd, const Q: usize>(
        &mut self,
        walker: &Walker<'_>,
        simd: S,
        (start, first): (usize, usize),
        state: &mut State<'_>,
    ) -> usize {
        let mut queries = [std::ptr::null(); Q];
        let mut visible = [const { 0..0 }; Q];
        for (q, query) in queries.iter_mut().enumerate() {
            *query = walker.query(first + q).as_ptr();
        }
        walker.visible_to(start..start + TILE, first, &mut visible);
        if visible.iter().all(Range::is_empty) {
            return Q;
        }
        let stride = walker.shape.stride;
        tile_scores::<S, Q>(simd, queries, walker.head_dim(), self.keys, self.scores);
        for (q, visible) in visible.iter().enumerate() {
            if !visible.is_empty() {
                let scores = &mut self.scores[q * TILE..][..TILE];
                walker.weigh(simd, scores, visible, first + q, state);
            }
        }
        let values = &mut state.values[first * stride..][..Q * stride];
        add_values::<S, Q>(simd, (self.values, self.scores), &visible, stride, values);
        Q
    }
}

/// `Q` dot products of `head_dim` elements with each of a tile's keys. A score is one chain of
/// multiply-adds over the head's elements, whichever lane it is in. Queries have `head_dim` elements.
#[inline(always)]
pub(in crate::ops) fn tile_scores<S: Simd, const Q: usize>(
    simd: S,
    queries: [*const f32; Q],
    head_dim: usize,
    keys: &[f32],
    out: &mut [f32],
) {
    assert!(
        keys.len() >= head_dim * TILE && out.len() >= Q * TILE,
        "tiles of scores"
    );
    let mut lane = 0;
    while lane < TILE {
        let mut sums = [[simd.splat(0.0); TILE_VECTORS]; Q];
        let mut row = keys[lane..].as_ptr();
        for dimension in 0..head_dim {
            let mut key = [simd.splat(0.0); TILE_VECTORS];
            for (v, key) in key.iter_mut().enumerate() {
                // SAFETY: the tile has `head_dim * TILE` keys by the assertion, and TILE is a
                // multiple of the lanes of TILE_VECTORS vectors.
                *key = unsafe { simd.load(row.add(v * S::LANES)) };
            }
            for (sums, query) in sums.iter_mut().zip(queries) {
                // SAFETY: queries have `head_dim` elements.
                let query = simd.splat(unsafe { *query.add(dimension) });
                for (sum, key) in sums.iter_mut().zip(key) {
                    *sum = simd.multiply_add(query, key, *sum);
                }
            }
            row = row.wrapping_add(TILE);
        }
        for (q, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                let index = q * TILE + lane + v * S::LANES;
                store_slice(simd, &mut out[index..index + S::LANES], sum);
            }
        }
        lane += TILE_VECTORS * S::LANES;
    }
}

/// Multiplies the scores by `factor`; returns the largest of them and `old`.
#[inline(always)]
fn scale_and_find_largest<S: Simd>(simd: S, scores: &mut [f32], factor: f32, old: f32) -> f32 {
    let mut largest = simd.splat(old);
    for part in scores.chunks_exact_mut(S::LANES) {
        let scaled = simd.multiply(load_slice(simd, part), simd.splat(factor));
        largest = simd.maximum(largest, scaled);
        store_slice(simd, part, scaled);
    }
    simd.largest(largest)
}

/// Replaces scores by `exp(score - largest)`; returns their sum.
#[inline(always)]
fn weights_of_scores<S: Simd>(simd: S, scores: &mut [f32], largest: f32) -> f32 {
    let mut sum = simd.splat(0.0);
    for part in scores.chunks_exact_mut(S::LANES) {
        let weight = simd.exp(simd.subtract(load_slice(simd, part), simd.splat(largest)));
        sum = simd.add(sum, weight);
        store_slice(simd, part, weight);
    }
    simd.sum(sum)
}

#[inline(always)]
fn scale_all<S: Simd>(simd: S, values: &mut [f32], factor: f32) {
    for part in values.chunks_exact_mut(S::LANES) {
        let scaled = simd.multiply(load_slice(simd, part), simd.splat(factor));
        store_slice(simd, part, scaled);
    }
}

/// Adds to the state of each query the values that it sees, position after position. Those that
/// all see are added side by side.
#[inline(always)]
fn add_values<S: Simd, const Q: usize>(
    simd: S,
    (values, weights): (&[f32], &[f32]),
    visible: &[Range<usize>; Q],
    stride: usize,
    out: &mut [f32],
) {
    let mut common = 0..TILE;
    for visible in visible {
        common = common.start.max(visible.start)..common.end.min(visible.end);
    }
    if common.is_empty() {
        for (q, visible) in visible.iter().enumerate() {
            add_own::<S>(simd, (values, weights), q, visible.clone(), out);
        }
        return;
    }
    for (q, visible) in visible.iter().enumerate() {
        add_own::<S>(simd, (values, weights), q, visible.start..common.start, out);
    }
    weighted_sum::<S, Q>(simd, weights, common.clone(), (values, stride), out);
    for (q, visible) in visible.iter().enumerate() {
        add_own::<S>(simd, (values, weights), q, common.end..visible.end, out);
    }
}

/// `add_values` for the positions that only query `q` of a tile sees, or not all others.
#[inline(always)]
fn add_own<S: Simd>(
    simd: S,
    (values, weights): (&[f32], &[f32]),
    q: usize,
    positions: Range<usize>,
    out: &mut [f32],
) {
    if !positions.is_empty() {
        let stride = values.len() / TILE;
        let out = &mut out[q * stride..][..stride];
        let weights = &weights[q * TILE..][..TILE];
        weighted_sum::<S, 1>(simd, weights, positions, (values, stride), out);
    }
}

/// `out[q] += sum over the positions of weights[q] * values`, position after position.
#[inline(always)]
fn weighted_sum<S: Simd, const Q: usize>(
    simd: S,
    weights: &[f32],
    positions: Range<usize>,
    (values, stride): (&[f32], usize),
    out: &mut [f32],
) {
    assert!(
        positions.end <= TILE && values.len() >= TILE * stride && weights.len() >= Q * TILE,
        "tile of values"
    );
    let mut lane = 0;
    while lane + TILE_VECTORS * S::LANES <= stride {
        let out = (&mut *out, stride, lane);
        sum_lanes::<S, Q, TILE_VECTORS>(simd, weights, positions.clone(), values, out);
        lane += TILE_VECTORS * S::LANES;
    }
    while lane < stride {
        let out = (&mut *out, stride, lane);
        sum_lanes::<S, Q, 1>(simd, weights, positions.clone(), values, out);
        lane += S::LANES;
    }
}

/// `V` vectors of `weighted_sum`, from `lane` on.
#[inline(always)]
fn sum_lanes<S: Simd, const Q: usize, const V: usize>(
    simd: S,
    weights: &[f32],
    positions: Range<usize>,
    values: &[f32],
    (out, stride, lane): (&mut [f32], usize, usize),
) {
    assert!(
        values.len() >= positions.end * stride && lane + V * S::LANES <= stride,
        "lanes"
    );
    let mut sums = [[simd.splat(0.0); V]; Q];
    for (q, sums) in sums.iter_mut().enumerate() {
        for (v, sum) in sums.iter_mut().enumerate() {
            let index = q * stride + lane + v * S::LANES;
            *sum = load_slice(simd, &out[index..index + S::LANES]);
        }
    }
    let mut row = values[positions.start * stride + lane..].as_ptr();
    let mut column = weights[positions.start..].as_ptr();
    for _ in positions {
        let mut value = [simd.splat(0.0); V];
        for (v, value) in value.iter_mut().enumerate() {
            // SAFETY: the position's row has `stride` numbers, and the lanes lie within, by the
            // assertion.
            *value = unsafe { simd.load(row.add(v * S::LANES)) };
        }
        for (q, sums) in sums.iter_mut().enumerate() {
            // SAFETY: there are `Q * TILE` weights, and positions are below TILE, by the
            // assertions.
            let weight = simd.splat(unsafe { *column.add(q * TILE) });
            for (sum, value) in sums.iter_mut().zip(value) {
                *sum = simd.multiply_add(weight, value, *sum);
            }
        }
        (row, column) = (row.wrapping_add(stride), column.wrapping_add(1));
    }
    for (q, sums) in sums.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            let index = q * stride + lane + v * S::LANES;
            store_slice(simd, &mut out[index..index + S::LANES], sum);
        }
    }
}
