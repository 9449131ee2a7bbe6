//! A draft head behind the model: guesses at the tokens that follow those just sampled.
//!
//! The head's row for position `p` has the model's hidden state for `p` and the token at `p + 1`.
//! Its keys and values lie in memory of their own, in the blocks of the model's tables. A step
//! computes the head's rows for all positions of which the model's are right, so that the head knows
//! whatever the model knows; only the last position of a shared prefix may have been computed with
//! another token behind it. Whatever the head says costs time at worst: the model checks it.

use std::sync::Arc;

use backstop_arch::{DraftHead, DraftHeadSpec};
use backstop_kernels::{Batch, CpuActivation, CpuBackend, CpuKvCache, Element};
use backstop_types::{KvSpec, TokenId};
use rayon::prelude::*;

use crate::device::Continuation;

/// What guesses for an executor on the CPU.
#[expect(
    missing_debug_implementations,
    reason = "models and weights have no useful text form"
)]
pub struct Drafter {
    head: Arc<dyn DraftHead<CpuBackend>>,
    backend: CpuBackend,
    num_tokens: u32,
    batch: Batch,
    /// For each row of the batch, the row of the hidden states that it continues.
    hidden_rows: Vec<u32>,
    /// The sequences that are guessed for, in the order of the batch.
    drafts: Vec<Draft>,
}

/// Guesses for one sequence.
struct Draft {
    /// Index among the step's sequences.
    index: usize,
    slot: u32,
    /// Position of the head's next row.
    position: u32,
    /// Row of the last hidden states that it continues.
    hidden_row: u32,
}

impl Drafter {
    /// A head that guesses `num_tokens` tokens, at least one, with the weights that
    /// [`load_cpu_draft_head`](backstop_loader::load_cpu_draft_head) gives and memory for keys and values like [`draft_kv_cache`]'s.
    pub fn new(head: Arc<dyn DraftHead<CpuBackend>>, backend: CpuBackend, num_tokens: u32) -> Self {
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

    /// Takes in what the step computed, `hidden` for each row of its batch, and guesses what follows
    /// for those sequences that want it. `tables[group][slot]` are the block tables of the model.
    pub(super) fn propose(
        &mut self,
        sequences: &[Continuation<'_>],
        tables: &[Vec<Vec<u32>>],
        hidden: &CpuActivation,
    ) -> Vec<Vec<TokenId>> {
        let mut proposals = vec![Vec::new(); sequences.len()];
        self.follow(sequences);
        let mut hidden = self.compute(tables, hidden);
        self.take_guesses(&mut proposals);
        for _ in 1..self.num_tokens {
            self.advance(tables, &proposals);
            if self.drafts.is_empty() {
                break;
            }
            hidden = self.compute(tables, &hidden);
            self.take_guesses(&mut proposals);
        }
        proposals
    }

    /// Makes the batch of the positions that the model has computed and that stay.
    fn follow(&mut self, sequences: &[Continuation<'_>]) {
        self.batch.clear();
        self.hidden_rows.clear();
        self.drafts.clear();
        let mut model_row = 0;
        for (index, sequence) in sequences.iter().enumerate() {
            let kept = sequence.tokens.len() as u32;
            self.batch.push(
                sequence.slot,
                sequence.first_position,
                sequence.tokens,
                sequence.wants_proposals,
            );
            self.hidden_rows.extend(model_row..model_row + kept);
            if sequence.wants_proposals {
                self.drafts.push(Draft {
                    index,
                    slot: sequence.slot,
                    position: sequence.first_position + kept,
                    hidden_row: self.batch.rows() - 1,
                });
            }
            model_row += sequence.rows;
        }
    }

    /// Makes a batch of the latest guesses, as far as the sequences have blocks for them.
    fn advance(&mut self, tables: &[Vec<Vec<u32>>], proposals: &[Vec<TokenId>]) {
        let spec = self.head.spec();
        let block_size = self.backend.kv().block_size();
        self.drafts.retain(|draft| {
            let entry = (draft.position / block_size) as usize;
            let mut tables = spec.table_groups.iter().map(|&group| &tables[group]);
            tables.all(|table| entry < table[draft.slot as usize].len())
        });
        self.batch.clear();
        self.hidden_rows.clear();
        for draft in &mut self.drafts {
            let guess = *proposals[draft.index]
                .last()
                .expect("it has been guessed for");
            self.batch.push(draft.slot, draft.position, &[guess], true);
            self.hidden_rows.push(draft.hidden_row);
            draft.position += 1;
            draft.hidden_row = self.batch.rows() - 1;
        }
    }

    fn compute(&mut self, tables: &[Vec<Vec<u32>>], hidden: &CpuActivation) -> CpuActivation {
        let groups = &self.head.spec().table_groups;
        let tables: Vec<_> = groups.iter().map(|&group| &tables[group]).collect();
        self.backend.begin(&self.batch, &tables);
        self.head
            .forward(&mut self.backend, hidden, &self.hidden_rows)
    }

    /// Adds the most likely tokens to the proposals. Who has none is not guessed for any further.
    fn take_guesses(&mut self, proposals: &mut [Vec<TokenId>]) {
        let guesses = (0..self.drafts.len()).into_par_iter();
        let guesses = guesses.map(|index| most_likely(self.backend.logits_of(index)));
        let mut guesses = guesses.collect::<Vec<_>>().into_iter();
        self.drafts.retain(|draft| {
            let guess = guesses.next().flatten();
            proposals[draft.index].extend(guess);
            guess.is_some()
        });
    }
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
