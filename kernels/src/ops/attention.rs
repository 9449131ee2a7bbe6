//! Attention over the paged cache, prefill and decode rows mixed.
//!
//! Positions are walked in tiles of [`TILE`] and partitions of [`PARTITION`], both aligned to
//! position 0 of the sequence. Within a partition, the softmax runs from tile to tile (Milakov &
//! Gimelshein 2018); partitions start afresh and are merged in order. What a query computes is
//! thus a function of its own position alone: neither the rows beside it, nor where its chunk
//! began, nor the block size, nor whether partitions ran on different threads, changes a bit.
//!
//! A row that attends to selected positions walks these, in their order, as if nothing lay between:
//! tiles and partitions count them. So a selection of everything changes no bit either.
#![expect(
    unsafe_code,
    reason = "tiles load vectors from raw pointers; tasks write disjoint parts"
)]

mod state;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod vectors;
mod walk;

use std::ops::Range;

use backstop_types::AttentionSpan;

use crate::backend::AttentionShape;
use crate::cpu::kv_cache::{KvShape, KvView};
use crate::element::Element;
use crate::features::InstructionSet;
use crate::ops::indexer::Selection;
use crate::ops::kv_write::SequenceRows;
use crate::parallel::{self, SharedOutput};
use crate::scratch::{with_scratch, with_scratch_of};
use crate::simd;
use state::{Merge, StateShape};
pub(super) use vectors::tile_scores;
use walk::Walk;

/// Positions whose scores are computed together.
pub(super) const TILE: usize = 64;
/// Heads whose length is a multiple of this can be walked on AMX tiles.
const TILE_DIMENSIONS: usize = 32;
/// Positions after which the softmax starts afresh; a multiple of `TILE`.
const PARTITION: usize = 1024;
/// Queries of one task at most (unless one row has more), so that they and their results stay in
/// the L2 cache while the keys and values pass by.
const TASK_QUERIES: usize = 128;

/// Whether attention over such a cache uses AMX tiles.
pub fn on_tiles(cache: KvShape, instructions: InstructionSet) -> bool {
    cfg!(target_arch = "x86_64")
        && instructions >= InstructionSet::Amx
        && cache.element == Element::BF16
        && cache.head_dim.is_multiple_of(TILE_DIMENSIONS)
}

/// Arguments. Keys and values of all rows are in the cache already.
#[derive(Clone, Copy, Debug)]
pub struct AttentionArgs<'a> {
    /// `[rows, (heads + 2 * kv_heads) * head_dim]`; only the queries, its first heads, are read.
    pub qkv: &'a [f32],
    /// Head counts.
    pub shape: AttentionShape,
    /// `[heads]`: scores beside those of the keys, of nothing that has a value.
    pub sinks: Option<&'a [f32]>,
    /// Which positions a query sees.
    pub span: AttentionSpan,
    /// Rows that attend to some of these only.
    pub selection: Option<&'a Selection>,
    /// The sequences of the batch.
    pub sequences: &'a [SequenceRows<'a>],
    /// Keys and values.
    pub cache: KvView<'a>,
}

