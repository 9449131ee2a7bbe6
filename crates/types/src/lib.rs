//! The vocabulary that every other crate shares: ids, limits, sampling parameters, step plans
//! with their outcomes, and the [`Executor`] contract.
//!
//! Invariant: nothing here is serialisable, reads a clock or does I/O. Wire formats live in
//! `backstop-protocol`, devices in `backstop-executor`.

mod constraint;
mod encoder;
mod executor;
mod ids;
mod kv;
mod plan;
mod sampling;

pub use constraint::{Constraint, ConstraintFault, ConstraintMatcher, SharedConstraint};
pub use encoder::{Encoder, EncoderFacts, EncoderInput, EncoderInputFault, EncoderKind};
pub use executor::{Executor, SleepLevel, StepFailure};
pub use ids::{BlockId, PlanId, SequenceId, SequenceSlot, TokenId};
pub use kv::{AttentionSpan, KvGroupSpec, KvSpec};
pub use plan::{
    BlockAppend, PromptLogprobs, SampleFault, SampledToken, ScheduledSequence, SequenceStart,
    StepOutcome, StepPlan, TokenLogprobs, TokenSample,
};
pub use sampling::{FinishReason, SamplingParams, StopConditions, Usage};
