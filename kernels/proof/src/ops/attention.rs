//! Paged sequences for the cases of attention and of the cache writes.

mod device;
mod shapes;

pub(crate) use shapes::{PagedShape, shapes};

use std::ops::Range;
use std::sync::Arc;

use backstop_card::Device;
use backstop_kernels::backend::AttentionShape;
use backstop_kernels::ops::attention::{AttentionArgs, on_tiles};
use backstop_kernels::ops::indexer::Selection;
use backstop_kernels::ops::kv_write::SequenceRows;
use backstop_kernels::ops::sample::mix;
use backstop_kernels::random::random_values;
use backstop_kernels::{AlignedBytes, BatchSequence, Element, InstructionSet, KvShape, KvView};
use backstop_types::AttentionSpan;

use crate::catalog::{Case, CaseSpec, Cost, DeviceResult, Tolerance};
use crate::ops::kv_write::Places;
use shapes::{large_shapes, selecting_shapes};

/// Naive attention; `out` is `[rows, heads * head_dim]`.
pub fn reference(args: &AttentionArgs<'_>, out: &mut [f32]) {
    args.check(out);
    let (heads, head_dim) = (args.shape.heads as usize, args.shape.head_dim as usize);
    for sequence in args.sequences {
        for row in 0..sequence.rows {
            let at = sequence.first_row + row;
            let position = sequence.first_position + row;
            for head in 0..heads {
                let query = &args.qkv[at * args.columns() + head * head_dim..][..head_dim];
                let out = &mut out[(at * heads + head) * head_dim..][..head_dim];
                let first = args.span.first_visible(position as u32) as usize;
                let positions: Vec<usize> = match args.selected(at) {
                    Some(selected) => selected.iter().map(|&own| own as usize).collect(),
                    None => (first..=position).collect(),
                };
                reference_row(args, sequence, &positions, head, query, out);
            }
        }
    }
}

fn reference_row(
    args: &AttentionArgs<'_>,
    sequence: &SequenceRows<'_>,
    positions: &[usize],
    head: usize,
    query: &[f32],
    out: &mut [f32],
) {
    let layout = args.cache.shape;
    let kv_head = head / args.group();
    let memory = |position: usize| {
        let block = sequence.table[position / layout.block_size];
        let start = layout.keys_start(block, kv_head);
        (
            &args.cache.bytes[start..][..2 * layout.half_bytes()],
            position % layout.block_size,
        )
    };
    let scores: Vec<f32> = positions
        .iter()
        .map(|&position| {
            let (memory, offset) = memory(position);
            let key = |d: usize| layout.element.read(memory, layout.key_index(offset, d));
            let dot: f32 = query.iter().enumerate().map(|(d, q)| q * key(d)).sum();
            dot * args.shape.scale
        })
        .collect();
    let sink = args.sinks.map(|sinks| sinks[head]);
    let largest = scores.iter().copied().chain(sink);
    let largest = largest.fold(f32::NEG_INFINITY, f32::max);
    let weight = |score: &f32| (score - largest).exp();
    let weights: Vec<f32> = scores.iter().map(weight).collect();
    let sum: f32 = weights
        .iter()
        .copied()
        .chain(sink.as_ref().map(weight))
        .sum();
    out.fill(0.0);
    for (&position, weight) in positions.iter().zip(&weights) {
        let (memory, offset) = memory(position);
        for (d, out) in out.iter_mut().enumerate() {
            let value = layout.element.read(memory, layout.value_index(offset, d));
            *out += weight / sum * value;
        }
    }
}

/// Sequences in a cache. Blocks are scattered; everything that no row may see is NaN, and so are
/// the blocks that table entries before the window name.
pub(crate) struct Paged {
    pub(crate) shape: AttentionShape,
    pub(super) sinks: Option<Vec<f32>>,
    layout: KvShape,
    pub(super) span: AttentionSpan,
    /// Positions that a row selects at most, if it does.
    selected: Option<usize>,
    sequences: Vec<PagedSequence>,
    qkv: Vec<f32>,
    /// The number of blocks.
    blocks: usize,
    cache: AlignedBytes,
}

