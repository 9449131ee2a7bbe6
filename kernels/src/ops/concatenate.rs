//! Rows of two matrices beside one another, for draft heads.

use crate::catalog::{Case, CaseSpec, Cost, Tolerance, random_indices, random_values};
use crate::features::InstructionSet;
use crate::parallel;

/// Arguments: row `i` of the output, `[rows, left_columns + right_columns]`, is row `i` of `left`
/// and behind it row `rows[i]` of `right`.
#[derive(Clone, Copy, Debug)]
pub struct ConcatenateArgs<'a> {
    /// `[rows, left_columns]`.
    pub left: &'a [f32],
    /// Columns of `left`; at least 1.
    pub left_columns: usize,
    /// Any number of rows of `right_columns`.
    pub right: &'a [f32],
    /// Columns of `right`; at least 1.
    pub right_columns: usize,
    /// A row of `right` for each row of `left`.
    pub rows: &'a [u32],
}

impl ConcatenateArgs<'_> {
    fn columns(&self) -> usize {
        self.left_columns + self.right_columns
    }

    fn check(&self, out: &[f32]) {
        let rows = self.rows.len();
        assert_eq!(self.left.len(), rows * self.left_columns, "left rows");
        assert_eq!(out.len(), rows * self.columns(), "rows of concatenate");
        let right = self.right.len() / self.right_columns;
        assert!(
            self.rows.iter().all(|&row| (row as usize) < right),
            "right rows"
        );
    }

    /// Element by element.
    pub fn reference(&self, out: &mut [f32]) {
        self.check(out);
        for (index, out) in out.iter_mut().enumerate() {
            let (row, column) = (index / self.columns(), index % self.columns());
            *out = match column.checked_sub(self.left_columns) {
                None => self.left[row * self.left_columns + column],
                Some(column) => self.right[self.rows[row] as usize * self.right_columns + column],
            };
        }
    }

    /// Row by row; there is nothing to compute, so that all instructions are as good.
    pub fn run(&self, out: &mut [f32]) {
        self.check(out);
        let work = out.len();
        parallel::for_each_rows(out, self.columns(), work, |first, out| {
            for (row, out) in (first..).zip(out.chunks_exact_mut(self.columns())) {
                let (left, right) = out.split_at_mut(self.left_columns);
                let start = row * self.left_columns;
                left.copy_from_slice(&self.left[start..][..self.left_columns]);
                let start = self.rows[row] as usize * self.right_columns;
                right.copy_from_slice(&self.right[start..][..self.right_columns]);
            }
        });
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
        self.run(0..self.rows(), |args, out| args.reference(out))
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
