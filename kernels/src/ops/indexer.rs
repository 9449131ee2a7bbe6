//! Choice of the keys that sparse attention reads (DeepSeek-AI 2025, "DeepSeek-V3.2", section 2.1).
//!
//! Each position has an index key in a paged cache of its own. A query's score of a position is
//! `sum over heads h of weight_h * max(0, query_h . key)`, and the best positions are attended to.
//! Positive factors on all scores change no order and are left out. A score is one chain of
//! additions, over a head's elements and then over heads, so it depends on nothing but its query
//! and its key; ties go to the earlier position.
#![expect(
    unsafe_code,
    reason = "tiles load vectors from raw pointers; tasks write disjoint parts"
)]

use std::cmp::Ordering;
use std::ops::Range;

use crate::cpu::kv_cache::{KvShape, KvView};
use crate::element::Element;
use crate::features::InstructionSet;
use crate::ops::attention::{TILE, tile_scores};
use crate::ops::kv_write::SequenceRows;
use crate::parallel::{self, SharedOutput};
use crate::scratch::with_scratch;
use crate::simd::{
    self, AsBf16, AsF8OrNan, AsF32, Format, Program, Simd, Strided, load_slice, store_slice,
    widen_rows,
};

/// Positions of one task; a multiple of `TILE`.
const PARTITION: usize = 1024;
/// Rows of one task at most, which share the widened keys.
const TASK_ROWS: usize = 8;
/// Scores that are kept at once (unless one row has more), of some rows after others.
const SCORES_MAX: usize = 1 << 22;
/// Most heads that are computed side by side.
const TILE_HEADS: usize = 6;

/// For each row of a batch, which positions it attends to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Positions of each row that has a choice.
    chosen: usize,
    /// Index among those rows; a row without attends to all that it sees.
    choosing: Vec<Option<usize>>,
    /// `[choosing rows, chosen]`, ascending.
    pub positions: Vec<u32>,
}

impl Selection {
    /// All positions 0, for rows at these places.
    pub fn unset(chosen: usize, sequences: &[SequenceRows<'_>]) -> Self {
        assert!(chosen > 0, "a row attends to something");
        let mut count = 0;
        let mut index = |position: usize| {
            let chooses = position >= chosen;
            count += usize::from(chooses);
            chooses.then(|| count - 1)
        };
        let places = sequences.iter();
        let places = places.flat_map(|own| own.first_position..own.first_position + own.rows);
        let choosing = places.map(&mut index).collect();
        Self {
            chosen,
            choosing,
            positions: vec![0; count * chosen],
        }
    }

    /// Rows of the batch.
    pub fn rows(&self) -> usize {
        self.choosing.len()
    }

    /// The positions of a row, ascending; `None`: all that it sees.
    pub fn of(&self, row: usize) -> Option<&[u32]> {
        let index = self.choosing[row]?;
        Some(&self.positions[index * self.chosen..][..self.chosen])
    }

    /// The same, to be set.
    pub fn of_mut(&mut self, row: usize) -> Option<&mut [u32]> {
        let index = self.choosing[row]?;
        Some(&mut self.positions[index * self.chosen..][..self.chosen])
    }
}

/// Arguments of the cache's part: index keys of a step's rows.
#[derive(Debug)]
pub struct IndexKeysArgs<'a> {
    /// `[rows, head_dim]`, normed and rotated.
    pub keys: &'a [f32],
    /// The sequences of the batch.
    pub sequences: &'a [SequenceRows<'a>],
    /// Where keys lie in `cache`: one head, without values.
    pub layout: KvShape,
    /// The memory of one layer.
    pub cache: &'a mut [u8],
}

impl IndexKeysArgs<'_> {
    /// The writes. There are few numbers, so that one thread does it.
    pub fn run(self) {
        let layout = self.layout;
        check_layout(layout);
        let rows: usize = self.sequences.iter().map(|sequence| sequence.rows).sum();
        assert_eq!(self.keys.len(), rows * layout.head_dim, "index keys");
        for sequence in self.sequences {
            for row in 0..sequence.rows {
                let position = sequence.first_position + row;
                let block = sequence.table[position / layout.block_size];
                let memory = &mut self.cache[layout.keys_start(block, 0)..][..layout.head_bytes()];
                let key = &self.keys[(sequence.first_row + row) * layout.head_dim..];
                for (dimension, &value) in key[..layout.head_dim].iter().enumerate() {
                    let index = layout.key_index(position % layout.block_size, dimension);
                    layout.element.write(memory, index, value);
                }
            }
        }
    }
}

