//! Rotary position embedding, in place, over queries and keys.

mod device;

use std::sync::Arc;

use backstop_card::Device;
use backstop_kernels::backend::{AttentionShape, Rope, RopePairing, RopeScaling};
use backstop_kernels::ops::rope::{RopeArgs, RopeTable};
use backstop_kernels::random::{random_indices, random_values};
use backstop_kernels::{Element, InstructionSet};

use crate::catalog::{Case, CaseSpec, Cost, DeviceResult, Tolerance};

/// Naive rotation in f64.
pub fn reference(args: RopeArgs<'_>) {
    args.check();
    let (head_dim, columns) = (args.shape.head_dim as usize, args.columns());
    let half_dim = args.table.half_dim;
    let rotated = (args.shape.heads + args.shape.kv_heads) as usize;
    for (row, values) in args.qkv.chunks_exact_mut(columns).enumerate() {
        let (cosines, sines) = args.table.row(row);
        for head in values.chunks_exact_mut(head_dim).take(rotated) {
            for index in 0..half_dim {
                let (first, second) = match args.table.pairing {
                    RopePairing::Interleaved => (2 * index, 2 * index + 1),
                    RopePairing::Halves => (index, index + half_dim),
                };
                let (x, y) = (f64::from(head[first]), f64::from(head[second]));
                let (cosine, sine) = (f64::from(cosines[index]), f64::from(sines[index]));
                head[first] = (x * cosine - y * sine) as f32;
                head[second] = (y * cosine + x * sine) as f32;
            }
        }
    }
}

/// Base of the cases.
const CASE_THETA: f32 = 5e4;

struct RopeCase {
    qkv: Vec<f32>,
    positions: Vec<u32>,
    shape: AttentionShape,
    rope: Rope,
}

