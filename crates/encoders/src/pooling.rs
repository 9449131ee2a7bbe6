//! Hidden states of a text to one vector, as sentence-transformers 6 does.

use candle_core::{Result, Tensor};

use crate::attention::joined;
use crate::batch::Batch;

/// How a text's hidden states become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PoolingMode {
    /// The first token's.
    Cls,
    /// The greatest of each number.
    Max,
    Mean,
    /// The sum over the root of the number of tokens.
    MeanSqrtLength,
    /// Weighted with 1 for the first token, 2 for the second, and so on.
    WeightedMean,
    Last,
}

impl PoolingMode {
    /// All of them, with their names in `pooling_mode`, and the older fields of their own; in the order in which several
    /// are put one behind another.
    pub(crate) const NAMES: [(Self, &'static str, &'static str); 6] = [
        (Self::Cls, "cls", "pooling_mode_cls_token"),
        (Self::Max, "max", "pooling_mode_max_tokens"),
        (Self::Mean, "mean", "pooling_mode_mean_tokens"),
        (
            Self::MeanSqrtLength,
            "mean_sqrt_len_tokens",
            "pooling_mode_mean_sqrt_len_tokens",
        ),
        (
            Self::WeightedMean,
            "weightedmean",
            "pooling_mode_weightedmean_tokens",
        ),
        (Self::Last, "lasttoken", "pooling_mode_lasttoken"),
    ];
}

/// From `[tokens, width]` to `[texts, width]`.
pub(crate) fn pool(mode: PoolingMode, hidden: &Tensor, batch: &Batch<'_>) -> Result<Tensor> {
    let width = hidden.dim(1)?;
    let runs = batch.runs.iter().map(|run| {
        let rows = hidden.narrow(0, run.start, run.texts * run.length)?;
        let texts = rows.reshape((run.texts, run.length, width))?;
        match mode {
            PoolingMode::Cls => texts.narrow(1, 0, 1)?.squeeze(1)?.contiguous(),
            PoolingMode::Last => texts.narrow(1, run.length - 1, 1)?.squeeze(1)?.contiguous(),
            PoolingMode::Max => texts.max(1),
            PoolingMode::Mean => texts.sum(1)? / run.length as f64,
            PoolingMode::MeanSqrtLength => texts.sum(1)? / (run.length as f64).sqrt(),
            PoolingMode::WeightedMean => {
                let weights = Tensor::arange(1u32, run.length as u32 + 1, hidden.device())?
                    .to_dtype(hidden.dtype())?
                    .reshape((1, run.length, 1))?;
                let total = (run.length * (run.length + 1) / 2) as f64;
                texts.broadcast_mul(&weights)?.sum(1)? / total
            }
        }
    });
    joined(&runs.collect::<Result<Vec<_>>>()?, 0)
}
