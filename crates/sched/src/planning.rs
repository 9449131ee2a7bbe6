//! Making a plan: shares of the budget, blocks.

use backstop_kv::fault::{Fault, planted};
use backstop_types::{BlockAppend, ScheduledSequence, StepPlan};

use crate::Scheduler;
use crate::budget::{self, Want};
use crate::scheduler::{PlanInFlight, PlannedSequence, Scratch};
use crate::sequence::{Sequence, SequenceIndex, Stage};

impl Scheduler {
    /// The next step, or `None` when there is nothing to do before another event.
    ///
    /// The caller must run the plan and report its outcome.
    pub fn plan(&mut self) -> Option<StepPlan> {
        if self.in_flight.len() >= self.config.max_in_flight_plans as usize {
            return None;
        }
        // After a failure the executor gives up what it has been handed. Only then does it start
        // from a known state again.
        if self.in_flight.iter().any(|plan| plan.doomed) {
            return None;
        }
        self.see_off();
        self.admit();
        self.guess();
        self.share_budget();
        let plan = self.fill_plan();
        if plan.sequences.is_empty() {
            return None;
        }
        self.next_plan.0 += 1;
        self.counters.plans_made += 1;
        self.counters.tokens_planned += u64::from(plan.num_tokens());
        Some(plan)
    }

    /// Lets the running sequences guess what comes next.
    fn guess(&mut self) {
        let Some(speculation) = self.config.speculation else {
            return;
        };
        for place in 0..self.running.len() {
            self.sequence_mut(self.running[place]).guess(&speculation);
        }
    }

