//! How much memory a step takes beside weights and KV cache: an estimate from above, for candle allocates as it goes.

use crate::attention::{PAIRS_MAX, POSITIONS_MAX};
use crate::device::CandleDevice;

/// Bytes of an F32.
const BYTES: usize = 4;
/// Activations as wide as the widest that an operation has at once: inputs, outputs and the copies between.
const WIDE_ACTIVATIONS: usize = 6;
/// Copies of scores, and of gathered keys and values, that attention has at once.
const ATTENTION_COPIES: usize = 4;
/// Copies of logits: products, their rounding, and what the host reads.
const LOGITS_COPIES: usize = 3;

/// What decides it.
#[derive(Clone, Copy, Debug)]
pub struct StepSizes {
    /// Tokens of a step.
    pub rows: usize,
    /// Rows of logits of a step.
    pub logit_rows: usize,
    /// Positions of a sequence.
    pub positions: usize,
    /// Inputs or outputs that any matrix has, but for the output head.
    pub widest: usize,
    /// Experts of a token.
    pub experts_per_token: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Query heads of a layer.
    pub heads: usize,
    /// Numbers that a layer caches for a position.
    pub position_numbers: usize,
}

impl CandleDevice {
    /// Bytes that the largest step takes.
    pub fn work_bytes(&self, sizes: &StepSizes) -> u64 {
        let rows = sizes.rows * sizes.experts_per_token.max(1);
        let activations = rows * sizes.widest * WIDE_ACTIVATIONS;
        let scores = PAIRS_MAX.max(sizes.positions) * sizes.heads;
        let gathered = POSITIONS_MAX.max(sizes.positions) * sizes.position_numbers;
        let attention = (scores + gathered) * ATTENTION_COPIES;
        let logits = sizes.logit_rows * sizes.vocabulary * LOGITS_COPIES;
        ((activations + attention + logits) * BYTES) as u64
    }
}
