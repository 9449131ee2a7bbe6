//! The thread that computes the batches of one encoder.

use std::panic::{AssertUnwindSafe, catch_unwind};

use backstop_types::{Encoder, EncoderInput, EncoderKind};

use super::batch::{EncoderFailed, Outcome, Part};
use super::queue::Shared;

/// Computes until the queue is over.
pub(super) fn run(queue: &Shared, encoder: &dyn Encoder) {
    while let Some(mut batch) = queue.next_batch() {
        let inputs = batch.iter_mut().flat_map(Part::take_inputs);
        let inputs: Vec<EncoderInput> = inputs.collect();
        let counts: Vec<usize> = batch.iter().map(Part::count).collect();
        let outcomes = compute(queue, encoder, &inputs, &counts);
        queue.ended(batch.into_iter().zip(outcomes).collect());
    }
}

/// Computes inputs of several requests, each of so many: together, or each request's alone if that fails, so that
/// none loses its answer by another's inputs.
fn compute(
    queue: &Shared,
    encoder: &dyn Encoder,
    inputs: &[EncoderInput],
    counts: &[usize],
) -> Vec<Outcome> {
    let together = encode(queue, encoder, inputs);
    let mut rest = inputs;
    match together {
        Ok(rows) => {
            let mut rows = rows.into_iter();
            let of_each = counts
                .iter()
                .map(|count| rows.by_ref().take(*count).collect());
            of_each.map(finite).collect()
        }
        Err(failed) if counts.len() == 1 => vec![Err(failed)],
        Err(_) => {
            let of_each = counts.iter().map(|count| {
                let own;
                (own, rest) = rest.split_at(*count);
                encode(queue, encoder, own).and_then(finite)
            });
            of_each.collect()
        }
    }
}

/// One row of the right length for each input, whatever the encoder does.
fn encode(queue: &Shared, encoder: &dyn Encoder, inputs: &[EncoderInput]) -> Outcome {
    queue.begins(inputs.iter().map(|input| input.tokens.len()).sum());
    let rows = match catch_unwind(AssertUnwindSafe(|| encoder.encode(inputs))) {
        Ok(Ok(rows)) => rows,
        Ok(Err(error)) => {
            tracing::error!(%error, inputs = inputs.len(), "an encoder failed");
            return Err(EncoderFailed);
        }
        Err(_) => {
            tracing::error!(inputs = inputs.len(), "an encoder panicked");
            return Err(EncoderFailed);
        }
    };
    let numbers = match encoder.facts().kind {
        EncoderKind::Embedding { dimensions, .. } => dimensions as usize,
        EncoderKind::Relevance => 1,
    };
    let is_right = rows.len() == inputs.len() && rows.iter().all(|row| row.len() == numbers);
    if !is_right {
        tracing::error!("an encoder gave other rows than it should");
    }
    is_right.then_some(rows).ok_or(EncoderFailed)
}

/// JSON has no infinity, and nobody could do anything with one.
fn finite(rows: Vec<Vec<f32>>) -> Outcome {
    let is_finite = rows.iter().flatten().all(|number| number.is_finite());
    if !is_finite {
        tracing::error!("an encoder gave numbers that are none");
    }
    is_finite.then_some(rows).ok_or(EncoderFailed)
}
