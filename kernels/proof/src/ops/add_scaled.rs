//! `(a + b) * scale`.

mod device;

use std::sync::Arc;

use backstop_card::Device;
use backstop_kernels::InstructionSet;
use backstop_kernels::ops::add_scaled::AddScaledArgs;
use backstop_kernels::random::random_values;

use crate::catalog::{Case, CaseSpec, Cost, DeviceResult, Tolerance};

/// Naive sum.
pub fn reference(args: &AddScaledArgs<'_>, out: &mut [f32]) {
    args.check(out);
    for (index, out) in out.iter_mut().enumerate() {
        *out = (args.a[index] + args.b[index]) * args.scale;
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
        self.run(0..self.rows(), reference)
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
        Some(device::device(self, device))
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
