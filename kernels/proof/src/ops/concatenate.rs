//! Rows of two matrices beside one another, for draft heads.

use backstop_kernels::InstructionSet;
use backstop_kernels::ops::concatenate::ConcatenateArgs;
use backstop_kernels::random::{random_indices, random_values};

use crate::catalog::{Case, CaseSpec, Cost, Tolerance};

/// Element by element.
pub fn reference(args: &ConcatenateArgs<'_>, out: &mut [f32]) {
    args.check(out);
    for (index, out) in out.iter_mut().enumerate() {
        let (row, column) = (index / args.columns(), index % args.columns());
        *out = match column.checked_sub(args.left_columns) {
            None => args.left[row * args.left_columns + column],
            Some(column) => args.right[args.rows[row] as usize * args.right_columns + column],
        };
    }
}

struct ConcatenateCase {
    left: Vec<f32>,
    left_columns: usize,
    right: Vec<f32>,
    right_columns: usize,
    rows: Vec<u32>,
}

impl ConcatenateCase {
    fn run(
        &self,
        rows: std::ops::Range<usize>,
        run: impl FnOnce(&ConcatenateArgs<'_>, &mut [f32]),
    ) -> Vec<f32> {
        let args = ConcatenateArgs {
            left: &self.left[rows.start * self.left_columns..rows.end * self.left_columns],
            left_columns: self.left_columns,
            right: &self.right,
            right_columns: self.right_columns,
            rows: &self.rows[rows],
        };
        let mut out = vec![0.0; args.rows.len() * args.columns()];
        run(&args, &mut out);
        out
    }
}

impl Case for ConcatenateCase {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn reference(&self) -> Vec<f32> {
        self.run(0..self.rows(), reference)
    }

    fn cpu(&self, _: InstructionSet) -> Vec<f32> {
        self.run(0..self.rows(), |args, out| args.run(out))
    }

    fn cpu_row(&self, _: InstructionSet, row: usize) -> Vec<f32> {
        self.run(row..row + 1, |args, out| args.run(out))
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::EXACT
    }

    fn cost(&self) -> Cost {
        Cost {
            multiply_adds: self.rows.len() * (self.left_columns + self.right_columns),
            bytes: 0,
        }
    }
}

/// Shapes: rows, columns left and right, rows on the right.
pub fn cases() -> Vec<CaseSpec> {
    let shapes = [
        (1, 1, 1, 1),
        (3, 7, 5, 2),
        (0, 4, 4, 1),
        (9, 2048, 2048, 12),
        (150, 2048, 2048, 150),
    ];
    let case = |(rows, left_columns, right_columns, right_rows)| {
        let label = format!("[{rows}, {left_columns} + {right_columns}] of {right_rows}");
        CaseSpec::new(label, move || ConcatenateCase {
            left: random_values(1, rows * left_columns, 1.0),
            left_columns,
            right: random_values(2, right_rows * right_columns, 1.0),
            right_columns,
            rows: random_indices(3, rows, right_rows),
        })
    };
    shapes.into_iter().map(case).collect()
}
