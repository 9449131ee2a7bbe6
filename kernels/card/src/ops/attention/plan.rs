//! Cuts a step's attention into tasks for the device.
//!
//! A task is some rows of one sequence with some of the partitions that they see. Each key-value
//! head of it is one block's work. Where a step has too few tasks to keep all blocks busy, or very
//! unequal ones, rows get several tasks, whose results are merged afterwards. None of these choices
//! changes a bit of the result.

use std::ops::Range;

use backstop_kernels::BatchSequence;
use backstop_kernels::backend::AttentionShape;
use backstop_types::AttentionSpan;

/// Positions that a partition has.
pub const PARTITION: usize = 512;
/// Queries (rows times heads of a group) of a task of the one kind and of the other, at most.
pub(super) const TALL_QUERIES: usize = 128;
pub(super) const FLAT_QUERIES: usize = 16;
/// Bytes of partial results at most. With fewer than a step could use, some of its rows are not
/// divided.
const PARTIAL_BYTES_MAX: usize = 64 << 20;
/// Words of a task, of a merge, and of the ranges before them.
const TASK_WORDS: usize = 8;
const MERGE_WORDS: usize = 4;
pub(super) const HEADER_WORDS: usize = 8;
/// Stands for the first line of a task that has all partitions of its rows.
const WHOLE: u32 = u32::MAX;

/// The largest steps, and what memory they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionLimits {
    /// Blocks of threads that run at once.
    pub blocks: usize,
    /// Lines of partial results, each of `head_dim` + 2 floats.
    pub lines: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    rows: usize,
    sequences: usize,
}

impl AttentionLimits {
    /// For steps of at most `rows` rows of at most `sequences` sequences of at most
    /// `positions` positions, on a device with this many multiprocessors.
    pub fn new(
        shape: AttentionShape,
        [rows, sequences, positions]: [usize; 3],
        multiprocessors: u32,
    ) -> Self {
        let heads = shape.heads as usize;
        let head_dim = shape.head_dim as usize;
        let wanted = sequences * (positions.div_ceil(PARTITION) + 1) * heads;
        Self {
            blocks: 2 * multiprocessors as usize,
            lines: wanted.min(PARTIAL_BYTES_MAX / (4 * (head_dim + 2))),
            heads,
            kv_heads: shape.kv_heads as usize,
            head_dim,
            rows,
            sequences,
        }
    }

    /// The same without memory for partial results: rows are not divided.
    #[must_use]
    pub fn undivided(self) -> Self {
        Self { lines: 0, ..self }
    }

    /// Query heads for each key-value head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Rows of a task at most.
    fn task_rows(&self) -> usize {
        TALL_QUERIES / self.group()
    }

    /// Bytes of weighted values among the partial results.
    pub fn partial_values_bytes(&self) -> usize {
        self.lines * self.head_dim * 4
    }

    /// Bytes of maxima and sums among the partial results.
    pub fn partial_sums_bytes(&self) -> usize {
        self.lines * 8
    }

    /// Bytes of the blocks' scratch.
    pub fn totals_bytes(&self) -> usize {
        self.blocks * TALL_QUERIES * self.head_dim * 4
    }

    /// Bytes that a plan has at most.
    pub fn plan_bytes(&self) -> usize {
        let whole = self.rows / self.task_rows() + self.sequences;
        // A part of a task has at least the lines of one row in one partition.
        let tasks = whole + self.lines / self.heads;
        let merges = self.rows.min(self.lines / (2 * self.heads));
        (HEADER_WORDS + tasks * TASK_WORDS + merges * MERGE_WORDS) * 4
    }
}

/// Rows of one sequence before they are divided.
#[derive(Clone, Copy, Debug)]
struct Rows {
    first_row: usize,
    rows: usize,
    slot: u32,
    first_position: usize,
    first_partition: usize,
    partitions: usize,
}

/// The tasks of one step for the layers of one attention group.
#[derive(Clone, Debug)]
pub struct AttentionPlan {
    limits: AttentionLimits,
    words: Vec<u32>,
    merges: Vec<u32>,
    tall: Vec<Rows>,
    flat: Vec<Rows>,
    used_lines: usize,
}

impl AttentionPlan {
    /// An empty plan.
    pub fn new(limits: AttentionLimits) -> Self {
        Self {
            limits,
            words: vec![0; HEADER_WORDS],
            merges: Vec::new(),
            tall: Vec::new(),
            flat: Vec::new(),
            used_lines: 0,
        }
    }

