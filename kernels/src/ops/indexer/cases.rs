//! Cases of the indexer: small whole numbers, whose sums are exact, so that all implementations
//! must choose the same positions, and among many equal scores the earlier ones.

use std::ops::Range;

use super::{IndexKeysArgs, IndexerArgs, Selection};
use crate::aligned::AlignedBytes;
use crate::catalog::{Case, CaseSpec, Cost, Tolerance, random_indices};
use crate::cpu::kv_cache::{KvShape, KvView};
use crate::element::Element;
use crate::features::InstructionSet;
use crate::ops::kv_write::SequenceRows;

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
        self.choose(0..self.rows(), |args| args.reference())
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
