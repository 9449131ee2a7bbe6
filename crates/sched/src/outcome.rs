//! What the outcome of a step means for its sequences.

use backstop_kv::fault::{Fault, planted};
use backstop_types::{
    FinishReason, PlanId, PromptLogprobs, SampleFault, SampledToken, StepOutcome, TokenSample,
};

use crate::scheduler::{PlanInFlight, PlannedSequence};
use crate::sequence::{SequenceIndex, Stage};
use crate::{Notice, Scheduler};

impl Scheduler {
    pub(crate) fn step_done(&mut self, outcome: StepOutcome) {
        let plan = self.oldest_plan(outcome.plan);
        assert!(!plan.doomed, "a plan behind a failed one cannot complete");
        let mut samples = outcome.samples.into_iter();
        let mut ratings = outcome.prompt_logprobs.into_iter();
        for planned in &plan.sequences {
            let rating = (planned.rated > 0).then(|| {
                let rating = ratings.next().expect("every rated prompt has its ratings");
                let id = self.sequence(planned.index).id;
                assert_eq!(rating.sequence, id, "ratings stand in plan order");
                rating
            });
            let sample = planned.samples.then(|| {
                let sample = samples
                    .next()
                    .expect("every sampling sequence has its sample");
                assert_eq!(
                    sample.sequence,
                    self.sequence(planned.index).id,
                    "samples stand in plan order"
                );
                sample
            });
            self.sequence_mut(planned.index).plans_in_flight -= 1;
            if self.sequence(planned.index).stage == Stage::Running {
                self.advance(*planned, rating, sample);
            } else {
                self.discard(planned.index, sample);
            }
        }
        assert!(
            samples.next().is_none(),
            "only sampling sequences have samples"
        );
        assert!(ratings.next().is_none(), "only rated prompts have ratings");
        self.scratch.planned.push(plan.sequences);
    }

    /// Rolls back the sequences of the failed plan and of those behind it, once for all of them.
    pub(crate) fn step_failed(&mut self, id: PlanId) {
        let plan = self.oldest_plan(id);
        self.counters.plans_failed += 1;
        if !plan.doomed {
            self.roll_back(id, &plan);
            let mut in_flight = std::mem::take(&mut self.in_flight);
            for behind in &mut in_flight {
                behind.doomed = true;
                self.roll_back(id, behind);
            }
            self.in_flight = in_flight;
        }
        for planned in &plan.sequences {
            self.sequence_mut(planned.index).plans_in_flight -= 1;
            self.forget_if_over(planned.index);
        }
        self.scratch.planned.push(plan.sequences);
    }

    fn oldest_plan(&mut self, id: PlanId) -> PlanInFlight {
        let plan = self
            .in_flight
            .pop_front()
            .expect("an outcome belongs to a plan in flight");
        assert_eq!(plan.id, id, "outcomes come in the order of the plans");
        plan
    }

    /// Takes note of what a step computed for a sequence, of the prompt tokens that it rated, and
    /// of the token that it sampled.
    fn advance(
        &mut self,
        planned: PlannedSequence,
        rating: Option<PromptLogprobs>,
        sample: Option<TokenSample>,
    ) {
        let sequence = self.sequences[planned.index.0 as usize].as_mut();
        let sequence = sequence.expect("an index in use names a sequence");
        sequence.computed += planned.num_tokens - planned.drafts;
        sequence.drafts_in_flight -= planned.drafts;
        assert!(
            sequence.computed <= sequence.known(),
            "only known tokens can be computed"
        );
        self.kv
            .publish(&mut sequence.blocks, &sequence.tokens, sequence.computed);
        // What is left is visible from here on, and this is where a failure would lead back to.
        self.kv
            .release_passed(&mut sequence.blocks, sequence.computed);
        sequence.samples_in_flight -= u32::from(sample.is_some());
        let result = match rating {
            Some(rating) => self.hand_on_rating(planned, rating),
            None => Ok(()),
        };
        let result = match sample {
            Some(sample) => result.and_then(|()| self.hand_on_tokens(planned, sample)),
            None => result,
        };
        if let Err(fault) = result {
            let reason = match fault {
                SampleFault::NotANumber => FinishReason::Failed,
                SampleFault::Constraint => FinishReason::ConstraintFailed,
            };
            self.finish(planned.index, reason);
        }
    }