    /// Plans a step.
    ///
    /// # Panics
    ///
    /// If the step is larger than the limits.
    pub fn fill(&mut self, span: AttentionSpan, sequences: &[BatchSequence]) {
        self.tall.clear();
        self.flat.clear();
        self.merges.clear();
        self.words.clear();
        self.words.resize(HEADER_WORDS, 0);
        self.used_lines = 0;
        assert!(
            sequences.len() <= self.limits.sequences,
            "sequences of a step"
        );
        let rows: usize = sequences.iter().map(|sequence| sequence.rows.len()).sum();
        assert!(rows <= self.limits.rows, "rows of a step");
        for sequence in sequences {
            self.cut(span, sequence);
        }
        let tall = self.divide_all(Kind::Tall);
        let flat = self.divide_all(Kind::Flat);
        // Merges lie behind the tasks and are counted from the same place.
        let first_merge = (flat.end as usize * TASK_WORDS / MERGE_WORDS) as u32;
        let merges = first_merge..first_merge + (self.merges.len() / MERGE_WORDS) as u32;
        self.words.append(&mut self.merges);
        for (index, range) in [tall, flat, merges].into_iter().enumerate() {
            self.words[2 * index] = range.start;
            self.words[2 * index + 1] = range.end;
        }
        assert!(
            self.words.len() * 4 <= self.limits.plan_bytes(),
            "size of a plan"
        );
    }

    /// What the device reads.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Whether there are tasks with many queries, tasks with few, and merges.
    pub fn kinds(&self) -> [bool; 3] {
        [0, 1, 2].map(|kind| self.words[2 * kind] < self.words[2 * kind + 1])
    }

    /// Cuts a sequence's rows.
    fn cut(&mut self, span: AttentionSpan, sequence: &BatchSequence) {
        let (group, step) = (self.limits.group(), self.limits.task_rows());
        for first in (0..sequence.rows.len()).step_by(step) {
            let rows = step.min(sequence.rows.len() - first);
            let first_position = sequence.first_position as usize + first;
            let first_visible = span.first_visible(first_position as u32) as usize;
            let first_partition = first_visible / PARTITION;
            let cut = Rows {
                first_row: sequence.rows.start as usize + first,
                rows,
                slot: sequence.slot,
                first_position,
                first_partition,
                partitions: (first_position + rows).div_ceil(PARTITION) - first_partition,
            };
            if rows * group <= FLAT_QUERIES {
                self.flat.push(cut);
            } else {
                self.tall.push(cut);
            }
        }
    }

    /// Makes tasks of all rows of a kind, long ones first.
    fn divide_all(&mut self, kind: Kind) -> Range<u32> {
        let mut all = std::mem::take(match kind {
            Kind::Tall => &mut self.tall,
            Kind::Flat => &mut self.flat,
        });
        all.sort_by_key(|rows| std::cmp::Reverse(rows.partitions));
        let first = (self.words.len() - HEADER_WORDS) / TASK_WORDS;
        let step = self.partitions_of_task(kind, &all);
        for rows in &all {
            self.divide(rows, step);
        }
        match kind {
            Kind::Tall => self.tall = all,
            Kind::Flat => self.flat = all,
        }
        first as u32..((self.words.len() - HEADER_WORDS) / TASK_WORDS) as u32
    }

    /// How many partitions tasks should have, so that all blocks get work.
    fn partitions_of_task(&self, kind: Kind, all: &[Rows]) -> usize {
        let AttentionLimits {
            blocks, kv_heads, ..
        } = self.limits;
        let items = all.iter().map(|rows| rows.partitions).sum::<usize>() * kv_heads;
        match kind {
            // Partial results of many queries are large: only few tasks are worth them, and they
            // leave half of the memory to the others.
            Kind::Tall => {
                let lines: usize = all.iter().map(|rows| self.lines_of(rows)).sum();
                let few = 2 * all.len() * kv_heads < blocks && 2 * lines <= self.limits.lines;
                if few {
                    (items / (2 * blocks)).max(1)
                } else {
                    usize::MAX
                }
            }
            // Blocks take tasks in turns; several for each even out their lengths.
            Kind::Flat => (items / (8 * blocks)).max(1),
        }
    }

    /// Lines of partial results that rows need if they are divided.
    fn lines_of(&self, rows: &Rows) -> usize {
        rows.partitions * rows.rows * self.limits.heads
    }

    /// Tasks of at most `step` partitions, if there is room for their results.
    fn divide(&mut self, rows: &Rows, step: usize) {
        let AttentionLimits { heads, lines, .. } = self.limits;
        let wanted = self.lines_of(rows);
        if rows.partitions <= step || self.used_lines + wanted > lines {
            self.push_task(
                rows,
                rows.first_partition..rows.first_partition + rows.partitions,
                WHOLE,
            );
            return;
        }
        let first_line = self.used_lines;
        self.used_lines += wanted;
        for first in (0..rows.partitions).step_by(step) {
            let end = (first + step).min(rows.partitions);
            let range = rows.first_partition + first..rows.first_partition + end;
            let line = first_line + first * rows.rows * heads;
            self.push_task(rows, range, line as u32);
        }
        let group = self.limits.group();
        for row in 0..rows.rows {
            self.merges.extend([
                (rows.first_row + row) as u32,
                (first_line + row * group) as u32,
                rows.partitions as u32,
                (rows.rows * group) as u32,
            ]);
        }
    }

    fn push_task(&mut self, rows: &Rows, partitions: Range<usize>, first_line: u32) {
        self.words.extend([
            rows.first_row as u32,
            rows.rows as u32,
            rows.slot,
            rows.first_position as u32,
            partitions.start as u32,
            partitions.len() as u32,
            first_line,
            0,
        ]);
    }
}

