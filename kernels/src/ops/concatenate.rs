//! Rows of two matrices beside one another, for draft heads.

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
    /// Columns of the output.
    pub fn columns(&self) -> usize {
        self.left_columns + self.right_columns
    }

    /// Panics unless the parts agree.
    pub fn check(&self, out: &[f32]) {
        let rows = self.rows.len();
        assert_eq!(self.left.len(), rows * self.left_columns, "left rows");
        assert_eq!(out.len(), rows * self.columns(), "rows of concatenate");
        let right = self.right.len() / self.right_columns;
        assert!(
            self.rows.iter().all(|&row| (row as usize) < right),
            "right rows"
        );
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
