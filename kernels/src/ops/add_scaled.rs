//! `(a + b) * scale`.

#[expect(unsafe_code, reason = "launches are outside the compiler's view")]
pub mod cuda;

use std::sync::Arc;

use crate::catalog::{Case, CaseSpec, Cost, DeviceResult, Tolerance, random_values};
use crate::cuda::Device;
use crate::features::InstructionSet;
use crate::parallel;
use crate::simd::{self, Program, Simd};

/// Elements of one piece of work; any number does, since elements are independent.
const CHUNK: usize = 1024;

/// Arguments; both inputs and the output have the same shape.
#[derive(Clone, Copy, Debug)]
pub struct AddScaledArgs<'a> {
    /// First addend.
    pub a: &'a [f32],
    /// Second addend.
    pub b: &'a [f32],
    /// Factor on the sum.
    pub scale: f32,
}

impl AddScaledArgs<'_> {
    fn check(&self, out: &[f32]) {
        assert_eq!(self.a.len(), self.b.len(), "inputs of add_scaled");
        assert_eq!(self.a.len(), out.len(), "outputs of add_scaled");
    }

    /// Naive sum.
    pub fn reference(&self, out: &mut [f32]) {
        self.check(out);
        for (index, out) in out.iter_mut().enumerate() {
            *out = (self.a[index] + self.b[index]) * self.scale;
        }
    }

    /// The scaled sum.
    pub fn run(&self, instructions: InstructionSet, out: &mut [f32]) {
        self.check(out);
        parallel::for_each_chunk(out, CHUNK, |start, out| {
            let (a, b) = (&self.a[start..][..out.len()], &self.b[start..][..out.len()]);
            simd::dispatch(
                instructions,
                Chunk {
                    a,
                    b,
                    scale: self.scale,
                    out,
                },
            );
        });
    }
}

/// `a += b`.
pub fn add_assign(instructions: InstructionSet, a: &mut [f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "inputs of an addition");
    parallel::for_each_chunk(a, CHUNK, |start, a| {
        let b = &b[start..][..a.len()];
        simd::dispatch(instructions, AddAssign { a, b });
    });
}

struct Chunk<'a> {
    a: &'a [f32],
    b: &'a [f32],
    scale: f32,
    out: &'a mut [f32],
}

impl Program for Chunk<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for ((out, &a), &b) in self.out.iter_mut().zip(self.a).zip(self.b) {
            *out = (a + b) * self.scale;
        }
    }
}

struct AddAssign<'a> {
    a: &'a mut [f32],
    b: &'a [f32],
}

impl Program for AddAssign<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (a, &b) in self.a.iter_mut().zip(self.b) {
            *a += b;
        }
    }
}

struct AddScaledCase {
    a: Vec<f32>,
    b: Vec<f32>,
    columns: usize,
    scale: f32,
}

impl AddScaledCase {
    fn run(
        &self,
        rows: std::ops::Range<usize>,
        run: impl FnOnce(&AddScaledArgs<'_>, &mut [f32]),
    ) -> Vec<f32> {
        let range = rows.start * self.columns..rows.end * self.columns;
        let mut out = vec![0.0; range.len()];
        let (a, b) = (&self.a[range.clone()], &self.b[range]);
        run(
            &AddScaledArgs {
                a,
                b,
                scale: self.scale,
            },
            &mut out,
        );
        out
    }
}

impl Case for AddScaledCase {
    fn rows(&self) -> usize {
        self.a.len() / self.columns
    }

    fn reference(&self) -> Vec<f32> {
        self.run(0..self.rows(), |args, out| args.reference(out))
    }

    fn cpu(&self, instructions: InstructionSet) -> Vec<f32> {
        self.run(0..self.rows(), |args, out| args.run(instructions, out))
    }

    fn cpu_row(&self, instructions: InstructionSet, row: usize) -> Vec<f32> {
        self.run(row..row + 1, |args, out| args.run(instructions, out))
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::EXACT
    }

    fn cost(&self) -> Cost {
        Cost {
            multiply_adds: self.a.len(),
            bytes: 0,
        }
    }

    fn device<'a>(&'a self, device: &'a Arc<dyn Device>) -> Option<DeviceResult<'a>> {
        Some(cuda::device(self, device))
    }
}

/// Shapes `[rows, columns]`.
pub fn cases() -> Vec<CaseSpec> {
    let shapes = [(1, 1), (3, 7), (0, 5), (9, 2048), (150, 2048)];
    let case = |(rows, columns)| {
        CaseSpec::new(format!("[{rows}, {columns}]"), move || AddScaledCase {
            a: random_values(1, rows * columns, 1.0),
            b: random_values(2, rows * columns, 1.0),
            columns,
            scale: 0.25,
        })
    };
    shapes.into_iter().map(case).collect()
}
