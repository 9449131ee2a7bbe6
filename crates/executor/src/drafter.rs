//! A draft head behind the model: guesses at the tokens that follow those just sampled.
//!
//! The head's row for position `p` has the model's hidden state for `p` and the token at `p + 1`.
//! Its keys and values lie in memory of their own, in the blocks of the model's tables. A step
//! computes the head's rows for all positions of which the model's are right, so that the head knows
//! whatever the model knows; only the last position of a shared prefix may have been computed with
//! another token behind it. Whatever the head says costs time at worst: the model checks it.

use backstop_arch::{DraftHead, DraftHeadSpec};
use backstop_kernels::{Batch, CpuActivation, CpuBackend, CpuKvCache, Element};
use backstop_types::{KvSpec, ScheduledSequence, StepOutcome, StepPlan, TokenId, TokenSample};
use rayon::prelude::*;

use crate::slots::Slots;

/// What guesses for a [`CpuExecutor`](crate::CpuExecutor).
#[expect(
    missing_debug_implementations,
    reason = "models and weights have no useful text form"
)]
pub struct Drafter {
    head: Box<dyn DraftHead<CpuBackend>>,
    backend: CpuBackend,
    num_tokens: u32,
    batch: Batch,
    /// For each row of the batch, the row of the hidden states that it continues.
    hidden_rows: Vec<u32>,
    /// The sequences that are guessed for, in the order of the outcome's samples.
    drafts: Vec<Draft>,
}

/// Guesses for one sequence.
struct Draft {
    /// Index in the outcome's samples.
    sample: usize,
    slot: u32,
    /// Position of the head's next row.
    position: u32,
    /// Row of the last hidden states that it continues.
    hidden_row: u32,
}

impl Drafter {
    /// A head that guesses `num_tokens` tokens, at least one, with the weights that
    /// [`load_cpu_draft_head`](backstop_loader::load_cpu_draft_head) gives and memory for keys and values like [`draft_kv_cache`]'s.
    pub fn new(head: Box<dyn DraftHead<CpuBackend>>, backend: CpuBackend, num_tokens: u32) -> Self {
        assert!(num_tokens > 0, "a head that guesses nothing");
        Self {
            head,
            backend,
            num_tokens,
            batch: Batch::new(),
            hidden_rows: Vec::new(),
            drafts: Vec::new(),
        }
    }

    /// Takes in what the step computed, `hidden` for each row of its batch, and adds proposals to
    /// the samples. The slots hold the sampled tokens already.
    pub(crate) fn propose(
        &mut self,
        plan: &StepPlan,
        slots: &Slots,
        hidden: &CpuActivation,
        outcome: &mut StepOutcome,
    ) {
        self.follow(plan, slots, &outcome.samples);
        let mut hidden = self.compute(slots, hidden);
        self.take_guesses(&mut outcome.samples);
        for _ in 1..self.num_tokens {
            self.advance(slots, &outcome.samples);
            if self.drafts.is_empty() {
                break;
            }
            hidden = self.compute(slots, &hidden);
            self.take_guesses(&mut outcome.samples);
        }
    }

    /// Makes the batch of the positions that the model has computed and that stay.
    fn follow(&mut self, plan: &StepPlan, slots: &Slots, samples: &[TokenSample]) {
        self.batch.clear();
        self.hidden_rows.clear();
        self.drafts.clear();
        let (mut model_row, mut next_sample) = (0, 0);
        for scheduled in &plan.sequences {
            let sample = scheduled.samples.then(|| &samples[next_sample]);
            let kept = kept_positions(scheduled, sample);
            let slot = &slots.slots[scheduled.slot.0 as usize];
            let first = scheduled.first_position as usize;
            let tokens = &slot.tokens[first + 1..][..kept as usize];
            let guesses = slot.follower.is_none() && sample.is_some_and(|s| s.token.is_ok());
            self.batch
                .push(scheduled.slot.0, scheduled.first_position, tokens, guesses);
            self.hidden_rows.extend(model_row..model_row + kept);
            if guesses {
                self.drafts.push(Draft {
                    sample: next_sample,
                    slot: scheduled.slot.0,
                    position: scheduled.first_position + kept,
                    hidden_row: self.batch.rows() - 1,
                });
            }
            model_row += scheduled.num_tokens;
            next_sample += usize::from(scheduled.samples);
        }
    }

