//! What goes into the scheduler and what comes out beside plans.

use std::sync::Arc;

use backstop_types::{
    FinishReason, PlanId, SampledToken, SamplingParams, SequenceId, StepOutcome, StopConditions,
    TokenId, TokenLogprobs, Usage,
};

/// A new sequence.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its id, never used before.
    pub id: SequenceId,
    /// The prompt; at least one token.
    pub prompt: Arc<[TokenId]>,
    /// How to sample.
    pub sampling: Arc<SamplingParams>,
    /// When to end.
    pub stop: Arc<StopConditions>,
    /// Smaller numbers go first; equal ones in order of arrival.
    pub priority: i32,
    /// Whose it is. Of each tenant one sequence runs before others have several.
    pub tenant: u64,
    /// Last moment at which it may still be admitted, on the clock of [`Event::Tick`].
    pub deadline_ms: Option<u64>,
    /// Sequences share cached blocks only under the same salt.
    pub cache_salt: u64,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A request came in.
    Arrive(Arrival),
    /// The owner of a sequence lost interest. Unknown and finished sequences are ignored, because
    /// an abort and the end of a sequence may cross on the way.
    Abort(SequenceId),
    /// The oldest plan in flight completed.
    StepDone(StepOutcome),
    /// The oldest plan in flight failed. Those behind it must be reported as failed too, in order.
    StepFailed(PlanId),
    /// Time passed.
    Tick {
        /// Milliseconds on a clock that never goes back.
        now_ms: u64,
    },
    /// The executor's KV memory is new and holds nothing. No sequence may be alive.
    CacheLost,
}

/// Why an arrival was refused. The scheduler has forgotten it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// As many sequences wait as may wait.
    #[error("{waiting} sequences are waiting, which is the most that may")]
    QueueFull {
        /// Sequences that wait.
        waiting: u32,
    },
    /// The prompt leaves no room for even one generated token.
    #[error(
        "the prompt has {prompt_tokens} tokens, which leaves no room to generate within the \
         maximum context length of {max_model_len} tokens"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Prompt and generated tokens that a sequence may have.
        max_model_len: u32,
    },
    /// Even alone the sequence could run out of blocks before its end.
    #[error(
        "a sequence of up to {max_tokens_total} tokens needs {needed_blocks} KV blocks in group \
         {group}, which has {pool_blocks}"
    )]
    NeverFits {
        /// Prompt and generated tokens that the sequence may come to have.
        max_tokens_total: u32,
        /// The group whose pool is too small.
        group: usize,
        /// Blocks that the sequence may need there.
        needed_blocks: u32,
        /// Blocks that there are.
        pool_blocks: u32,
    },
    /// The prompt has no tokens.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// A sequence with this id is alive.
    #[error("sequence {} exists already", .sequence.0)]
    DuplicateSequence {
        /// The id.
        sequence: SequenceId,
    },
    /// The stop conditions allow no token.
    #[error("max_tokens is 0 and must be at least 1")]
    InvalidLimits,
}

/// What became of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// It left the queue for the first time.
    Admitted {
        /// The sequence.
        sequence: SequenceId,
        /// Prompt tokens that need not be computed.
        cached_tokens: u32,
    },
    /// It lost its blocks to a sequence before it and went back to the queue. Nothing is lost but
    /// work: it goes on where it was.
    Preempted {
        /// The sequence.
        sequence: SequenceId,
    },
    /// More of its prompt was rated. Every prompt token but the first is rated once, in order,
    /// and before the first token is generated.
    PromptLogprobs {
        /// The sequence.
        sequence: SequenceId,
        /// Position in the prompt of the first of these tokens.
        first_position: u32,
        /// Log-probabilities of prompt tokens.
        tokens: Vec<TokenLogprobs>,
    },
    /// It generated a token. A stop token is reported like any other.
    Token {
        /// The sequence.
        sequence: SequenceId,
        /// The token.
        token: SampledToken,
    },
    /// It ended; no notice of it follows.
    Finished {
        /// The sequence.
        sequence: SequenceId,
        /// Why.
        reason: FinishReason,
        /// Its token counts.
        usage: Usage,
    },
}
