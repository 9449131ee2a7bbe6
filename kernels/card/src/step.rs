//! What varies between steps: where it lies in device memory, and how it gets there.

use std::sync::Arc;

use backstop_kernels::Batch;

use super::buffer::DeviceBuffer;
use super::device::{Device, DeviceError, DevicePointer, Stream};
use super::layout::NONE;
use super::pinned::Pinned;
use crate::ops::head::LogitRows;

/// Inputs of the step's operations, all u32.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepInputs {
    /// `[rows]`: token ids, or slots whose last sampled token is meant.
    pub tokens: DevicePointer,
    /// `[rows]`.
    pub positions: DevicePointer,
    /// `[rows]`: `NONE` for rows that only fill up the batch.
    pub slots: DevicePointer,
    /// Rows whose logits are wanted, then `NONE`.
    pub logit_rows: DevicePointer,
    /// Nothing, and the number of logit rows.
    pub logit_counts: DevicePointer,
    /// `[slots]`: the token that each slot sampled last.
    pub last_token: DevicePointer,
}

/// The part of a step that is the same in all replays of a graph.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepShape {
    /// Rows, filling ones included.
    pub rows: usize,
    /// Rows that logits are computed for, filling ones included.
    pub logit_rows: usize,
    /// Slots of sequences.
    pub num_slots: usize,
    /// Where the inputs are.
    pub inputs: StepInputs,
}

/// Memory for the inputs of steps of up to so many rows.
pub struct StepMemory {
    device: Arc<dyn Device>,
    memory: DeviceBuffer,
    rows: usize,
    logit_rows: usize,
    last_token: DevicePointer,
    num_slots: usize,
}

impl StepMemory {
    /// Memory for steps of `rows` rows, with logits of `logit_rows` of them.
    pub fn new(
        device: &Arc<dyn Device>,
        [rows, logit_rows, num_slots]: [usize; 3],
        last_token: DevicePointer,
    ) -> Result<Self, DeviceError> {
        let bytes = Self::bytes(rows, logit_rows);
        Ok(Self {
            device: Arc::clone(device),
            memory: DeviceBuffer::filled(device, 0, bytes)?,
            rows,
            logit_rows,
            last_token,
            num_slots,
        })
    }

    /// Bytes that the inputs take.
    pub fn bytes(rows: usize, logit_rows: usize) -> usize {
        (4 + LogitRows::capacity(logit_rows) + 3 * rows) * 4
    }

    /// Where the inputs of steps of this shape lie.
    pub fn shape(&self, rows: usize, logit_rows: usize) -> StepShape {
        assert!(
            rows <= self.rows && logit_rows <= self.logit_rows,
            "size of a step"
        );
        let base = self.memory.pointer();
        let first = (4 + LogitRows::capacity(self.logit_rows)) * 4;
        let inputs = StepInputs {
            logit_counts: base,
            logit_rows: base.offset(16),
            tokens: base.offset(first),
            positions: base.offset(first + rows * 4),
            slots: base.offset(first + 2 * rows * 4),
            last_token: self.last_token,
        };
        StepShape {
            rows,
            logit_rows,
            num_slots: self.num_slots,
            inputs,
        }
    }

    /// Whether a shape's inputs lie here.
    pub fn holds(&self, shape: &StepShape) -> bool {
        shape.inputs.logit_counts == self.memory.pointer()
    }

    /// Queues the upload of a batch for a step of this shape.
    pub fn upload(
        &self,
        batch: &Batch,
        shape: &StepShape,
        staging: &mut Pinned,
    ) -> Result<(), DeviceError> {
        let (rows, wanted) = (batch.tokens.len(), batch.logit_rows.len());
        assert!(
            rows <= shape.rows && wanted <= shape.logit_rows,
            "rows of a step"
        );
        let mut words = WordWriter::new(staging.as_mut_slice());
        words.push(&[0, wanted as u32, 0, 0]);
        words.push(&batch.logit_rows);
        words.fill(NONE, LogitRows::capacity(self.logit_rows) - wanted);
        let filling = shape.rows - rows;
        words.push(&batch.tokens);
        words.fill(0, filling);
        words.push(&batch.positions);
        words.fill(0, filling);
        for sequence in &batch.sequences {
            words.fill(sequence.slot, sequence.rows.len());
        }
        words.fill(NONE, filling);
        let bytes = words.bytes();
        // SAFETY: the memory has room for a step of this shape, and the staging memory stays as it
        // is until the step is done.
        unsafe {
            let from = staging.pointer();
            self.device
                .upload(Stream::Main, self.memory.pointer(), from, bytes)
        }
    }
}

/// Writes u32 one after the other.
struct WordWriter<'a> {
    memory: &'a mut [u8],
    bytes: usize,
}

impl<'a> WordWriter<'a> {
    fn new(memory: &'a mut [u8]) -> Self {
        Self { memory, bytes: 0 }
    }

    fn push(&mut self, words: &[u32]) {
        for word in words {
            self.memory[self.bytes..self.bytes + 4].copy_from_slice(&word.to_ne_bytes());
            self.bytes += 4;
        }
    }

    fn fill(&mut self, word: u32, count: usize) {
        for _ in 0..count {
            self.push(&[word]);
        }
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}
