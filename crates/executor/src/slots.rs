//! What the worker knows of the sequences in their slots.

use std::sync::Arc;

use backstop_types::{
    SamplingParams, ScheduledSequence, SequenceStart, StopConditions, TokenId, TokenSample,
};

use crate::constraint::Follower;
use crate::device::{Continuation, IN_FLIGHT, LogitRow, SampleRow};

/// What the worker knows of the sequence in one slot.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Prompt and everything sampled so far. A token that has not been read is [`IN_FLIGHT`].
    /// While a step is being made, its guesses stand behind that.
    tokens: Vec<TokenId>,
    prompt_len: usize,
    pub(crate) sampling: Arc<SamplingParams>,
    stop: Option<Arc<StopConditions>>,
    /// Present if a grammar restricts the answer.
    pub(crate) follower: Option<Follower>,
    /// The step with which the sequence entered.
    entered: u64,
}

impl Slot {
    pub(crate) fn enter(&mut self, step: u64, start: &SequenceStart) {
        self.tokens.clear();
        self.tokens.extend_from_slice(&start.tokens);
        self.prompt_len = start.prompt_len as usize;
        self.sampling = Arc::clone(&start.sampling);
        self.stop = Some(Arc::clone(&start.stop));
        self.follower = Follower::new(start);
        self.entered = step;
    }

    /// Whether the sequence that is here now was here in that step. What steps before it sampled is
    /// nothing to it.
    pub(crate) fn was_in(&self, step: u64) -> bool {
        self.entered <= step
    }

    /// Puts guesses behind what is known, until [`sampled`](Self::sampled).
    pub(crate) fn guess(&mut self, draft: &[TokenId]) {
        self.tokens.extend_from_slice(draft);
    }

    /// The tokens that a step computes, guesses included.
    pub(crate) fn tokens_of(&self, scheduled: &ScheduledSequence) -> &[TokenId] {
        let first = scheduled.first_position as usize;
        let tokens = self
            .tokens
            .get(first..first + scheduled.num_tokens as usize);
        tokens.expect("a step computes tokens that are known or in flight")
    }

    /// What a step's rows of logits are for: first those that rate a token, then those that yield
    /// one.
    pub(crate) fn logit_rows<'a>(
        &'a self,
        scheduled: &'a ScheduledSequence,
    ) -> impl Iterator<Item = LogitRow<'a>> {
        let alternatives = self.sampling.prompt_logprobs.unwrap_or(0);
        let ratings = scheduled.rated.clone().map(move |position| {
            let token = self.tokens[position as usize + 1];
            LogitRow::Rating {
                token,
                alternatives,
            }
        });
        let known = self.tokens.len() - scheduled.draft.len();
        let sampling = scheduled.sampled_rows() as usize;
        let samples = (known..known + sampling).map(move |length| {
            LogitRow::Sample(SampleRow {
                slot: scheduled.slot.0,
                params: &self.sampling,
                tokens: &self.tokens[..length],
                prompt_len: self.prompt_len,
                behind_guess: length > known,
                masked: self.masked(length),
                allowed: self.follower.as_ref().map(Follower::allowed),
            })
        });
        ratings.chain(samples)
    }

    /// Tokens that must not be the one behind the first `length`: the stop tokens, before
    /// `min_tokens` are generated.
    fn masked(&self, length: usize) -> &[TokenId] {
        match &self.stop {
            Some(stop) if length - self.prompt_len < stop.min_tokens as usize => {
                &stop.stop_token_ids
            }
            _ => &[],
        }
    }

    /// A step is going to say what follows; until it is read, guesses say nothing.
    pub(crate) fn sampled(&mut self, scheduled: &ScheduledSequence) {
        self.tokens.truncate(sampled_position(scheduled));
        self.tokens.push(IN_FLIGHT | scheduled.slot.0);
    }

    /// Takes in what a step sampled; nothing if it failed. A sequence without a token ends, or
    /// starts anew; whatever stands in its history is not read.
    pub(crate) fn read(&mut self, scheduled: &ScheduledSequence, sample: Option<&TokenSample>) {
        let token = sample.and_then(|sample| sample.token.as_ref().ok());
        let token = token.map(|token| token.id);
        self.tokens[sampled_position(scheduled)] = token.unwrap_or(0);
        let further = sample.iter().flat_map(|sample| &sample.further);
        self.tokens.extend(further.map(|token| token.id));
        if let Some(follower) = &mut self.follower {
            follower.push(token);
        }
    }

    /// What became of a step's positions, after it has been read.
    pub(crate) fn continuation(
        &self,
        scheduled: &ScheduledSequence,
        sample: Option<&TokenSample>,
    ) -> Continuation<'_> {
        let first = scheduled.first_position as usize;
        let right = sample.map_or(0, |sample| sample.further.len());
        let kept = scheduled.num_tokens as usize - (scheduled.draft.len() - right);
        Continuation {
            slot: scheduled.slot.0,
            first_position: scheduled.first_position,
            rows: scheduled.num_tokens,
            tokens: &self.tokens[first + 1..][..kept],
            wants_proposals: self.follower.is_none()
                && sample.is_some_and(|sample| sample.token.is_ok()),
        }
    }
}

/// Position of the first token that a step samples.
fn sampled_position(scheduled: &ScheduledSequence) -> usize {
    (scheduled.first_position + scheduled.num_tokens) as usize - scheduled.draft.len()
}
