//! Rotary position embedding, in place, over queries and keys.

mod frequencies;

use crate::backend::{AttentionShape, Rope, RopePairing};
use crate::features::InstructionSet;
use crate::parallel;
use crate::simd::{self, Program, Simd};

/// Cosine and sine of every angle of a batch, `[rows, dimensions / 2]` each.
///
/// Angles are computed as Hugging Face's transformers do: the inverse frequencies
/// ([`Rope::inverse_frequencies`]), their products with the position, and both functions in f32.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTable {
    /// Pairs of dimensions that are rotated.
    pub half_dim: usize,
    /// Which dimensions make a pair.
    pub pairing: RopePairing,
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl RopeTable {
    /// The table for rows at `positions`.
    pub fn new(positions: &[u32], rope: &Rope) -> Self {
        let frequencies = rope.inverse_frequencies();
        let angles: Vec<f32> = positions
            .iter()
            .flat_map(|&position| frequencies.iter().map(move |f| position as f32 * f))
            .collect();
        let magnitude = rope.magnitude();
        Self {
            half_dim: frequencies.len(),
            pairing: rope.pairing,
            cosines: angles.iter().map(|angle| angle.cos() * magnitude).collect(),
            sines: angles.iter().map(|angle| angle.sin() * magnitude).collect(),
        }
    }

    /// Cosines and sines of one row.
    pub fn row(&self, row: usize) -> (&[f32], &[f32]) {
        let range = row * self.half_dim..(row + 1) * self.half_dim;
        (&self.cosines[range.clone()], &self.sines[range])
    }
}

/// Arguments: `qkv` is `[rows, (heads + 2 * kv_heads) * head_dim]`; queries and keys, its first
/// `heads + kv_heads` heads, are rotated.
#[derive(Debug)]
pub struct RopeArgs<'a> {
    /// Rotated in place.
    pub qkv: &'a mut [f32],
    /// Head counts.
    pub shape: AttentionShape,
    /// Angles of the rows.
    pub table: &'a RopeTable,
}

impl RopeArgs<'_> {
    /// Numbers in a row: queries, keys and values.
    pub fn columns(&self) -> usize {
        (self.shape.heads + 2 * self.shape.kv_heads) as usize * self.shape.head_dim as usize
    }

    /// Panics unless the parts agree.
    pub fn check(&self) {
        let rows = self.table.cosines.len() / self.table.half_dim;
        assert!(
            self.table.half_dim * 2 <= self.shape.head_dim as usize,
            "head_dim of rope"
        );
        assert_eq!(self.qkv.len(), rows * self.columns(), "inputs of rope");
    }

    /// The rotation.
    pub fn run(self, instructions: InstructionSet) {
        self.check();
        let (table, shape, columns) = (self.table, self.shape, self.columns());
        let work = self.qkv.len() * 2;
        parallel::for_each_rows(self.qkv, columns, work, |first, rows| {
            simd::dispatch(
                instructions,
                Rows {
                    rows,
                    first,
                    table,
                    shape,
                },
            );
        });
    }
}

struct Rows<'a> {
    rows: &'a mut [f32],
    first: usize,
    table: &'a RopeTable,
    shape: AttentionShape,
}

impl Program for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let head_dim = self.shape.head_dim as usize;
        let columns = (self.shape.heads + 2 * self.shape.kv_heads) as usize * head_dim;
        let rotated = (self.shape.heads + self.shape.kv_heads) as usize;
        for (row, values) in self.rows.chunks_exact_mut(columns).enumerate() {
            let (cosines, sines) = self.table.row(self.first + row);
            for head in values.chunks_exact_mut(head_dim).take(rotated) {
                match self.table.pairing {
                    RopePairing::Interleaved => rotate_pairs(head, cosines, sines),
                    RopePairing::Halves => rotate_halves(head, cosines, sines),
                }
            }
        }
    }
}

#[inline(always)]
fn rotate_pairs(head: &mut [f32], cosines: &[f32], sines: &[f32]) {
    for ((pair, &cosine), &sine) in head.chunks_exact_mut(2).zip(cosines).zip(sines) {
        let (x, y) = (pair[0], pair[1]);
        pair[0] = x * cosine - y * sine;
        pair[1] = y * cosine + x * sine;
    }
}

#[inline(always)]
fn rotate_halves(head: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let (front, back) = head.split_at_mut(cosines.len());
    for (((x, y), &cosine), &sine) in front.iter_mut().zip(back).zip(cosines).zip(sines) {
        (*x, *y) = (*x * cosine - *y * sine, *y * cosine + *x * sine);
    }
}