fn check_layout(layout: KvShape) {
    assert!(
        layout.kv_heads == 1 && !layout.has_values,
        "a cache of index keys"
    );
}

/// Arguments of the choice. Index keys of all rows are in the cache already.
#[derive(Clone, Copy, Debug)]
pub struct IndexerArgs<'a> {
    /// `[rows, heads * head_dim]`, rotated.
    pub queries: &'a [f32],
    /// `[rows, heads]`.
    pub head_weights: &'a [f32],
    /// Heads of a query.
    pub heads: usize,
    /// Positions that a row attends to at most.
    pub chosen: usize,
    /// The sequences of the batch.
    pub sequences: &'a [SequenceRows<'a>],
    /// Index keys.
    pub cache: KvView<'a>,
}

/// A row that sees more positions than it may attend to.
pub struct Choosing<'a> {
    /// Whose row it is.
    pub sequence: &'a SequenceRows<'a>,
    /// In the batch.
    pub row: usize,
    /// Positions that it sees.
    pub visible: usize,
}

impl IndexerArgs<'_> {
    /// Panics unless the parts agree.
    pub fn check(&self) {
        check_layout(self.cache.shape);
        let rows: usize = self.sequences.iter().map(|sequence| sequence.rows).sum();
        assert!(self.heads > 0, "heads of the indexer");
        let head_dim = self.cache.shape.head_dim;
        assert_eq!(
            (self.queries.len(), self.head_weights.len()),
            (rows * self.heads * head_dim, rows * self.heads),
            "inputs of the indexer"
        );
    }

    /// The rows that see more positions than they may choose.
    pub fn choosing(&self) -> Vec<Choosing<'_>> {
        let rows = self.sequences.iter().flat_map(|sequence| {
            (0..sequence.rows).map(move |row| Choosing {
                sequence,
                row: sequence.first_row + row,
                visible: sequence.first_position + row + 1,
            })
        });
        rows.filter(|row| row.visible > self.chosen).collect()
    }

    /// The choice, some rows after others so that their scores fit in memory.
    pub fn run(&self, instructions: InstructionSet) -> Selection {
        self.check();
        let mut selection = Selection::unset(self.chosen, self.sequences);
        let rows = self.choosing();
        let mut rest = rows.as_slice();
        let mut positions = selection.positions.as_mut_slice();
        while !rest.is_empty() {
            let mut scores = 0;
            let mut fits = |row: &Choosing<'_>| {
                scores += row.visible;
                scores <= SCORES_MAX
            };
            let count = rest.iter().take_while(|row| fits(row)).count().max(1);
            let (group, others) = rest.split_at(count);
            let (own, behind) = positions.split_at_mut(count * self.chosen);
            self.choose(instructions, group, own);
            (rest, positions) = (others, behind);
        }
        selection
    }

    /// Scores and choices of some rows.
    pub fn choose(
        &self,
        instructions: InstructionSet,
        rows: &[Choosing<'_>],
        positions: &mut [u32],
    ) {
        let mut ends = Vec::with_capacity(rows.len());
        let mut len = 0;
        for row in rows {
            len += row.visible;
            ends.push(len);
        }
        let scores_of = |row: usize| ends[row] - rows[row].visible..ends[row];
        let tasks = tasks(rows);
        let work = len * self.heads * self.cache.shape.head_dim;
        with_scratch(len, |scores| {
            let shared = SharedOutput::new(scores);
            parallel::for_each(tasks.len(), work, |index| {
                let (own, visible) = &tasks[index];
                let mut outputs: [&mut [f32]; TASK_ROWS] = Default::default();
                for (row, output) in own.clone().zip(&mut outputs) {
                    let all = scores_of(row);
                    let range = visible.start.min(all.len())..visible.end.min(all.len());
                    // SAFETY: tasks have disjoint pairs of row and position.
                    *output =
                        unsafe { shared.range(all.start + range.start..all.start + range.end) };
                }
                let task = Scores {
                    args: self,
                    rows: &rows[own.clone()],
                    positions: visible.clone(),
                    outputs: &mut outputs[..own.len()],
                };
                simd::dispatch(instructions, task);
            });
            let positions = SharedOutput::new(positions);
            parallel::for_each(rows.len(), len * 8, |row| {
                // SAFETY: both are one row's own, and all scores have been written.
                let (scores, out) = unsafe {
                    let out = positions.range(row * self.chosen..(row + 1) * self.chosen);
                    (shared.range(scores_of(row)), out)
                };
                choose_best(scores, out);
            });
        });
    }
}

