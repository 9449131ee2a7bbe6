//! Cases of the indexer: small whole numbers, whose sums are exact, so that all implementations
//! must choose the same positions, and among many equal scores the earlier ones.

use std::ops::Range;

use backstop_kernels::ops::indexer::{Choosing, IndexKeysArgs, IndexerArgs, Selection};
use backstop_kernels::ops::kv_write::SequenceRows;
use backstop_kernels::random::random_indices;
use backstop_kernels::{AlignedBytes, Element, InstructionSet, KvShape, KvView};

use crate::catalog::{Case, CaseSpec, Cost, Tolerance};

/// Naive scores and a full sort.
pub fn reference(args: &IndexerArgs<'_>) -> Selection {
    args.check();
    let mut selection = Selection::unset(args.chosen, args.sequences);
    let positions = selection.positions.chunks_exact_mut(args.chosen);
    for (row, positions) in args.choosing().iter().zip(positions) {
        let score = |position: usize| -> f32 {
            let heads = (0..args.heads).map(|head| reference_product(args, row, head, position));
            let weights = &args.head_weights[row.row * args.heads..];
            let terms = heads.zip(weights).map(|(product, weight)| product * weight);
            // Not -0, which would be less than 0.
            terms.sum::<f32>() + 0.0
        };
        let scores: Vec<f32> = (0..row.visible).map(score).collect();
        let mut best: Vec<usize> = (0..row.visible).collect();
        best.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        best.truncate(args.chosen);
        best.sort_unstable();
        for (out, position) in positions.iter_mut().zip(best) {
            *out = position as u32;
        }
    }
    selection
}

/// `max(0, query . key)` of one head.
fn reference_product(
    args: &IndexerArgs<'_>,
    row: &Choosing<'_>,
    head: usize,
    position: usize,
) -> f32 {
    let layout = args.cache.shape;
    let block = row.sequence.table[position / layout.block_size];
    let memory = &args.cache.bytes[layout.keys_start(block, 0)..];
    let query = &args.queries[(row.row * args.heads + head) * layout.head_dim..];
    let query = query[..layout.head_dim].iter().enumerate();
    let products = query.map(|(dimension, &query)| {
        let index = layout.key_index(position % layout.block_size, dimension);
        query * layout.element.read(memory, index)
    });
    products.sum::<f32>().max(0.0)
}

/// What is behind the last of a row's positions in the output.
const NONE: f32 = -1.0;

#[derive(Clone, Debug)]
struct Shape {
    heads: usize,
    head_dim: usize,
    chosen: usize,
    block_size: usize,
    element: Element,
    /// First position and number of rows of each sequence.
    sequences: Vec<(usize, usize)>,
}

struct Sequence {
    first_position: usize,
    rows: Range<usize>,
    table: Vec<u32>,
}

struct IndexerCase {
    shape: Shape,
    sequences: Vec<Sequence>,
    queries: Vec<f32>,
    head_weights: Vec<f32>,
    layout: KvShape,
    /// NaN where no sequence has a key.
    cache: AlignedBytes,
}

/// Whole numbers of at most this magnitude.
fn whole_numbers(seed: u64, len: usize, magnitude: u32) -> Vec<f32> {
    let numbers = random_indices(seed, len, 2 * magnitude as usize + 1);
    let number = |number| number as f32 - magnitude as f32;
    numbers.into_iter().map(number).collect()
}

impl IndexerCase {
    fn new(shape: Shape) -> Self {
        let layout = KvShape {
            element: shape.element,
            block_size: shape.block_size,
            kv_heads: 1,
            head_dim: shape.head_dim,
            has_values: false,
        };
        let (mut rows, mut blocks) = (0, 0);
        let sequences = shape.sequences.iter().map(|&(first_position, count)| {
            let own = (first_position + count).div_ceil(shape.block_size) as u32;
            rows += count;
            blocks += own;
            Sequence {
                first_position,
                rows: rows - count..rows,
                // Backwards, so that neighbours in the sequence are none in memory.
                table: (blocks - own..blocks).rev().collect(),
            }
        });
        let sequences: Vec<Sequence> = sequences.collect();
        let bytes = layout.keys_start(blocks, 0);
        let mut cache = AlignedBytes::copy_of(&vec![0xff; bytes]);
        for (seed, sequence) in (100..).zip(&sequences) {
            let end = sequence.first_position + sequence.rows.len();
            let whole = SequenceRows {
                first_row: 0,
                rows: end,
                first_position: 0,
                table: &sequence.table,
            };
            IndexKeysArgs {
                keys: &whole_numbers(seed, end * shape.head_dim, 2),
                sequences: &[whole],
                layout,
                cache: cache.as_mut_slice(),
            }
            .run();
        }
        Self {
            queries: whole_numbers(1, rows * shape.heads * shape.head_dim, 3),
            head_weights: whole_numbers(2, rows * shape.heads, 2),
            shape,
            sequences,
            layout,
            cache,
        }
    }