struct PagedSequence {
    first_position: usize,
    rows: Range<usize>,
    table: Vec<u32>,
}

/// Some of the rows.
pub(crate) struct PagedBatch<'a> {
    pub(crate) qkv: Vec<f32>,
    parts: Vec<SequenceRows<'a>>,
}

impl<'a> PagedBatch<'a> {
    pub(crate) fn sequences(&self) -> Vec<SequenceRows<'a>> {
        self.parts.clone()
    }
}

impl Paged {
    pub(crate) fn new(spec: &PagedShape) -> Self {
        let mut paged = Self::without_cache(spec);
        paged.cache = AlignedBytes::copy_of(&vec![0xff; paged.cache_len()]);
        paged.fill();
        paged
    }

    /// The same without what the cache holds.
    pub(crate) fn without_cache(spec: &PagedShape) -> Self {
        let [heads, kv_heads, head_dim] = spec.heads;
        let scale = (head_dim as f32).powf(-0.5);
        let layout = KvShape {
            element: spec.element,
            block_size: spec.block_size,
            kv_heads: kv_heads as usize,
            head_dim: head_dim as usize,
            has_values: true,
        };
        let mut rows = 0;
        let mut blocks = 1;
        let sequence = |&(first_position, count): &(usize, usize)| {
            let own = (first_position + count).div_ceil(spec.block_size);
            let first_block = blocks;
            blocks += own as u32;
            rows += count;
            // Backwards, so that neighbours in the sequence are none in memory.
            let table = (0..own as u32)
                .rev()
                .map(|block| first_block + block)
                .collect();
            PagedSequence {
                first_position,
                rows: rows - count..rows,
                table,
            }
        };
        let sequences: Vec<_> = spec.sequences.iter().map(sequence).collect();
        let columns = ((heads + 2 * kv_heads) * head_dim) as usize;
        let mut paged = Self {
            shape: AttentionShape {
                heads,
                kv_heads,
                head_dim,
                scale,
            },
            sinks: spec.sinks.then(|| random_values(2, heads as usize, 2.0)),
            layout,
            span: spec.span,
            selected: None,
            sequences,
            qkv: random_values(1, rows * columns, 2.0),
            blocks: blocks as usize,
            cache: AlignedBytes::zeroed(0),
        };
        paged.forget_passed();
        paged
    }

    /// Bytes of all blocks.
    pub(crate) fn cache_len(&self) -> usize {
        self.layout.keys_start(self.blocks as u32, 0)
    }

    /// Lets tables name no blocks that the window has passed.
    fn forget_passed(&mut self) {
        for sequence in &mut self.sequences {
            let first = self.span.first_visible(sequence.first_position as u32) as usize;
            sequence.table[..first / self.layout.block_size].fill(0);
        }
    }

    /// The same with rows that attend to so many positions at most, all over what they see.
    pub(super) fn selecting(self, count: usize) -> Self {
        let selected = Some(count);
        Self { selected, ..self }
    }

