//! Reads logits in the host's memory, for devices that leave that to it.

use std::cell::RefCell;
use std::sync::Arc;

use backstop_kernels::{SampleArgs, SampleScratch, rate, sample};
use backstop_types::{SampleFault, SampledToken, TokenId};
use rayon::prelude::*;

use crate::device::{LogitRow, RowResult, SampleRow, StepFault, StepResults};

/// Rows of logits of a step if few sequences may run: prompts are rated this many tokens at a time.
const MIN_LOGIT_ROWS: u32 = 64;

thread_local! {
    /// Of the thread that samples a row.
    static SCRATCH: RefCell<SampleScratch> = RefCell::default();
}

/// Rows of logits of a step with so many sequences.
pub(crate) fn logit_rows(max_num_seqs: u32) -> u32 {
    max_num_seqs.max(MIN_LOGIT_ROWS)
}

/// Reads `logits`, `[rows, vocabulary]`, on the threads of the calling one's pool.
pub(crate) fn sample_rows(
    logits: &[f32],
    vocabulary: usize,
    rows: &[LogitRow<'_>],
) -> Arc<dyn StepResults> {
    let logits = logits.par_chunks_exact(vocabulary);
    let results = rows.par_iter().zip(logits).map(|(row, logits)| {
        SCRATCH.with_borrow_mut(|scratch| match row {
            LogitRow::Rating {
                token,
                alternatives,
            } => rate_token(logits, *token, *alternatives, scratch),
            LogitRow::Sample(row) => sample_token(logits, row, scratch),
        })
    });
    Arc::new(Sampled(results.collect()))
}

/// The results of a step, which is done.
struct Sampled(Vec<RowResult>);

impl StepResults for Sampled {
    fn wait(&self) -> Result<Vec<RowResult>, StepFault> {
        Ok(self.0.clone())
    }
}

fn rate_token(
    logits: &[f32],
    token: TokenId,
    alternatives: u32,
    scratch: &mut SampleScratch,
) -> RowResult {
    let logprobs = rate(logits, token, alternatives, scratch).ok_or(SampleFault::NotANumber)?;
    Ok(SampledToken {
        id: token,
        logprobs: Some(logprobs),
    })
}

fn sample_token(logits: &[f32], row: &SampleRow<'_>, scratch: &mut SampleScratch) -> RowResult {
    let (prompt, output) = row.tokens.split_at(row.prompt_len);
    let args = SampleArgs {
        logits,
        params: row.params,
        prompt,
        output,
        masked: row.masked,
        allowed: row.allowed,
        position: row.tokens.len() as u32,
    };
    sample(&args, scratch).ok_or_else(|| {
        let usable = logits.iter().all(|&logit| logit < f32::INFINITY);
        match row.allowed.is_some() && usable {
            true => SampleFault::Constraint,
            false => SampleFault::NotANumber,
        }
    })
}
