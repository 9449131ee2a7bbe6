//! RMSNorm over each head of the queries and keys, in place.

mod cuda;

use std::ops::Range;
use std::sync::Arc;

use crate::backend::AttentionShape;
use crate::catalog::{Case, CaseSpec, Cost, DeviceResult, Tolerance, random_values};
use crate::cuda::Device;
use crate::element::Element;
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
    fn columns(&self) -> usize {
        (self.shape.heads + 2 * self.shape.kv_heads) as usize * self.shape.head_dim as usize
    }

    fn check(&self) {
        assert!(
            self.qkv.len().is_multiple_of(self.columns()),
            "inputs of head_norm"
        );
        let head_dim = self.shape.head_dim as usize;
        for weight in self.weights {
            assert_eq!(weight.len(), head_dim, "weights of head_norm");
        }
    }

    /// Naive norm in f64.
    pub fn reference(self) {
        self.check();
        let (head_dim, columns) = (self.shape.head_dim as usize, self.columns());
        for row in self.qkv.chunks_exact_mut(columns) {
            for (head, values) in row.chunks_exact_mut(head_dim).enumerate() {
                let Some(weight) = weight_of(self.shape, self.weights, head) else {
                    break;
                };
                let squares = values.iter().map(|&value| f64::from(value).powi(2));
                let mean = squares.sum::<f64>() / head_dim as f64;
                let factor = 1.0 / (mean + f64::from(self.epsilon)).sqrt();
                for (value, &weight) in values.iter_mut().zip(weight) {
                    *value = (f64::from(*value) * factor * f64::from(weight)) as f32;
                }
            }
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
fn weight_of(shape: AttentionShape, [query, key]: [&[f32]; 2], head: usize) -> Option<&[f32]> {
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

/// Added to the mean square in the cases.
const CASE_EPSILON: f32 = 1e-6;

struct HeadNormCase {
    qkv: Vec<f32>,
    rows: usize,
    shape: AttentionShape,
    weights: [Vec<f32>; 2],
}

impl HeadNormCase {
    /// The given rows of `qkv`, normalised.
    fn run_with(
        &self,
        qkv: &[f32],
        rows: Range<usize>,
        run: impl FnOnce(HeadNormArgs<'_>),
    ) -> Vec<f32> {
        let columns = qkv.len() / self.rows;
        let mut qkv = qkv[rows.start * columns..rows.end * columns].to_vec();
        run(HeadNormArgs {
            qkv: &mut qkv,
            shape: self.shape,
            weights: [&self.weights[0], &self.weights[1]],
            epsilon: CASE_EPSILON,
        });
        qkv
    }
}

impl Case for HeadNormCase {
    fn rows(&self) -> usize {
        self.rows
    }

    fn reference(&self) -> Vec<f32> {
        self.run_with(&self.qkv, 0..self.rows, |args| args.reference())
    }

    fn cpu(&self, instructions: InstructionSet) -> Vec<f32> {
        self.run_with(&self.qkv, 0..self.rows, |args| args.run(instructions))
    }

    fn cpu_row(&self, instructions: InstructionSet, row: usize) -> Vec<f32> {
        self.run_with(&self.qkv, row..row + 1, |args| args.run(instructions))
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::of(Element::F32)
    }

    fn cost(&self) -> Cost {
        Cost {
            multiply_adds: self.qkv.len() * 2,
            bytes: 0,
        }
    }

    fn device<'a>(&'a self, device: &'a Arc<dyn Device>) -> Option<DeviceResult<'a>> {
        cuda::device(self, device)
    }
}

/// Heads, key-value heads, head size and number of rows; the last is Qwen3-Coder-30B-A3B's.
pub fn cases() -> Vec<CaseSpec> {
    let shapes = [
        ([1, 1, 2], 1),
        ([3, 1, 7], 4),
        ([4, 2, 34], 5),
        ([5, 5, 32], 3),
        ([6, 2, 64], 7),
        ([32, 4, 128], 40),
    ];
    let case = |([heads, kv_heads, head_dim], rows): ([u32; 3], usize)| {
        let shape = AttentionShape {
            heads,
            kv_heads,
            head_dim,
            scale: 1.0,
        };
        let label = format!("{heads}+{kv_heads} heads of {head_dim}, {rows} rows");
        let columns = ((heads + 2 * kv_heads) * head_dim) as usize;
        CaseSpec::new(label, move || HeadNormCase {
            qkv: random_values(1, rows * columns, 3.0),
            rows,
            shape,
            weights: [2, 3].map(|seed| random_values(seed, head_dim as usize, 1.0)),
        })
    };
    shapes.into_iter().map(case).collect()
}