/// Rows of one sequence, and the positions that they are to score.
fn tasks(rows: &[Choosing<'_>]) -> Vec<(Range<usize>, Range<usize>)> {
    let mut tasks = Vec::new();
    let mut first = 0;
    while first < rows.len() {
        let same = |row: &&Choosing<'_>| std::ptr::eq(row.sequence, rows[first].sequence);
        let count = rows[first..]
            .iter()
            .take(TASK_ROWS)
            .take_while(same)
            .count();
        let end = rows[first + count - 1].visible;
        for start in (0..end).step_by(PARTITION) {
            tasks.push((first..first + count, start..(start + PARTITION).min(end)));
        }
        first += count;
    }
    tasks
}

/// The positions of the `out.len()` best scores, ascending; of equal scores the earlier ones.
fn choose_best(scores: &[f32], out: &mut [u32]) {
    let least = with_scratch(scores.len(), |copy| {
        copy.copy_from_slice(scores);
        let best_first = |a: &f32, b: &f32| b.total_cmp(a);
        *copy.select_nth_unstable_by(out.len() - 1, best_first).1
    });
    let better = scores
        .iter()
        .filter(|score| score.total_cmp(&least).is_gt());
    let mut equal = out.len() - better.count();
    let mut places = out.iter_mut();
    for (position, score) in scores.iter().enumerate() {
        let is_chosen = match score.total_cmp(&least) {
            Ordering::Greater => true,
            Ordering::Equal => {
                let is_left = equal > 0;
                equal -= usize::from(is_left);
                is_left
            }
            Ordering::Less => false,
        };
        if is_chosen && let Some(place) = places.next() {
            *place = position as u32;
        }
    }
}

/// Scores of a task.
struct Scores<'a, 'b> {
    args: &'a IndexerArgs<'a>,
    /// Of one sequence, in order.
    rows: &'a [Choosing<'a>],
    positions: Range<usize>,
    /// For each row, its part of the positions.
    outputs: &'a mut [&'b mut [f32]],
}

impl Program for Scores<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.args.cache.shape.element {
            Element::F32 => self.run_format::<S, AsF32>(simd),
            Element::BF16 => self.run_format::<S, AsBf16>(simd),
            Element::F8E4M3 => self.run_format::<S, AsF8OrNan>(simd),
        }
    }
}

impl Scores<'_, '_> {
    #[inline(always)]
    fn run_format<S: Simd, F: Format>(self, simd: S) {
        let head_dim = self.args.cache.shape.head_dim;
        with_scratch((head_dim + TILE_HEADS + 1) * TILE, |scratch| {
            let (keys, rest) = scratch.split_at_mut(head_dim * TILE);
            let (products, sums) = rest.split_at_mut(TILE_HEADS * TILE);
            let mut start = self.positions.start;
            while start < self.positions.end {
                let end = (start + TILE).min(self.positions.end);
                self.load::<S, F>(simd, start..end, keys);
                let from = start - self.positions.start;
                for index in 0..self.rows.len() {
                    if self.outputs[index].len() <= from {
                        continue;
                    }
                    self.row(simd, index, keys, products, sums);
                    let out = &mut self.outputs[index][from..];
                    let count = out.len().min(end - start);
                    out[..count].copy_from_slice(&sums[..count]);
                }
                start = end;
            }
        });
    }

