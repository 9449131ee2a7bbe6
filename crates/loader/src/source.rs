//! Rows of a weight, as a checkpoint stores them.

use std::ops::Range;

use backstop_kernels::{PANEL_ROWS, WeightFormat};
use backstop_weights::{Checkpoint, LoadProblem, QuantizedMatrix, TensorInfo};

use crate::{blocks, format};

/// Consecutive rows of one weight, and the tensors that hold them and nothing else.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) stored: Stored,
    /// How the rows lie in memory.
    pub(crate) format: WeightFormat,
    /// How many.
    pub(crate) rows: usize,
    /// Numbers of each.
    pub(crate) columns: usize,
    /// Rows that change places among themselves, and so are read together: one, or those of a matrix.
    pub(crate) unit_rows: usize,
    /// Every other row of a unit belongs behind all the others.
    pub(crate) in_turns: bool,
    /// Units are stored with columns before rows.
    pub(crate) columns_first: bool,
}

/// What holds the rows.
#[derive(Clone, Debug)]
pub(crate) enum Stored {
    /// A tensor of numbers, or blocks, as they lie in memory.
    Tensor(String),
    /// A tensor of one number, which all rows have.
    One(String),
    /// Codes and scales.
    Codes(QuantizedMatrix),
}

impl Source {
    pub(crate) fn new(stored: Stored, format: WeightFormat, [rows, columns]: [usize; 2]) -> Self {
        Self {
            stored,
            format,
            rows,
            columns,
            unit_rows: 1,
            in_turns: false,
            columns_first: false,
        }
    }

    /// A tensor, which the census has found, with `[rows, columns]` as they lie in memory.
    pub(crate) fn tensor(checkpoint: &Checkpoint, name: &str, shape: [usize; 2]) -> Self {
        let format = format::of_element(found(checkpoint, name).element_type);
        Self::new(Stored::Tensor(name.to_owned()), format, shape)
    }

    /// The tensor that it is named after in messages.
    pub(crate) fn name(&self) -> &str {
        match &self.stored {
            Stored::Tensor(name) | Stored::One(name) => name,
            Stored::Codes(matrix) => &matrix.codes,
        }
    }

    /// Bytes of a row in memory.
    pub(crate) fn row_bytes(&self) -> usize {
        self.format.bytes_of(self.columns)
    }

    /// Some of its rows in strips of whole units, of at most so many bytes if they have several.
    pub(crate) fn strips(
        &self,
        rows: Range<usize>,
        bytes: usize,
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        self.strips_of(rows, bytes, self.unit_rows)
    }

    /// The same in strips that are whole panels as well, but for the last.
    pub(crate) fn strips_of_panels(
        &self,
        rows: Range<usize>,
        bytes: usize,
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        // The smallest number of units that are whole panels: both numbers' factors of two decide.
        let shared = 1 << self.unit_rows.trailing_zeros().min(PANEL_ROWS.ilog2());
        self.strips_of(rows, bytes, self.unit_rows * (PANEL_ROWS / shared))
    }

    fn strips_of(
        &self,
        rows: Range<usize>,
        bytes: usize,
        together: usize,
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        let units = bytes / (together * self.row_bytes()).max(1);
        let step = units.max(1) * together;
        let starts = rows.clone().step_by(step);
        starts.map(move |first| first..(first + step).min(rows.end))
    }

    /// Where a row lies: the weight file, and about the place in that.
    pub(crate) fn position(&self, checkpoint: &Checkpoint, row: usize) -> (usize, u64) {
        let tensor = found(checkpoint, self.name());
        let (file, start) = tensor.position();
        (file, start + self.share(tensor.bytes, row))
    }

    /// Bytes that rows have in the files. Those of all rows are the tensors'.
    pub(crate) fn stored_bytes(&self, checkpoint: &Checkpoint, rows: &Range<usize>) -> u64 {
        let bytes = |name: &str| found(checkpoint, name).bytes;
        let scales = match &self.stored {
            Stored::Codes(matrix) => bytes(&matrix.scales),
            _ => 0,
        };
        let all = bytes(self.name()) + scales;
        self.share(all, rows.end) - self.share(all, rows.start)
    }

