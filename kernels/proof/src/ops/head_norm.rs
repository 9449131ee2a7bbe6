//! RMSNorm over each head of the queries and keys, in place.

mod device;

use std::ops::Range;
use std::sync::Arc;

use backstop_card::Device;
use backstop_kernels::backend::AttentionShape;
use backstop_kernels::ops::head_norm::{HeadNormArgs, weight_of};
use backstop_kernels::random::random_values;
use backstop_kernels::{Element, InstructionSet};

use crate::catalog::{Case, CaseSpec, Cost, DeviceResult, Tolerance};

/// Naive norm in f64.
pub fn reference(args: HeadNormArgs<'_>) {
    args.check();
    let (head_dim, columns) = (args.shape.head_dim as usize, args.columns());
    for row in args.qkv.chunks_exact_mut(columns) {
        for (head, values) in row.chunks_exact_mut(head_dim).enumerate() {
            let Some(weight) = weight_of(args.shape, args.weights, head) else {
                break;
            };
            let squares = values.iter().map(|&value| f64::from(value).powi(2));
            let mean = squares.sum::<f64>() / head_dim as f64;
            let factor = 1.0 / (mean + f64::from(args.epsilon)).sqrt();
            for (value, &weight) in values.iter_mut().zip(weight) {
                *value = (f64::from(*value) * factor * f64::from(weight)) as f32;
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
        self.run_with(&self.qkv, 0..self.rows, reference)
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
        device::device(self, device)
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
