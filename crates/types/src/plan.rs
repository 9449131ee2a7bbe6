//! What one step computes, and what came of it.

use std::ops::Range;
use std::sync::Arc;

use crate::{BlockId, PlanId, SamplingParams, SequenceId, SequenceSlot, StopConditions, TokenId};

/// The work of one step, handed from the scheduler to the executor.
///
/// A plan never names the tokens of later positions: the executor keeps each slot's token
/// history and appends what it samples, so that a plan can be made while the step before it,
/// which samples this step's inputs, still runs.
#[derive(Clone, Debug)]
pub struct StepPlan {
    /// Number of this plan.
    pub id: PlanId,
    /// The sequences of the batch; each stands here once.
    pub sequences: Vec<ScheduledSequence>,
}

impl StepPlan {
    /// Tokens that the step computes over all its sequences.
    pub fn num_tokens(&self) -> u32 {
        self.sequences
            .iter()
            .map(|sequence| sequence.num_tokens)
            .sum()
    }
}

/// One sequence's share of a step: compute positions
/// `first_position .. first_position + num_tokens`.
#[derive(Clone, Debug)]
pub struct ScheduledSequence {
    /// The sequence.
    pub sequence: SequenceId,
    /// Its row in the executor's tables.
    pub slot: SequenceSlot,
    /// Present when the sequence enters its slot: at first admission, after a preemption, and
    /// after a failed step. The executor then forgets what the slot held.
    pub start: Option<SequenceStart>,
    /// First position to compute.
    pub first_position: u32,
    /// Positions to compute, those of `draft` included; at least 1.
    pub num_tokens: u32,
    /// Guesses at the tokens that follow the last known one, mostly none: the inputs of the
    /// step's last positions. At most [`Executor::max_draft_tokens`](crate::Executor) of them,
    /// and only of a sequence that samples, no token of which is in flight.
    pub draft: Vec<TokenId>,
    /// Blocks to append to the slot's block tables, at most one entry for each group. With
    /// `start` they build the tables anew.
    pub new_blocks: Vec<BlockAppend>,
    /// Positions of the step whose logits rate the prompt's next token, for a sequence with
    /// `prompt_logprobs`; mostly empty.
    pub rated: Range<u32>,
    /// Whether the logits of the last known position yield a token, and after it those of the
    /// draft's positions, as long as the guesses are right. True exactly when the step reaches the
    /// last token known or in flight.
    pub samples: bool,
}

impl ScheduledSequence {
    /// Rows of logits that it needs: those that rate a token, and then those that may yield one.
    pub fn logit_rows(&self) -> u32 {
        self.rated.len() as u32 + self.sampled_rows()
    }

    /// Rows of logits that may yield a token.
    pub fn sampled_rows(&self) -> u32 {
        u32::from(self.samples) + self.draft.len() as u32
    }
}

/// Everything the executor must know of a sequence that enters a slot.
#[derive(Clone, Debug)]
pub struct SequenceStart {
    /// Prompt and tokens generated so far.
    pub tokens: Arc<[TokenId]>,
    /// How many of `tokens` are the prompt.
    pub prompt_len: u32,
    /// How to sample.
    pub sampling: Arc<SamplingParams>,
    /// `min_tokens` and `stop_token_ids` are the executor's business as well: it masks stop
    /// tokens while fewer than `min_tokens` have been generated.
    pub stop: Arc<StopConditions>,
}

/// Consecutive entries of one group's block table.
///
/// Entry `i` of a table maps positions `i * block_size .. (i + 1) * block_size`. Entries of a
/// sliding group that lie wholly before the window are never read again, and an append may start
/// past such a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockAppend {
    /// Index of the group in `KvSpec::groups`.
    pub group: usize,
    /// Table index of the first block.
    pub first_index: u32,
    /// The blocks.
    pub blocks: Vec<BlockId>,
}

/// What a completed step produced.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOutcome {
    /// The plan that completed.
    pub plan: PlanId,
    /// One entry for each sequence whose `samples` was true, in plan order.
    pub samples: Vec<TokenSample>,
    /// One entry for each sequence whose `rated` was not empty, in plan order.
    pub prompt_logprobs: Vec<PromptLogprobs>,
}

/// The sampling result of one sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenSample {
    /// The sequence.
    pub sequence: SequenceId,
    /// The token, or why there is none.
    pub token: Result<SampledToken, SampleFault>,
    /// The tokens that follow it, if it is what the draft guessed: as many as there are right
    /// guesses in a row.
    pub further: Vec<SampledToken>,
    /// The executor's guesses at the tokens behind all those, if it makes any. They mean something
    /// until the sequence has its next token.
    pub proposal: Vec<TokenId>,
}

/// Why a sequence has no next token. It concerns this sequence alone, and ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleFault {
    /// The logits hold something that is not a number, or nothing finite.
    NotANumber,
    /// The sequence's grammar cannot be followed any further, or leaves no token.
    Constraint,
}

/// Log-probabilities of the prompt tokens of one sequence that a step rated.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptLogprobs {
    /// The sequence.
    pub sequence: SequenceId,
    /// Those of the tokens that follow the positions in `rated`, in order; or why there are none.
    pub tokens: Result<Vec<TokenLogprobs>, SampleFault>,
}

/// A sampled token.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledToken {
    /// The token.
    pub id: TokenId,
    /// Present when the sequence asked for log-probabilities.
    pub logprobs: Option<TokenLogprobs>,
}

/// Natural-log probabilities under the raw distribution: the softmax of the logits before
/// temperature, penalties, bias and truncation.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// Of the token.
    pub logprob: f32,
    /// 1 for the most likely token.
    pub rank: u32,
    /// The most likely tokens, most likely first; ties go to the smaller id.
    pub top: Vec<(TokenId, f32)>,
}