    /// What some rows choose: their positions, or all that they see, and then nothing.
    fn choose(
        &self,
        rows: Range<usize>,
        choose: impl FnOnce(&IndexerArgs<'_>) -> Selection,
    ) -> Vec<f32> {
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
        let parts: Vec<SequenceRows<'_>> = parts.collect();
        let heads = rows.start * self.shape.heads..rows.end * self.shape.heads;
        let elements = heads.start * self.shape.head_dim..heads.end * self.shape.head_dim;
        let selection = choose(&IndexerArgs {
            queries: &self.queries[elements],
            head_weights: &self.head_weights[heads],
            heads: self.shape.heads,
            chosen: self.shape.chosen,
            sequences: &parts,
            cache: KvView {
                shape: self.layout,
                bytes: self.cache.as_slice(),
            },
        });
        assert_eq!(selection.rows(), rows.len(), "rows of a selection");
        let mut out = Vec::with_capacity(rows.len() * self.shape.chosen);
        for part in &parts {
            for row in 0..part.rows {
                let all: Vec<u32> = (0..=(part.first_position + row) as u32).collect();
                let own = selection.of(part.first_row + row).unwrap_or(&all);
                out.extend(own.iter().map(|&position| position as f32));
                out.resize((part.first_row + row + 1) * self.shape.chosen, NONE);
            }
        }
        out
    }
}

impl Case for IndexerCase {
    fn rows(&self) -> usize {
        self.sequences.last().map_or(0, |last| last.rows.end)
    }

    fn reference(&self) -> Vec<f32> {
        self.choose(0..self.rows(), reference)
    }

    fn cpu(&self, instructions: InstructionSet) -> Vec<f32> {
        self.choose(0..self.rows(), |args| args.run(instructions))
    }

    fn cpu_row(&self, instructions: InstructionSet, row: usize) -> Vec<f32> {
        self.choose(row..row + 1, |args| args.run(instructions))
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::EXACT
    }

    fn cost(&self) -> Cost {
        let mut cost = Cost::default();
        let numbers = self.shape.heads * self.shape.head_dim;
        for sequence in &self.sequences {
            let end = sequence.first_position + sequence.rows.len();
            let seen = (sequence.first_position + 1..=end).filter(|&seen| seen > self.shape.chosen);
            cost.multiply_adds += seen.sum::<usize>() * numbers;
            cost.bytes += end * self.layout.head_dim * self.layout.element.bytes();
        }
        cost
    }
}

/// Heads, elements of a head, positions chosen, block size and sequences; the last are GLM-5's,
/// of which whole ones are for benchmarks.
pub fn cases() -> Vec<CaseSpec> {
    let mixed = vec![(0, 5), (70, 1), (3, 17), (129, 2), (0, 1)];
    let long = vec![(1020, 9), (2200, 1), (60, 9)];
    let shapes = [
        ([1, 2, 1, 1], mixed.clone()),
        ([3, 7, 4, 3], mixed.clone()),
        ([8, 24, 8, 16], mixed),
        ([7, 16, 13, 64], long.clone()),
        ([32, 128, 100, 16], long),
        ([4, 16, 5, 16], Vec::new()),
    ];
    type Sizes = ([usize; 4], Vec<(usize, usize)>);
    let case = |([heads, head_dim, chosen, block_size], sequences): Sizes, element| {
        let shape = Shape {
            heads,
            head_dim,
            chosen,
            block_size,
            element,
            sequences,
        };
        CaseSpec::new(format!("{shape:?}"), move || {
            IndexerCase::new(shape.clone())
        })
    };
    let mut cases = Vec::new();
    for element in [Element::F32, Element::BF16, Element::F8E4M3] {
        cases.extend(shapes.iter().cloned().map(|shape| case(shape, element)));
    }
    for sequence in [(8191, 1), (8192, 64), (65_535, 1)] {
        let shape = ([32, 128, 2048, 16], vec![sequence]);
        cases.push(case(shape, Element::BF16).only_for_benchmarks());
    }
    cases
}