    fn hand_on_rating(
        &mut self,
        planned: PlannedSequence,
        rating: PromptLogprobs,
    ) -> Result<(), SampleFault> {
        let tokens = rating.tokens?;
        let sequence = self.sequence_mut(planned.index);
        assert_eq!(
            tokens.len(),
            planned.rated as usize,
            "a rating of each token"
        );
        let first_position = sequence.rated_end + 1;
        sequence.rated_end += planned.rated;
        self.notices.push(Notice::PromptLogprobs {
            sequence: rating.sequence,
            first_position,
            tokens,
        });
        Ok(())
    }

    /// Hands on the sampled token, and those that follow it because guesses were right.
    fn hand_on_tokens(
        &mut self,
        planned: PlannedSequence,
        sample: TokenSample,
    ) -> Result<(), SampleFault> {
        let token = sample.token?;
        let right = sample.further.len() as u32;
        assert!(
            right <= planned.drafts,
            "only guessed tokens have followers"
        );
        self.counters.drafts += u64::from(planned.drafts > 0);
        self.counters.draft_tokens += u64::from(planned.drafts);
        let mut ended = self.hand_on_token(planned.index, token);
        for token in sample.further {
            if ended {
                return Ok(());
            }
            self.counters.accepted_tokens += 1;
            ended = self.hand_on_token(planned.index, token);
        }
        if ended {
            return Ok(());
        }
        if planned.drafts > 0 {
            self.keep_draft(planned, right);
        }
        self.sequence_mut(planned.index).proposal = sample.proposal;
        Ok(())
    }

    /// Hands on a token; whether it ends its sequence.
    fn hand_on_token(&mut self, index: SequenceIndex, token: SampledToken) -> bool {
        let sequence = self.sequence_mut(index);
        sequence.tokens.push(token.id);
        let (id, end) = (sequence.id, sequence.end_after_token());
        self.counters.tokens_generated += 1;
        self.notices.push(Notice::Token {
            sequence: id,
            token,
        });
        if let Some(reason) = end {
            self.finish(index, reason);
        }
        end.is_some()
    }

    /// Counts the positions of right guesses as computed; those of wrong ones are computed again.
    fn keep_draft(&mut self, planned: PlannedSequence, right: u32) {
        let sequence = self.sequences[planned.index.0 as usize].as_mut();
        let sequence = sequence.expect("an index in use names a sequence");
        sequence.computed += match planted(Fault::RejectedDraftComputed) {
            true => planned.drafts.min(right + 1),
            false => right,
        };
        sequence.planned = sequence.computed;
        self.kv
            .publish(&mut sequence.blocks, &sequence.tokens, sequence.computed);
        self.kv
            .release_passed(&mut sequence.blocks, sequence.computed);
    }

    /// Drops what a step computed for a sequence that had ended meanwhile.
    fn discard(&mut self, index: SequenceIndex, sample: Option<TokenSample>) {
        if let Some(TokenSample {
            sequence,
            token: Ok(token),
            ..
        }) = sample
            && planted(Fault::TokenAfterEnd)
        {
            self.notices.push(Notice::Token { sequence, token });
        }
        self.forget_if_over(index);
    }

    fn forget_if_over(&mut self, index: SequenceIndex) {
        let sequence = self.sequence(index);
        if sequence.stage == Stage::Ended && sequence.plans_in_flight == 0 {
            self.forget(index);
        }
    }

    /// Takes the sequences of a plan back to what was computed before the failure, and ends those
    /// that have failed too often.
    fn roll_back(&mut self, failure: PlanId, plan: &PlanInFlight) {
        let max_step_failures = self.config.max_step_failures;
        for planned in &plan.sequences {
            let sequence = self.sequence_mut(planned.index);
            if sequence.stage != Stage::Running {
                continue;
            }
            if sequence.last_failure == Some(failure) && !planted(Fault::FailureCountedPerPlan) {
                continue;
            }
            if planted(Fault::NoRollbackOnFailure) {
                sequence.computed = sequence.planned.min(sequence.known());
            }
            sequence.roll_back();
            if planted(Fault::NoStartAfterFailure) {
                sequence.must_start = false;
            }
            sequence.last_failure = Some(failure);
            sequence.failures += 1;
            if sequence.failures > max_step_failures {
                self.finish(planned.index, FinishReason::Failed);
            }
        }
    }
}