    /// Widens the keys of at most `TILE` positions, without the fold.
    #[inline(always)]
    fn load<S: Simd, F: Format>(&self, simd: S, positions: Range<usize>, keys: &mut [f32]) {
        let cache = self.args.cache;
        let (block_size, head_dim) = (cache.shape.block_size, cache.shape.head_dim);
        assert!(
            positions.len() <= TILE && keys.len() >= head_dim * TILE,
            "tile of index keys"
        );
        let mut position = positions.start;
        while position < positions.end {
            let offset = position % block_size;
            let count = (block_size - offset).min(positions.end - position);
            let block = self.rows[0].sequence.table[position / block_size];
            let start = cache.shape.keys_start(block, 0);
            let memory = &cache.bytes[start..][..cache.shape.head_bytes()];
            // SAFETY: `count` positions from `offset` on lie within the block, and the same
            // number from `position - positions.start` on within the tile.
            unsafe {
                let source = memory.as_ptr().cast::<F::Raw>();
                let source = source.add(cache.shape.key_index(offset, 0));
                let out = keys.as_mut_ptr().add(position - positions.start);
                widen_rows::<S, F>(
                    simd,
                    Strided::new(source, block_size),
                    Strided::new(out, TILE),
                    head_dim,
                    count,
                );
            }
            position += count;
        }
    }

    /// One row's scores of a tile, in `sums`.
    #[inline(always)]
    fn row<S: Simd>(
        &self,
        simd: S,
        index: usize,
        keys: &[f32],
        products: &mut [f32],
        sums: &mut [f32],
    ) {
        sums.fill(0.0);
        let row = self.rows[index].row;
        let mut head = 0;
        while head < self.args.heads {
            let at = row * self.args.heads + head;
            head += match (S::MANY_REGISTERS, self.args.heads - head) {
                (true, 6..) => self.heads::<S, 6>(simd, at, keys, products, sums),
                (true, 3..) => self.heads::<S, 3>(simd, at, keys, products, sums),
                (_, 2..) => self.heads::<S, 2>(simd, at, keys, products, sums),
                _ => self.heads::<S, 1>(simd, at, keys, products, sums),
            };
        }
    }

    /// Adds `Q` heads to the sums, from the `at`-th of all rows' heads on; returns `Q`.
    #[inline(always)]
    fn heads<S: Simd, const Q: usize>(
        &self,
        simd: S,
        at: usize,
        keys: &[f32],
        products: &mut [f32],
        sums: &mut [f32],
    ) -> usize {
        let head_dim = self.args.cache.shape.head_dim;
        let heads = &self.args.queries[at * head_dim..][..Q * head_dim];
        let mut queries = [std::ptr::null(); Q];
        for (query, head) in queries.iter_mut().zip(heads.chunks_exact(head_dim)) {
            *query = head.as_ptr();
        }
        tile_scores::<S, Q>(simd, queries, head_dim, keys, products);
        let weights = &self.args.head_weights[at..][..Q];
        for (&weight, products) in weights.iter().zip(products.chunks_exact(TILE)) {
            let factor = simd.splat(weight);
            let parts = sums.chunks_exact_mut(S::LANES);
            for (sum, product) in parts.zip(products.chunks_exact(S::LANES)) {
                let product = simd.maximum(load_slice(simd, product), simd.splat(0.0));
                let next = simd.multiply_add(factor, product, load_slice(simd, sum));
                store_slice(simd, sum, next);
            }
        }
        Q
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_of_equal_scores_is_chosen() {
        let mut out = [0; 3];
        choose_best(&[1.0, 2.0, 1.0, 3.0, 1.0, 0.0], &mut out);
        assert_eq!(out, [0, 1, 3]);
        choose_best(&[0.0; 9], &mut out);
        assert_eq!(out, [0, 1, 2]);
        choose_best(&[-1.0, f32::NAN, -2.0, -0.5, f32::NEG_INFINITY], &mut out);
        assert_eq!(out, [0, 1, 3]);
    }

    #[test]
    fn rows_that_see_no_more_than_they_may_have_no_choice() {
        let sequences =
            [(0, 0, 5), (5, 3, 2)].map(|(first_row, first_position, rows)| SequenceRows {
                first_row,
                rows,
                first_position,
                table: &[],
            });
        let selection = Selection::unset(4, &sequences);
        let chooses: Vec<bool> = (0..7).map(|row| selection.of(row).is_some()).collect();
        assert_eq!(chooses, [false, false, false, false, true, false, true]);
        assert_eq!(selection.positions.len(), 2 * 4);
    }
}