impl RopeCase {
    fn run(&self, rows: std::ops::Range<usize>, run: impl FnOnce(RopeArgs<'_>)) -> Vec<f32> {
        self.run_with(&self.qkv, rows, run)
    }

    /// The given rows of `qkv`, rotated.
    fn run_with(
        &self,
        qkv: &[f32],
        rows: std::ops::Range<usize>,
        run: impl FnOnce(RopeArgs<'_>),
    ) -> Vec<f32> {
        let columns = qkv.len() / self.positions.len();
        let mut qkv = qkv[rows.start * columns..rows.end * columns].to_vec();
        run(RopeArgs {
            qkv: &mut qkv,
            shape: self.shape,
            table: &RopeTable::new(&self.positions[rows], &self.rope),
        });
        qkv
    }
}

impl Case for RopeCase {
    fn rows(&self) -> usize {
        self.positions.len()
    }

    fn reference(&self) -> Vec<f32> {
        self.run(0..self.rows(), reference)
    }

    fn cpu(&self, instructions: InstructionSet) -> Vec<f32> {
        self.run(0..self.rows(), |args| args.run(instructions))
    }

    fn cpu_row(&self, instructions: InstructionSet, row: usize) -> Vec<f32> {
        self.run(row..row + 1, |args| args.run(instructions))
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

/// Heads, key-value heads, head size, rotated elements of it, and number of rows.
pub fn cases() -> Vec<CaseSpec> {
    let shapes = [
        ([1, 1, 2], 2, 1),
        ([3, 1, 6], 6, 4),
        ([4, 2, 34], 34, 5),
        ([2, 1, 34], 22, 5),
        ([5, 5, 32], 32, 3),
        ([6, 2, 64], 64, 7),
        ([6, 2, 64], 32, 7),
        ([32, 4, 128], 128, 40),
    ];
    let mut cases = Vec::new();
    for (heads, dimensions, rows) in shapes {
        for pairing in [RopePairing::Interleaved, RopePairing::Halves] {
            let rope = case_rope(dimensions, pairing, RopeScaling::None);
            cases.push(case(heads, rows, rope));
        }
    }
    for scaling in scalings() {
        let rope = case_rope(64, RopePairing::Halves, scaling);
        cases.push(case([3, 1, 64], 9, rope));
    }
    for rows in [1, 8, 64, 256, 8192] {
        let rope = case_rope(128, RopePairing::Interleaved, RopeScaling::None);
        cases.push(case([32, 4, 128], rows, rope).only_for_benchmarks());
    }
    cases
}

fn case_rope(dimensions: u32, pairing: RopePairing, scaling: RopeScaling) -> Rope {
    Rope {
        theta: CASE_THETA,
        dimensions,
        pairing,
        scaling,
    }
}

/// One of each kind that changes something.
fn scalings() -> [RopeScaling; 3] {
    [
        RopeScaling::Linear { factor: 4.0 },
        RopeScaling::Llama3 {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_positions: 8192.0,
        },
        RopeScaling::Yarn {
            factor: 32.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            original_positions: 4096.0,
            truncate: false,
            magnitude: 1.346_573_6,
        },
    ]
}

fn case([heads, kv_heads, head_dim]: [u32; 3], rows: usize, rope: Rope) -> CaseSpec {
    let shape = AttentionShape {
        heads,
        kv_heads,
        head_dim,
        scale: 1.0,
    };
    let label = format!("{heads}+{kv_heads} heads of {head_dim}, {rows} rows, {rope:?}");
    let columns = ((heads + 2 * kv_heads) * head_dim) as usize;
    CaseSpec::new(label, move || RopeCase {
        qkv: random_values(1, rows * columns, 1.0),
        positions: random_indices(2, rows, 100_000),
        shape,
        rope,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: AttentionShape = AttentionShape {
        heads: 1,
        kv_heads: 1,
        head_dim: 64,
        scale: 1.0,
    };

    /// Query and key of one row, rotated for a position.
    fn rotated(qkv: &[f32], position: u32, pairing: RopePairing) -> (Vec<f32>, Vec<f32>) {
        let mut qkv = qkv.to_vec();
        let rope = case_rope(64, pairing, RopeScaling::None);
        RopeArgs {
            qkv: &mut qkv,
            shape: SHAPE,
            table: &RopeTable::new(&[position], &rope),
        }
        .run(InstructionSet::detect());
        (qkv[..64].to_vec(), qkv[64..128].to_vec())
    }

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn products_depend_on_the_distance_alone() {
        let qkv = random_values(1, 192, 1.0);
        for pairing in [RopePairing::Interleaved, RopePairing::Halves] {
            let near = dot(&rotated(&qkv, 17, pairing).0, &rotated(&qkv, 5, pairing).1);
            let far = dot(
                &rotated(&qkv, 1017, pairing).0,
                &rotated(&qkv, 1005, pairing).1,
            );
            assert!((near - far).abs() < 1e-2, "{near} {far}");
            let norm = dot(
                &rotated(&qkv, 900, pairing).0,
                &rotated(&qkv, 900, pairing).0,
            );
            assert!((norm - dot(&qkv[..64], &qkv[..64])).abs() < 1e-3);
        }
    }

    #[test]
    fn position_0_and_values_and_the_end_of_heads_are_left_alone() {
        let qkv = random_values(1, 192, 1.0);
        let mut copy = qkv.clone();
        for (position, dimensions) in [(0, 64), (77, 64), (77, 48)] {
            copy.copy_from_slice(&qkv);
            let rope = case_rope(dimensions, RopePairing::Halves, RopeScaling::None);
            RopeArgs {
                qkv: &mut copy,
                shape: SHAPE,
                table: &RopeTable::new(&[position], &rope),
            }
            .run(InstructionSet::detect());
            let rotated = dimensions as usize;
            assert_eq!(position == 0, copy[..rotated] == qkv[..rotated]);
            for start in [0, 64] {
                let behind = start + rotated..start + 64;
                assert_eq!(copy[behind.clone()], qkv[behind]);
            }
            assert_eq!(copy[128..], qkv[128..]);
        }
    }
}