impl AttentionArgs<'_> {
    /// Query heads for each key-value head.
    pub fn group(&self) -> usize {
        (self.shape.heads / self.shape.kv_heads) as usize
    }

    /// Numbers in a row of the batch: queries, keys and values.
    pub fn columns(&self) -> usize {
        (self.shape.heads + 2 * self.shape.kv_heads) as usize * self.shape.head_dim as usize
    }

    /// Panics unless the parts agree.
    pub fn check(&self, out: &[f32]) {
        let layout = self.cache.shape;
        assert_eq!(
            layout.kv_heads, self.shape.kv_heads as usize,
            "kv_heads of the cache"
        );
        assert_eq!(
            layout.head_dim, self.shape.head_dim as usize,
            "head_dim of the cache"
        );
        assert!(
            self.shape.heads.is_multiple_of(self.shape.kv_heads),
            "heads of attention"
        );
        let rows: usize = self.sequences.iter().map(|sequence| sequence.rows).sum();
        assert_eq!(self.qkv.len(), rows * self.columns(), "inputs of attention");
        let head_columns = self.shape.heads as usize * layout.head_dim;
        assert_eq!(out.len(), rows * head_columns, "outputs of attention");
        let heads = self.shape.heads as usize;
        assert!(
            self.sinks.is_none_or(|sinks| sinks.len() == heads),
            "sinks of attention"
        );
        assert!(
            self.selection.is_none_or(|own| own.rows() == rows),
            "selection of attention"
        );
    }

    /// The positions that a row of the batch selects, if it does.
    pub fn selected(&self, row: usize) -> Option<&[u32]> {
        self.selection?.of(row)
    }

    /// Attention; `out` is `[rows, heads * head_dim]`.
    pub fn run(&self, instructions: InstructionSet, out: &mut [f32]) {
        self.check(out);
        let tasks = self.tasks();
        let work = tasks.iter().map(|task| self.work(task)).sum();
        let longest = tasks
            .iter()
            .map(|task| task.partitions.len())
            .max()
            .unwrap_or(0);
        let threads = parallel::threads_for(work);
        let out = SharedOutput::new(out);
        // A few long contexts keep all threads busy only if each is cut in partitions.
        if threads > 1 && longest > 1 && tasks.len() < 2 * threads {
            return self.run_partitions(instructions, &tasks, work, &out);
        }
        parallel::for_each(tasks.len(), work, |index| {
            let task = &tasks[index];
            with_scratch(self.state_shape(task).len(), |state| {
                self.walk(instructions, task, task.partitions.clone(), state);
                self.finish(task, state, &out);
            });
        });
    }

    /// As `run`, with one task for each partition and the same merge afterwards.
    fn run_partitions(
        &self,
        instructions: InstructionSet,
        tasks: &[Task<'_>],
        work: usize,
        out: &SharedOutput<'_, f32>,
    ) {
        let mut pieces = Vec::new();
        let mut len = 0;
        for task in tasks {
            for partition in task.partitions.clone() {
                let end = len + self.state_shape(task).len();
                pieces.push((task, partition, len..end));
                len = end;
            }
        }
        with_scratch(len, |states| {
            let shared = SharedOutput::new(states);
            parallel::for_each(pieces.len(), work, |index| {
                let (task, partition, range) = &pieces[index];
                // SAFETY: each piece has its own range.
                let state = unsafe { shared.range(range.clone()) };
                self.walk(instructions, task, *partition..partition + 1, state);
            });
            for task in tasks {
                let len = self.state_shape(task).len();
                let mut own = pieces.iter().filter(|piece| std::ptr::eq(piece.0, task));
                let Some((_, _, first)) = own.next() else {
                    continue;
                };
                let (total, rest) = states[first.start..].split_at_mut(len);
                for (index, _) in own.enumerate() {
                    let (shape, part) = (self.state_shape(task), &mut rest[index * len..][..len]);
                    simd::dispatch(instructions, Merge { shape, total, part });
                }
                self.finish(task, total, out);
            }
        });
    }

    /// A task's queries over the given partitions.
    fn walk(
        &self,
        instructions: InstructionSet,
        task: &Task<'_>,
        partitions: Range<usize>,
        state: &mut [f32],
    ) {
        let on_tiles = on_tiles(self.cache.shape, instructions);
        let (floats, numbers) = Walk::scratch_lens(self.state_shape(task), on_tiles);
        with_scratch(floats, |floats| {
            with_scratch_of(numbers, |numbers| {
                let walk = Walk {
                    args: self,
                    task,
                    partitions,
                    on_tiles,
                    state,
                    scratch: (floats, numbers),
                };
                simd::dispatch(instructions, walk);
            });
        });
    }

    /// The batch cut in tasks. A row that selects is a task of its own.
    fn tasks(&self) -> Vec<Task<'_>> {
        let most = (TASK_QUERIES / self.group()).max(1);
        let mut tasks = Vec::new();
        for sequence in self.sequences {
            let mut first = 0;
            while first < sequence.rows {
                let selected = |row: usize| self.selected(sequence.first_row + row);
                let last = sequence.rows.min(first + most);
                let end = match selected(first) {
                    Some(_) => first + 1,
                    None => (first..last)
                        .find(|&row| selected(row).is_some())
                        .unwrap_or(last),
                };
                self.push_tasks(sequence, first..end, &mut tasks);
                first = end;
            }
        }
        tasks
    }

    /// Tasks of rows that all select or all do not, one for each key-value head.
    fn push_tasks<'a>(
        &'a self,
        sequence: &'a SequenceRows<'a>,
        rows: Range<usize>,
        tasks: &mut Vec<Task<'a>>,
    ) {
        let selected = self.selected(sequence.first_row + rows.start);
        let visible = match selected {
            Some(selected) => 0..selected.len(),
            None => {
                self.visible(sequence, rows.start).start..self.visible(sequence, rows.end - 1).end
            }
        };
        let partitions = visible.start / PARTITION..visible.end.div_ceil(PARTITION);
        for kv_head in 0..self.shape.kv_heads as usize {
            tasks.push(Task {
                sequence,
                kv_head,
                rows: rows.clone(),
                selected,
                visible: visible.clone(),
                partitions: partitions.clone(),
            });
        }
    }

    /// Positions that a row of a sequence sees.
    fn visible(&self, sequence: &SequenceRows<'_>, row: usize) -> Range<usize> {
        let position = sequence.first_position + row;
        self.span.first_visible(position as u32) as usize..position + 1
    }

    /// Multiply-adds of a task, roughly.
    fn work(&self, task: &Task<'_>) -> usize {
        2 * task.rows.len() * self.group() * task.visible.len() * self.shape.head_dim as usize
    }

    fn state_shape(&self, task: &Task<'_>) -> StateShape {
        StateShape::new(task.rows.len() * self.group(), self.shape.head_dim as usize)
    }

    /// Divides the weighted sums by the sums of weights. A sink's weight comes last, whatever was
    /// summed in which task; where it overflows, it leaves nothing to the keys.
    fn finish(&self, task: &Task<'_>, state: &mut [f32], out: &SharedOutput<'_, f32>) {
        let head_dim = self.shape.head_dim as usize;
        let shape = self.state_shape(task);
        let state = shape.split_mut(state);
        for row in task.rows.clone() {
            let first = (task.sequence.first_row + row) * self.shape.heads as usize
                + task.kv_head * self.group();
            for head in 0..self.group() {
                let query = (row - task.rows.start) * self.group() + head;
                let start = (first + head) * head_dim;
                // SAFETY: tasks have disjoint pairs of row and head.
                let out = unsafe { out.range(start..start + head_dim) };
                let sink = self.sinks.map_or(0.0, |sinks| {
                    let sink = sinks[task.kv_head * self.group() + head];
                    (sink - state.maxima[query]).exp()
                });
                let sum = state.sums[query] + sink;
                let factor = walk::value_fold(self.cache.shape.element) / sum;
                let values = &state.values[query * shape.stride..];
                for (out, value) in out.iter_mut().zip(values) {
                    *out = value * factor;
                }
            }
        }
    }
}

/// Consecutive rows of one sequence with the query heads of one key-value head.
struct Task<'a> {
    sequence: &'a SequenceRows<'a>,
    kv_head: usize,
    /// Rows within the sequence.
    rows: Range<usize>,
    /// The positions that its one row selects. All others count these, from 0 on.
    selected: Option<&'a [u32]>,
    /// Positions that any of the rows sees.
    visible: Range<usize>,
    /// Partitions that any of the rows sees.
    partitions: Range<usize>,
}