    fn share(&self, bytes: u64, rows: usize) -> u64 {
        bytes * rows as u64 / self.rows.max(1) as u64
    }

    /// Reads rows, which are whole units, into `out`, which has their size.
    pub(crate) fn read_rows(
        &self,
        checkpoint: &Checkpoint,
        rows: Range<usize>,
        out: &mut [u8],
    ) -> Result<(), LoadProblem> {
        if self.unit_rows == 1 {
            return self.read_stored(checkpoint, rows, out);
        }
        let mut stored = vec![0; out.len()];
        self.read_stored(checkpoint, rows, &mut stored)?;
        let unit_bytes = self.unit_rows * self.row_bytes();
        let units = stored.chunks_exact(unit_bytes);
        for (stored, out) in units.zip(out.chunks_exact_mut(unit_bytes)) {
            match (self.columns_first, self.format.bytes_of(1)) {
                (true, 4) => self.turn::<4>(stored, out),
                (true, _) => self.turn::<2>(stored, out),
                (false, _) => self.order_rows(stored, out),
            }
        }
        Ok(())
    }

    /// The same for rows of single numbers, widened.
    pub(crate) fn read_numbers(
        &self,
        checkpoint: &Checkpoint,
        rows: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), LoadProblem> {
        let mut bytes = vec![0; out.len() * self.row_bytes()];
        self.read_rows(checkpoint, rows, &mut bytes)?;
        self.format.widen(&bytes, out);
        Ok(())
    }

    /// Reads rows in the order in which they are stored.
    fn read_stored(
        &self,
        checkpoint: &Checkpoint,
        rows: Range<usize>,
        out: &mut [u8],
    ) -> Result<(), LoadProblem> {
        let row_bytes = self.row_bytes();
        match &self.stored {
            Stored::Tensor(name) => {
                checkpoint.read_part(name, (rows.start * row_bytes) as u64, out)
            }
            Stored::One(name) => {
                let mut number = vec![0; row_bytes];
                checkpoint.read_part(name, 0, &mut number)?;
                let places = out.chunks_exact_mut(row_bytes);
                places.for_each(|place| place.copy_from_slice(&number));
                Ok(())
            }
            Stored::Codes(matrix) => blocks::read(checkpoint, matrix, self.format, rows, out),
        }
    }

    /// The row of a unit that a stored one becomes.
    fn place(&self, row: usize) -> usize {
        match self.in_turns {
            true => row / 2 + row % 2 * (self.unit_rows / 2),
            false => row,
        }
    }

    /// Brings the rows of a unit into their order.
    fn order_rows(&self, stored: &[u8], out: &mut [u8]) {
        let row_bytes = self.row_bytes();
        for (row, stored) in stored.chunks_exact(row_bytes).enumerate() {
            out[self.place(row) * row_bytes..][..row_bytes].copy_from_slice(stored);
        }
    }

    /// The same for numbers of `SIZE` bytes with columns before rows.
    fn turn<const SIZE: usize>(&self, stored: &[u8], out: &mut [u8]) {
        let (stored, out) = (stored.as_chunks::<SIZE>().0, out.as_chunks_mut::<SIZE>().0);
        // As many rows at once as their cache lines allow.
        const ROWS: usize = 64;
        for first in (0..self.unit_rows).step_by(ROWS) {
            let last = (first + ROWS).min(self.unit_rows);
            for (column, stored) in stored.chunks_exact(self.unit_rows).enumerate() {
                for row in first..last {
                    out[self.place(row) * self.columns + column] = stored[row];
                }
            }
        }
    }
}

/// Rows of all these.
pub(crate) fn rows_of(sources: &[Source]) -> usize {
    sources.iter().map(|source| source.rows).sum()
}

/// A tensor that the census has found.
pub(crate) fn found<'a>(checkpoint: &'a Checkpoint, name: &str) -> &'a TensorInfo {
    let tensor = checkpoint.tensor(name);
    tensor.expect("the census found every required tensor")
}