    /// Makes a batch of the latest guesses, as far as the sequences have blocks for them.
    fn advance(&mut self, slots: &Slots, samples: &[TokenSample]) {
        let spec = self.head.spec();
        let block_size = self.backend.kv().block_size();
        self.drafts.retain(|draft| {
            let entry = (draft.position / block_size) as usize;
            let mut tables = spec.table_groups.iter().map(|&group| &slots.tables[group]);
            tables.all(|table| entry < table[draft.slot as usize].len())
        });
        self.batch.clear();
        self.hidden_rows.clear();
        for draft in &mut self.drafts {
            let guess = samples[draft.sample].proposal.last();
            let guess = *guess.expect("it has been guessed for");
            self.batch.push(draft.slot, draft.position, &[guess], true);
            self.hidden_rows.push(draft.hidden_row);
            draft.position += 1;
            draft.hidden_row = self.batch.rows() - 1;
        }
    }

    fn compute(&mut self, slots: &Slots, hidden: &CpuActivation) -> CpuActivation {
        let groups = &self.head.spec().table_groups;
        let tables: Vec<_> = groups.iter().map(|&group| &slots.tables[group]).collect();
        self.backend.begin(&self.batch, &tables);
        self.head
            .forward(&mut self.backend, hidden, &self.hidden_rows)
    }

    /// Adds the most likely tokens to the proposals. Who has none is not guessed for any further.
    fn take_guesses(&mut self, samples: &mut [TokenSample]) {
        let guesses = (0..self.drafts.len()).into_par_iter();
        let guesses = guesses.map(|index| most_likely(self.backend.logits_of(index)));
        let mut guesses = guesses.collect::<Vec<_>>().into_iter();
        self.drafts.retain(|draft| {
            let guess = guesses.next().flatten();
            samples[draft.sample].proposal.extend(guess);
            guess.is_some()
        });
    }
}

/// Positions of the step that hold tokens of the sequence: all but those of wrong guesses.
fn kept_positions(scheduled: &ScheduledSequence, sample: Option<&TokenSample>) -> u32 {
    let right = sample.map_or(0, |sample| sample.further.len());
    scheduled.num_tokens - (scheduled.draft.len() - right) as u32
}

/// Of equals the first; none if no logit is a number.
fn most_likely(logits: &[f32]) -> Option<TokenId> {
    let mut best: Option<(TokenId, f32)> = None;
    for (token, &logit) in (0..).zip(logits) {
        if best.map_or(!logit.is_nan(), |(_, most)| logit > most) {
            best = Some((token, logit));
        }
    }
    best.map(|(token, _)| token)
}

/// Memory for a head's keys and values beside a model's KV cache of this shape.
pub fn draft_kv_cache(head: &DraftHeadSpec, kv: &KvSpec, element: Element) -> CpuKvCache {
    let groups = head.kv_groups.iter().zip(&head.table_groups);
    let layouts = groups.map(|(group, &table)| group.layout(kv.groups[table].num_blocks));
    CpuKvCache::new(&layouts.collect::<Vec<_>>(), kv.block_size, element)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_likely_token_is_the_first_of_the_greatest() {
        assert_eq!(most_likely(&[0.5, 2.0, -1.0, 2.0]), Some(1));
        assert_eq!(most_likely(&[f32::NAN, f32::NEG_INFINITY, -3.0]), Some(2));
        assert_eq!(most_likely(&[f32::NAN, f32::NAN]), None);
        assert_eq!(most_likely(&[]), None);
    }
}