    /// What rows select: the same for a row whatever the batch.
    fn selection(&self, count: usize, sequences: &[SequenceRows<'_>]) -> Selection {
        let mut selection = Selection::unset(count, sequences);
        for sequence in sequences {
            for row in 0..sequence.rows {
                let seen = sequence.first_position + row + 1;
                let Some(own) = selection.of_mut(sequence.first_row + row) else {
                    continue;
                };
                // One from each of as many parts; some turn out to be neighbours.
                for (index, out) in own.iter_mut().enumerate() {
                    let part = index * seen / count..(index + 1) * seen / count;
                    let offset = mix((seen * count + index) as u64) as usize % part.len();
                    *out = (part.start + offset) as u32;
                }
            }
        }
        selection
    }

    /// Writes what rows may see: the same numbers whatever the block size.
    fn fill(&mut self) {
        let layout = self.layout;
        for index in 0..self.sequences.len() {
            if let Some(earlier) = self.alike(index) {
                self.copy_blocks(earlier, index);
                continue;
            }
            let sequence = &mut self.sequences[index];
            let end = sequence.first_position + sequence.rows.len();
            let first = self.span.first_visible(sequence.first_position as u32) as usize;
            for position in first..end {
                let seed = 1000 + (index << 20 | position) as u64;
                let numbers = random_values(seed, 2 * layout.kv_heads * layout.head_dim, 1.0);
                let offset = position % layout.block_size;
                for (kv_head, numbers) in numbers.chunks(2 * layout.head_dim).enumerate() {
                    let block = sequence.table[position / layout.block_size];
                    let start = layout.keys_start(block, kv_head);
                    let memory = &mut self.cache.as_mut_slice()[start..];
                    for d in 0..layout.head_dim {
                        let value = numbers[layout.head_dim + d];
                        layout
                            .element
                            .write(memory, layout.key_index(offset, d), numbers[d]);
                        layout
                            .element
                            .write(memory, layout.value_index(offset, d), value);
                    }
                }
            }
        }
    }

    /// Makes what lies `distance` positions apart nearly cancel out: nearly the same key, and the
    /// opposite value. Differences in the last bits of sums then show in the leading bits of
    /// results, however these are rounded.
    #[cfg(test)]
    pub(super) fn cancel(&mut self, distance: usize) {
        let layout = self.layout;
        let size = layout.element.bytes();
        for sequence in &self.sequences {
            let end = sequence.first_position + sequence.rows.len();
            let first = self.span.first_visible(sequence.first_position as u32) as usize;
            let place = |position: usize, kv_head| {
                let block = sequence.table[position / layout.block_size];
                (
                    layout.keys_start(block, kv_head),
                    position % layout.block_size,
                )
            };
            let pairs = (first + distance..end)
                .flat_map(|position| (0..layout.kv_heads).map(move |kv_head| (position, kv_head)));
            for (position, kv_head) in pairs {
                let (from, from_offset) = place(position - distance, kv_head);
                let (to, to_offset) = place(position, kv_head);
                let memory = self.cache.as_mut_slice();
                for d in 0..layout.head_dim {
                    let key = from + layout.key_index(from_offset, d) * size;
                    let other = to + layout.key_index(to_offset, d) * size;
                    memory.copy_within(key..key + size, other);
                    // The last bit of some elements, so that the maxima differ a little.
                    memory[other] ^= u8::from(d < 2);
                    let value = from + layout.value_index(from_offset, d) * size;
                    let other = to + layout.value_index(to_offset, d) * size;
                    memory.copy_within(value..value + size, other);
                    memory[other + size - 1] ^= 0x80;
                }
            }
        }
    }

    /// An earlier sequence of the same length, if there are many of them: large batches take too
    /// long to fill with numbers of their own.
    fn alike(&self, index: usize) -> Option<usize> {
        const DIFFERENT: usize = 4;
        let earlier = index.checked_sub(DIFFERENT)?;
        let length = |sequence: &PagedSequence| (sequence.first_position, sequence.rows.len());
        let [one, other] = [earlier, index].map(|index| length(&self.sequences[index]));
        (one == other).then_some(earlier)
    }

    /// Makes one sequence's keys and values those of an earlier one, in blocks of its own.
    fn copy_blocks(&mut self, earlier: usize, index: usize) {
        let bytes = self.layout.keys_start(1, 0);
        let tables = [earlier, index].map(|index| self.sequences[index].table.clone());
        let [from, to] = tables;
        // The window has passed the blocks that are 0.
        for (from, to) in from.into_iter().zip(to).filter(|&(from, _)| from != 0) {
            let from = self.layout.keys_start(from, 0);
            let to = self.layout.keys_start(to, 0);
            self.cache
                .as_mut_slice()
                .copy_within(from..from + bytes, to);
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.sequences
            .last()
            .map_or(0, |sequence| sequence.rows.end)
    }

    pub(crate) fn layout(&self) -> KvShape {
        self.layout
    }

    /// The memory of all blocks.
    pub(crate) fn cache_bytes(&self) -> &[u8] {
        self.cache.as_slice()
    }

    /// Where the rows belong; slots are sequences.
    pub(crate) fn places(&self) -> Places {
        let lengths = self.sequences.iter().map(|sequence| sequence.table.len());
        let table_stride = lengths.max().unwrap_or(0);
        let mut tables = Vec::new();
        let mut rows = Vec::new();
        for (slot, sequence) in self.sequences.iter().enumerate() {
            tables.extend_from_slice(&sequence.table);
            tables.resize((slot + 1) * table_stride, u32::MAX);
            let positions = sequence.first_position..sequence.first_position + sequence.rows.len();
            rows.extend(positions.map(|position| (slot as u32, position as u32)));
        }
        Places {
            rows,
            tables,
            table_stride,
            blocks: self.blocks,
        }
    }

    /// The sequences of the given rows, whose slots are all sequences in their order.
    pub(crate) fn batch_sequences(&self, rows: Range<usize>) -> Vec<BatchSequence> {
        let mut out = Vec::new();
        for (slot, sequence) in (0..).zip(&self.sequences) {
            let from = sequence.rows.start.max(rows.start);
            let to = sequence.rows.end.min(rows.end);
            if from < to {
                out.push(BatchSequence {
                    rows: (from - rows.start) as u32..(to - rows.start) as u32,
                    first_position: (sequence.first_position + from - sequence.rows.start) as u32,
                    slot,
                });
            }
        }
        out
    }

    pub(crate) fn empty_cache(&self) -> AlignedBytes {
        AlignedBytes::zeroed(self.cache.len())
    }

    /// Bytes of one position's keys and values.
    pub(crate) fn bytes_per_position(&self) -> usize {
        2 * self.layout.kv_heads * self.layout.head_dim * self.layout.element.bytes()
    }

    /// Block table and position of a row.
    pub(crate) fn place(&self, row: usize) -> (&[u32], usize) {
        let mut owners = self
            .sequences
            .iter()
            .filter(|sequence| sequence.rows.contains(&row));
        let Some(owner) = owners.next() else {
            panic!("row {row} belongs to no sequence")
        };
        (&owner.table, owner.first_position + row - owner.rows.start)
    }

    /// A batch of the given rows.
    pub(crate) fn batch(&self, rows: Range<usize>) -> PagedBatch<'_> {
        let columns = self.qkv.len() / self.rows().max(1);
        let parts = self.sequences.iter().filter_map(|sequence| {
            let from = sequence.rows.start.max(rows.start);
            let to = sequence.rows.end.min(rows.end);
            (from < to).then(|| SequenceRows {
                first_row: from - rows.start,
                rows: to - from,
                first_position: sequence.first_position + from - sequence.rows.start,
                table: &sequence.table,
            })
        });
        PagedBatch {
            qkv: self.qkv[rows.start * columns..rows.end * columns].to_vec(),
            parts: parts.collect(),
        }
    }

    /// Attention of the given rows.
    fn attend(
        &self,
        rows: Range<usize>,
        run: impl FnOnce(&AttentionArgs<'_>, &mut [f32]),
    ) -> Vec<f32> {
        self.attend_with(&self.batch(rows.clone()).qkv, rows, run)
    }

    /// The same with these queries.
    pub(super) fn attend_with(
        &self,
        qkv: &[f32],
        rows: Range<usize>,
        run: impl FnOnce(&AttentionArgs<'_>, &mut [f32]),
    ) -> Vec<f32> {
        let mut out = vec![0.0; rows.len() * (self.shape.heads * self.shape.head_dim) as usize];
        let batch = self.batch(rows);
        let selection = self
            .selected
            .map(|count| self.selection(count, &batch.parts));
        let args = AttentionArgs {
            qkv,
            shape: self.shape,
            sinks: self.sinks.as_deref(),
            span: self.span,
            selection: selection.as_ref(),
            sequences: &batch.sequences(),
            cache: KvView {
                shape: self.layout,
                bytes: self.cache.as_slice(),
            },
        };
        run(&args, &mut out);
        out
    }
}

pub(crate) struct AttentionCase(pub(crate) Paged);

impl Case for AttentionCase {
    fn rows(&self) -> usize {
        self.0.rows()
    }

    fn reference(&self) -> Vec<f32> {
        self.0.attend(0..self.rows(), reference)
    }

    fn cpu(&self, instructions: InstructionSet) -> Vec<f32> {
        self.0
            .attend(0..self.rows(), |args, out| args.run(instructions, out))
    }

    fn cpu_row(&self, instructions: InstructionSet, row: usize) -> Vec<f32> {
        self.0
            .attend(row..row + 1, |args, out| args.run(instructions, out))
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::of(Element::F32)
    }

    fn cpu_tolerance(&self, instructions: InstructionSet) -> Tolerance {
        if on_tiles(self.0.layout(), instructions) {
            // Queries are rounded, and then weights.
            let Tolerance(rounding) = Tolerance::BF16;
            return Tolerance(2.0 * rounding);
        }
        self.tolerance()
    }

    fn cost(&self) -> Cost {
        let Self(paged) = self;
        let mut cost = Cost::default();
        for sequence in &paged.sequences {
            let positions = sequence.first_position..sequence.first_position + sequence.rows.len();
            let most = paged.selected.unwrap_or(usize::MAX);
            let seen = |position: usize| {
                most.min(position + 1 - paged.span.first_visible(position as u32) as usize)
            };
            let pairs: usize = positions.clone().map(seen).sum();
            let numbers = (paged.shape.heads * paged.shape.head_dim) as usize;
            cost.multiply_adds += 2 * pairs * numbers;
            let first = paged.span.first_visible(positions.start as u32) as usize;
            cost.bytes += (positions.end - first) * paged.bytes_per_position();
        }
        cost
    }

    fn device<'a>(&'a self, device: &'a Arc<dyn Device>) -> Option<DeviceResult<'a>> {
        if self.0.selected.is_some() {
            return None;
        }
        device::device(self, device)
    }
}

/// The cases of attention.
pub fn cases() -> Vec<CaseSpec> {
    let case =
        |shape: PagedShape| CaseSpec::new(shape.label(), move || AttentionCase(Paged::new(&shape)));
    let small = shapes().into_iter().map(case);
    let selecting = selecting_shapes().flat_map(|shape| {
        [1, 13, 64, 1100].map(|count| {
            let shape = shape.clone();
            let label = format!("{}, {count} selected", shape.label());
            let make = move || AttentionCase(Paged::new(&shape).selecting(count));
            CaseSpec::new(label, make)
        })
    });
    let large = large_shapes().into_iter().map(|shape| {
        let large = case(shape.clone()).only_for_benchmarks();
        large.made_on_device(move |device| device::made_on_device(&shape, device))
    });
    small.chain(selecting).chain(large).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attention(shape: &PagedShape, instructions: InstructionSet) -> Vec<u32> {
        let case = AttentionCase(Paged::new(shape));
        case.cpu(instructions)
            .into_iter()
            .map(f32::to_bits)
            .collect()
    }

    #[test]
    fn the_block_size_does_not_change_a_bit() {
        let shape = |block_size, element| PagedShape {
            heads: [8, 2, 32],
            sinks: true,
            block_size,
            element,
            span: AttentionSpan::Sliding { visible_keys: 200 },
            sequences: vec![(190, 70), (0, 5), (1030, 1)],
        };
        for instructions in InstructionSet::available() {
            for element in [Element::F32, Element::BF16, Element::F8E4M3] {
                let expected = attention(&shape(16, element), instructions);
                for block_size in [1, 5, 8, 24, 64, 256, 2048] {
                    let actual = attention(&shape(block_size, element), instructions);
                    assert!(actual == expected, "blocks of {block_size}, {element:?}");
                }
            }
        }
    }

    #[test]
    fn chunks_do_not_change_a_bit() {
        let shape = PagedShape {
            heads: [4, 1, 16],
            sinks: true,
            block_size: 16,
            element: Element::BF16,
            span: AttentionSpan::Full,
            sequences: vec![(0, 150)],
        };
        let case = AttentionCase(Paged::new(&shape));
        let instructions = InstructionSet::detect();
        let whole = case.cpu(instructions);
        let run = |rows| case.0.attend(rows, |args, out| args.run(instructions, out));
        for chunk in [1, 7, 16, 64, 100] {
            let starts = (0..150).step_by(chunk);
            let parts: Vec<f32> = starts
                .flat_map(|start| run(start..(start + chunk).min(150)))
                .collect();
            assert!(
                parts
                    .iter()
                    .zip(&whole)
                    .all(|(a, b)| a.to_bits() == b.to_bits()),
                "{chunk}"
            );
        }
    }

    #[test]
    fn a_selection_of_everything_changes_no_bit() {
        for element in [Element::F32, Element::BF16, Element::F8E4M3] {
            let shape = PagedShape {
                heads: [7, 1, 40],
                sinks: false,
                block_size: 16,
                element,
                span: AttentionSpan::Full,
                sequences: vec![(2200, 1)],
            };
            let paged = Paged::new(&shape);
            for instructions in InstructionSet::available() {
                let batch = paged.batch(0..1);
                // The row that sees one more has a choice of as many as this one sees.
                let mut sequences = batch.sequences();
                let mut selection = Selection::unset(2200, &sequences);
                let own = selection.of_mut(0).expect("it chooses");
                own.iter_mut()
                    .zip(0..)
                    .for_each(|(out, position)| *out = position);
                sequences[0].first_position = 2199;
                let attend = |selection| {
                    let mut out = vec![0.0; 7 * 40];
                    let args = AttentionArgs {
                        qkv: &batch.qkv,
                        shape: paged.shape,
                        sinks: None,
                        span: paged.span,
                        selection,
                        sequences: &sequences,
                        cache: KvView {
                            shape: paged.layout,
                            bytes: paged.cache.as_slice(),
                        },
                    };
                    args.run(instructions, &mut out);
                    out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                };
                assert!(attend(Some(&selection)) == attend(None), "{element:?}");
            }
        }
    }

    #[test]
    fn equal_values_are_their_own_average() {
        let shape = PagedShape {
            heads: [2, 1, 8],
            sinks: false,
            block_size: 4,
            element: Element::F32,
            span: AttentionSpan::Full,
            sequences: vec![(0, 90)],
        };
        let mut paged = Paged::new(&shape);
        let layout = paged.layout;
        for position in 0..90 {
            let block = paged.sequences[0].table[position / 4];
            let memory = &mut paged.cache.as_mut_slice()[layout.keys_start(block, 0)..];
            for d in 0..8 {
                layout
                    .element
                    .write(memory, layout.value_index(position % 4, d), d as f32);
            }
        }
        for value in AttentionCase(paged).cpu(InstructionSet::detect()).chunks(8) {
            let error = value
                .iter()
                .enumerate()
                .map(|(d, value)| (value - d as f32).abs());
            assert!(error.fold(0.0, f32::max) < 1e-5, "{value:?}");
        }
    }
}
