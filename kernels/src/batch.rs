//! What one step computes: tokens, their positions, whose they are, and which logits are wanted.

use std::ops::Range;

/// The rows of one step, sequence after sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token id of each row.
    pub tokens: Vec<u32>,
    /// Position of each row in its sequence.
    pub positions: Vec<u32>,
    /// Whose the rows are; together they cover all rows, in order and without gaps.
    pub sequences: Vec<BatchSequence>,
    /// Rows whose logits are wanted; logits come out in this order.
    pub logit_rows: Vec<u32>,
}

/// The rows of one sequence: consecutive positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSequence {
    /// Its rows in the batch; at least one.
    pub rows: Range<u32>,
    /// Position of its first row.
    pub first_position: u32,
    /// Which block tables are its own: entry `[group][slot]` of the tables given with the batch.
    pub slot: u32,
}

impl BatchSequence {
    /// Positions that the sequence has after this step.
    pub fn end_position(&self) -> u32 {
        self.first_position + (self.rows.end - self.rows.start)
    }
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all rows, keeps the memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.logit_rows.clear();
    }

    /// Adds a sequence that computes `tokens` at `first_position ..`; with `samples`, the logits
    /// of its last row are wanted.
    pub fn push(&mut self, slot: u32, first_position: u32, tokens: &[u32], samples: bool) {
        let first_row = self.rows();
        self.tokens.extend_from_slice(tokens);
        let rows = first_row..self.rows();
        assert!(!rows.is_empty(), "a sequence of the batch has no rows");
        self.positions
            .extend(first_position..first_position + (rows.end - rows.start));
        if samples {
            self.logit_rows.push(rows.end - 1);
        }
        self.sequences.push(BatchSequence {
            rows,
            first_position,
            slot,
        });
    }

    /// Number of rows.
    pub fn rows(&self) -> u32 {
        self.tokens.len() as u32
    }

    /// Panics unless the parts agree with one another.
    pub fn check(&self) {
        assert_eq!(
            self.tokens.len(),
            self.positions.len(),
            "one position for each token"
        );
        let mut row = 0;
        for sequence in &self.sequences {
            assert_eq!(
                sequence.rows.start, row,
                "sequences cover the rows in order"
            );
            assert!(
                sequence.rows.end > row,
                "a sequence of the batch has no rows"
            );
            row = sequence.rows.end;
            assert!(row <= self.rows(), "a sequence reaches past the last row");
            let rows = sequence.rows.start as usize..row as usize;
            let expected = sequence.first_position..sequence.end_position();
            assert!(
                self.positions[rows].iter().copied().eq(expected),
                "positions of a sequence are consecutive"
            );
        }
        assert_eq!(row, self.rows(), "every row belongs to a sequence");
        assert!(
            self.logit_rows.iter().all(|&row| row < self.rows()),
            "logits are wanted of a row that the batch lacks"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushed_sequences_agree() {
        let mut batch = Batch::new();
        batch.push(3, 0, &[1, 2, 3], false);
        batch.push(0, 17, &[9], true);
        batch.check();
        assert_eq!(batch.positions, [0, 1, 2, 17]);
        assert_eq!(batch.logit_rows, [3]);
        assert_eq!(batch.sequences[1].end_position(), 18);
        batch.clear();
        batch.check();
    }

    #[test]
    #[should_panic(expected = "consecutive")]
    fn positions_must_be_consecutive() {
        let mut batch = Batch::new();
        batch.push(0, 4, &[1, 2], false);
        batch.positions[1] = 7;
        batch.check();
    }
}
