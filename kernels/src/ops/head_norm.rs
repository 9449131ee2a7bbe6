//! RMSNorm over each head of the queries and keys, in place.

use crate::backend::AttentionShape;
use crate::features::InstructionSet;
use crate::ops::norm::centred_square_sum;
use crate::parallel;
use crate::simd::{self, Program, Simd};

/// Arguments: `head = head / sqrt(mean(head^2) + epsilon) * weight` for the first
/// `heads + kv_heads` heads of each row of `qkv`.
#[derive(Debug)]
pub struct HeadNormArgs<'a> {
    /// `[rows, (heads + 2 * kv_heads) * head_dim]`, normalised in place.
    pub qkv: &'a mut [f32],
    /// Head counts.
    pub shape: AttentionShape,
    /// Gain of the queries, and of the keys, `[head_dim]` each.
    pub weights: [&'a [f32]; 2],
    /// Added to the mean square.
    pub epsilon: f32,
}

impl HeadNormArgs<'_> {
    /// Numbers in a row: queries, keys and values.
    pub fn columns(&self) -> usize {
        (self.shape.heads + 2 * self.shape.kv_heads) as usize * self.shape.head_dim as usize
    }

    /// Panics unless the parts agree.
    pub fn check(&self) {
        assert!(
            self.qkv.len().is_multiple_of(self.columns()),
            "inputs of head_norm"
        );
        let head_dim = self.shape.head_dim as usize;
        for weight in self.weights {
            assert_eq!(weight.len(), head_dim, "weights of head_norm");
        }
    }

    /// The norm.
    pub fn run(self, instructions: InstructionSet) {
        self.check();
        let columns = self.columns();
        let (shape, weights, epsilon) = (self.shape, self.weights, self.epsilon);
        let work = self.qkv.len() * 4;
        parallel::for_each_rows(self.qkv, columns, work, |_, rows| {
            let rows = Rows {
                rows,
                shape,
                weights,
                epsilon,
            };
            simd::dispatch(instructions, rows);
        });
    }
}

/// The gain of a head, unless it holds values.
#[inline(always)]
pub fn weight_of(shape: AttentionShape, [query, key]: [&[f32]; 2], head: usize) -> Option<&[f32]> {
    let (heads, kv_heads) = (shape.heads as usize, shape.kv_heads as usize);
    match head {
        _ if head < heads => Some(query),
        _ if head < heads + kv_heads => Some(key),
        _ => None,
    }
}

struct Rows<'a> {
    rows: &'a mut [f32],
    shape: AttentionShape,
    weights: [&'a [f32]; 2],
    epsilon: f32,
}

impl Program for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let head_dim = self.shape.head_dim as usize;
        let columns = (self.shape.heads + 2 * self.shape.kv_heads) as usize * head_dim;
        for row in self.rows.chunks_exact_mut(columns) {
            for (head, values) in row.chunks_exact_mut(head_dim).enumerate() {
                let Some(weight) = weight_of(self.shape, self.weights, head) else {
                    break;
                };
                let square = centred_square_sum(simd, values, 0.0);
                let factor = 1.0 / (square / head_dim as f32 + self.epsilon).sqrt();
                for (value, &weight) in values.iter_mut().zip(weight) {
                    *value = *value * factor * weight;
                }
            }
        }
    }
}