    /// Lists the running sequences and what each may compute in this step.
    fn share_budget(&mut self) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.candidates.clear();
        scratch.candidates.extend_from_slice(&self.running);
        scratch.wants.clear();
        scratch.wants.extend(self.running.iter().map(|&index| {
            let sequence = self.sequence(index);
            Want {
                position: sequence.planned,
                tokens: match self.leaving {
                    Some(leaving) if leaving == index => 0,
                    _ => sequence.wanted(),
                },
                tenant: sequence.tenant,
            }
        }));
        self.share_logit_rows(&mut scratch);
        let budget = self.config.max_num_batched_tokens;
        budget::share(
            &scratch.wants,
            budget,
            self.kv.block_size(),
            &mut scratch.shares,
        );
        self.scratch = scratch;
    }

    /// Shares the rows of logits as the tokens are shared, and lets nobody want more tokens than
    /// it has rows for. Without prompts to be rated and guesses there are enough for all.
    fn share_logit_rows(&self, scratch: &mut Scratch) {
        let sequences = || self.running.iter().map(|&index| self.sequence(index));
        let needs_many =
            |sequence: &Sequence| sequence.is_to_be_rated() || !sequence.draft.is_empty();
        if !sequences().any(needs_many) || planted(Fault::LogitRowsIgnored) {
            return;
        }
        let rows = sequences()
            .zip(&scratch.wants)
            .map(|(sequence, want)| Want {
                position: 0,
                tokens: sequence.logit_rows(want.tokens),
                tenant: want.tenant,
            });
        scratch.row_wants.clear();
        scratch.row_wants.extend(rows);
        let budget = self.config.max_logit_rows;
        budget::share(&scratch.row_wants, budget, 1, &mut scratch.shares);
        for ((sequence, want), &rows) in sequences().zip(&mut scratch.wants).zip(&scratch.shares) {
            want.tokens = sequence.tokens_within(want.tokens, rows);
        }
    }

    /// Gives the running sequences blocks for their shares, in rank order. Who gets no block
    /// keeps everyone behind it from taking one.
    fn fill_plan(&mut self) -> StepPlan {
        let mut planned = self.scratch.planned.pop().unwrap_or_default();
        planned.clear();
        let mut plan = StepPlan {
            id: self.next_plan,
            sequences: Vec::with_capacity(self.scratch.candidates.len()),
        };
        for place in 0..self.scratch.candidates.len() {
            let index = self.scratch.candidates[place];
            let share = self.scratch.shares[place];
            // One before it in rank may have preempted it just now.
            let preempted = self.sequence(index).stage != Stage::Running;
            if preempted || share == 0 {
                continue;
            }
            let num_tokens = self.secure_blocks(index, share);
            if num_tokens == 0 {
                if self.sequence(index).stage != Stage::Running {
                    // It was in the way of those behind it.
                    continue;
                }
                break;
            }
            let scheduled = self.schedule(index, num_tokens);
            planned.push(PlannedSequence {
                index,
                num_tokens,
                rated: scheduled.rated.len() as u32,
                samples: scheduled.samples,
                drafts: scheduled.draft.len() as u32,
            });
            if planted(Fault::SequenceTwiceInPlan) && scheduled.start.is_some() {
                plan.sequences.push(scheduled.clone());
            }
            plan.sequences.push(scheduled);
        }
        if planned.is_empty() {
            self.scratch.planned.push(planned);
        } else {
            let in_flight = PlanInFlight {
                id: plan.id,
                sequences: planned,
                doomed: false,
            };
            self.in_flight.push_back(in_flight);
        }
        plan
    }

    /// How many of `share` positions the sequence can have blocks for. Preempts others rather than
    /// getting none.
    fn secure_blocks(&mut self, index: SequenceIndex, share: u32) -> u32 {
        loop {
            let sequence = self.sequence(index);
            let reachable = self
                .kv
                .reachable_end(&sequence.blocks)
                .max(sequence.planned);
            if reachable > sequence.planned {
                let want = Want {
                    position: sequence.planned,
                    tokens: share,
                    tenant: sequence.tenant,
                };
                return budget::tidy(&want, reachable - sequence.planned, self.kv.block_size());
            }
            // In flight it may be about to get blocks back from its own sliding groups. Then it
            // need not take them from others.
            if sequence.plans_in_flight > 0 || !self.make_way(index) {
                return 0;
            }
        }
    }

    /// Puts `num_tokens` positions of a sequence into the plan being made.
    fn schedule(&mut self, index: SequenceIndex, num_tokens: u32) -> ScheduledSequence {
        let sequence = self.sequences[index.0 as usize].as_mut();
        let sequence = sequence.expect("an index in use names a sequence");
        let start = sequence.must_start.then(|| sequence.start());
        sequence.must_start = false;
        let first_position = sequence.planned;
        let end = first_position + num_tokens;
        let end_index = end.div_ceil(self.kv.block_size());
        let mut new_blocks = Vec::new();
        for group in 0..self.kv.num_groups() {
            // A start tells the executor of all blocks, otherwise only of those it does not know.
            let table = &sequence.blocks.tables()[group];
            let first_index = match start {
                Some(_) => table.first_index(),
                None => table.end_index(),
            };
            if start.is_none() && first_index >= end_index {
                continue;
            }
            self.kv.extend(&mut sequence.blocks, group, end);
            let mut blocks = sequence.blocks.tables()[group].blocks_from(first_index);
            if planted(Fault::TableOneBlockShort) {
                blocks.pop();
            }
            if !blocks.is_empty() {
                new_blocks.push(BlockAppend {
                    group,
                    first_index,
                    blocks,
                });
            }
        }
        let samples = end >= sequence.total();
        sequence.drafts_in_flight = end.saturating_sub(sequence.total());
        sequence.draft.truncate(sequence.drafts_in_flight as usize);
        let rated = sequence.rated(first_position..end);
        sequence.planned = end;
        sequence.samples_in_flight += u32::from(samples);
        sequence.plans_in_flight += 1;
        if planted(Fault::PublishAtPlanTime) {
            let known = end.min(sequence.known());
            self.kv
                .publish(&mut sequence.blocks, &sequence.tokens, known);
        }
        ScheduledSequence {
            sequence: sequence.id,
            slot: sequence.slot.expect("a running sequence has a slot"),
            start,
            first_position,
            num_tokens,
            draft: std::mem::take(&mut sequence.draft),
            new_blocks,
            rated,
            samples,
        }
    }
}