/// Tasks with many queries, or with few.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Tall,
    Flat,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: AttentionShape = AttentionShape {
        heads: 32,
        kv_heads: 4,
        head_dim: 128,
        scale: 1.0,
    };

    fn plan(limits: AttentionLimits, span: AttentionSpan, rows: &[(u32, u32)]) -> AttentionPlan {
        let mut plan = AttentionPlan::new(limits);
        let mut first_row = 0;
        let sequences: Vec<BatchSequence> = rows
            .iter()
            .enumerate()
            .map(|(slot, &(first_position, count))| {
                first_row += count;
                BatchSequence {
                    rows: first_row - count..first_row,
                    first_position,
                    slot: slot as u32,
                }
            })
            .collect();
        plan.fill(span, &sequences);
        plan
    }

    fn tasks(plan: &AttentionPlan) -> Vec<&[u32]> {
        let words = plan.words();
        let end = words[3] as usize * TASK_WORDS;
        words[HEADER_WORDS..][..end].chunks(TASK_WORDS).collect()
    }

    fn merges(plan: &AttentionPlan) -> Vec<&[u32]> {
        let words = plan.words();
        let range = words[4] as usize * MERGE_WORDS..words[5] as usize * MERGE_WORDS;
        words[HEADER_WORDS..][range].chunks(MERGE_WORDS).collect()
    }

    /// Every row gets each partition that it may see once, and lines are nobody else's.
    fn check(limits: AttentionLimits, span: AttentionSpan, sequences: &[(u32, u32)]) {
        let plan = plan(limits, span, sequences);
        let total: u32 = sequences.iter().map(|&(_, rows)| rows).sum();
        let mut seen = vec![Vec::new(); total as usize];
        let mut lines = vec![false; limits.lines];
        for task in tasks(&plan) {
            for row in task[0]..task[0] + task[1] {
                seen[row as usize].push(task[4]..task[4] + task[5]);
            }
            if task[6] != WHOLE {
                let count = task[1] * task[5] * 32;
                for line in &mut lines[task[6] as usize..][..count as usize] {
                    assert!(!std::mem::replace(line, true), "a line belongs to one task");
                }
            }
        }
        let mut row = 0;
        for &(first_position, rows) in sequences {
            for position in first_position..first_position + rows {
                let ranges = &mut seen[row];
                ranges.sort_by_key(|range| range.start);
                let (first, last) = (&ranges[0], &ranges[ranges.len() - 1]);
                assert!(first.start * 512 <= span.first_visible(position));
                assert!(last.end * 512 > position);
                assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
                let merged = merges(&plan).iter().any(|merge| merge[0] == row as u32);
                assert_eq!(merged, ranges.len() > 1, "row {row}");
                row += 1;
            }
        }
    }

    #[test]
    fn every_row_sees_every_partition_once() {
        let limits = AttentionLimits::new(SHAPE, [4096, 64, 65_536], 132);
        let sliding = AttentionSpan::Sliding { visible_keys: 4097 };
        for span in [AttentionSpan::Full, sliding] {
            for limits in [limits, limits.undivided()] {
                check(limits, span, &[(0, 1)]);
                check(limits, span, &[(511, 1), (512, 1), (513, 2), (1023, 3)]);
                check(limits, span, &[(60_000, 1), (4095, 2), (4096, 1)]);
                check(limits, span, &[(60_000, 16), (17, 3)]);
                check(limits, span, &[(0, 4000), (60_000, 40)]);
                check(limits, span, &[(30_000, 1); 64]);
            }
        }
    }

    #[test]
    fn a_single_long_sequence_gets_many_tasks() {
        let limits = AttentionLimits::new(SHAPE, [512, 64, 65_536], 132);
        let decode = plan(limits, AttentionSpan::Full, &[(60_000, 1)]);
        assert_eq!(tasks(&decode).len(), 60_000 / 512 + 1);
        assert_eq!(decode.kinds(), [false, true, true]);
        let short = plan(limits, AttentionSpan::Full, &[(500, 1)]);
        assert_eq!(short.kinds(), [false, true, false]);
        let chunk = plan(limits, AttentionSpan::Full, &[(60_000, 512)]);
        assert_eq!(chunk.kinds(), [true, false, false]);
        let tail = plan(limits, AttentionSpan::Full, &[(60_000, 16)]);
        assert_eq!(tail.kinds(), [true, false, true]);
        let chunks = plan(limits, AttentionSpan::Full, &[(0, 512)]);
        assert_eq!(chunks.kinds(), [true, false, false]);
    }

    #[test]
    fn memory_is_bounded() {
        let limits = AttentionLimits::new(SHAPE, [4096, 256, 262_144], 132);
        assert!(limits.partial_values_bytes() + limits.partial_sums_bytes() <= PARTIAL_BYTES_MAX);
        assert!(limits.plan_bytes() < 1 << 20);
    }
}
