//! A step on its way, and what comes of it.

use std::sync::Arc;

use backstop_types::{
    PromptLogprobs, SampleFault, SampledToken, ScheduledSequence, StepOutcome, StepPlan, TokenId,
    TokenLogprobs, TokenSample,
};

use crate::device::{RowResult, StepFault, StepResults};

/// A step whose sampling is queued, if not done.
pub(crate) struct QueuedStep {
    /// Counts the worker's steps.
    pub(crate) number: u64,
    /// As it is computed: without guesses that the device cannot check.
    pub(crate) plan: StepPlan,
    /// Its rows' results: of each sequence first those that rate a token, then those that sample.
    pub(crate) results: Arc<dyn StepResults>,
    /// For each sequence; empty if nothing proposes tokens.
    pub(crate) proposals: Vec<Vec<TokenId>>,
}

impl QueuedStep {
    /// Whether it is open how many tokens some sequence has after this step.
    pub(crate) fn has_guesses(&self) -> bool {
        let mut sequences = self.plan.sequences.iter();
        sequences.any(|scheduled| !scheduled.draft.is_empty())
    }

    /// The sequences that it samples.
    pub(crate) fn sampling(&self) -> impl Iterator<Item = &ScheduledSequence> {
        let sequences = self.plan.sequences.iter();
        sequences.filter(|scheduled| scheduled.samples)
    }

    /// Waits for it.
    pub(crate) fn outcome(&self) -> Result<StepOutcome, StepFault> {
        let mut rows = self.results.wait()?.into_iter();
        let mut take = |count: usize| rows.by_ref().take(count).collect::<Vec<_>>();
        let mut outcome = StepOutcome {
            plan: self.plan.id,
            samples: Vec::new(),
            prompt_logprobs: Vec::new(),
        };
        for (index, scheduled) in self.plan.sequences.iter().enumerate() {
            if !scheduled.rated.is_empty() {
                outcome.prompt_logprobs.push(PromptLogprobs {
                    sequence: scheduled.sequence,
                    tokens: take(scheduled.rated.len())
                        .into_iter()
                        .map(rating)
                        .collect(),
                });
            }
            if scheduled.samples {
                let mut sample = accept(scheduled, take(1 + scheduled.draft.len()));
                sample.proposal = self.proposals.get(index).cloned().unwrap_or_default();
                outcome.samples.push(sample);
            }
        }
        Ok(outcome)
    }
}

fn rating(row: RowResult) -> Result<TokenLogprobs, SampleFault> {
    row.and_then(|token| token.logprobs.ok_or(SampleFault::NotANumber))
}

/// The next token of a sequence, and those behind it for as long as guesses are right. Each was
/// sampled as if it were alone, so that guesses never change what is said.
fn accept(scheduled: &ScheduledSequence, rows: Vec<RowResult>) -> TokenSample {
    let mut rows = rows.into_iter();
    let token = rows.next().expect("a row for each sample");
    let mut last = token.as_ref().ok().map(|token| token.id);
    let mut further: Vec<SampledToken> = Vec::new();
    for (&guess, row) in scheduled.draft.iter().zip(rows) {
        // A fault behind the first token is found again by the next step.
        let (true, Ok(token)) = (last == Some(guess), row) else {
            break;
        };
        last = Some(token.id);
        further.push(token);
    }
    TokenSample {
        sequence: scheduled.sequence,
        token,
        further,
        proposal: Vec::new(),
    }
}
