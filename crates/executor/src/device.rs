//! What is different from device to device about running a step. Everything else is the worker's.

use std::sync::Arc;

use backstop_card::HostCopy;
use backstop_kernels::{Batch, CpuWeights, Residual};
use backstop_types::{
    PlanId, SampleFault, SampledToken, SamplingParams, StepFailure, StepPlan, TokenId,
};

/// Set in a token that a step in flight is going to sample; below it stands the slot whose last
/// sampled token is meant.
pub(crate) const IN_FLIGHT: TokenId = 1 << 31;

/// Computes steps and samples from their logits, one step after the other.
///
/// A device may do so at once, or queue the work and let the worker go on; then it has the tokens
/// that it samples before the worker does, and puts them in where a batch says [`IN_FLIGHT`].
pub(crate) trait StepDevice: Send {
    /// Its sizes, which stay as they are.
    fn limits(&self) -> DeviceLimits;

    /// Whether it can check guesses at the tokens of a sequence that is sampled like this. If not,
    /// guesses cost nothing and bring nothing.
    fn checks_guesses(&self, sampling: &SamplingParams) -> bool;

    /// Takes in which sequences enter their slots and which blocks are new, both of which the plan
    /// says, and computes the batch up to the logits of its `logit_rows`.
    fn compute(&mut self, plan: &StepPlan, batch: &Batch) -> Result<(), StepFault>;

    /// Reads the logits that were just computed: one row of `rows` for each of the batch's
    /// `logit_rows`.
    fn sample(&mut self, rows: &[LogitRow<'_>]) -> Result<Arc<dyn StepResults>, StepFault>;

    /// As [`compute`](Self::compute), and shows what it computed. Nothing is sampled.
    fn observe(&mut self, plan: &StepPlan, batch: &Batch) -> Result<Observation, StepFault>;

    /// Its weights in the host's memory, for the device that takes its place after a sleep.
    fn keep_weights(&self) -> Result<KeptWeights, StepFault> {
        Err(StepFault::passing(
            "this device keeps no weights in the host's memory: sleep at level 2",
        ))
    }

    /// Whether it [proposes](Self::propose) tokens. The worker then waits for each step.
    fn proposes(&self) -> bool {
        false
    }

    /// Guesses at the tokens that follow what the last step left, for each sequence in the order
    /// of its batch.
    fn propose(&mut self, _sequences: &[Continuation<'_>]) -> Result<Vec<Vec<TokenId>>, StepFault> {
        Ok(Vec::new())
    }
}

/// What a device computed in a step.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// Logits of the batch's `logit_rows`, one row behind the other.
    pub logits: Vec<f32>,
    /// What the norms found, in the model's order.
    pub residuals: Vec<Residual>,
}

/// Sizes of a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceLimits {
    /// Rows of logits of a step.
    pub(crate) logit_rows: u32,
    /// Numbers of a row.
    pub(crate) vocabulary: usize,
    /// Steps that it takes behind one whose samples the worker has not read. Their results stay
    /// readable as long.
    pub(crate) steps_ahead: usize,
}

/// A model's weights in the host's memory, while the device that computed with them is gone.
pub(crate) enum KeptWeights {
    /// As the processors compute with them.
    Cpu(Arc<CpuWeights>),
    /// As a card had them.
    Cuda(HostCopy),
}

/// What a row of logits is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LogitRow<'a> {
    /// Rates a token that is known, beside so many most likely ones.
    Rating { token: TokenId, alternatives: u32 },
    /// Yields a token.
    Sample(SampleRow<'a>),
}

/// How a token is sampled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SampleRow<'a> {
    pub(crate) slot: u32,
    pub(crate) params: &'a SamplingParams,
    /// Prompt, and everything before the token; of a device that runs ahead the last one may be
    /// [`IN_FLIGHT`].
    pub(crate) tokens: &'a [TokenId],
    /// How many of `tokens` are the prompt.
    pub(crate) prompt_len: usize,
    /// Whether the last of `tokens` is a guess. What is sampled may then turn out not to count.
    pub(crate) behind_guess: bool,
    /// Tokens that must not be sampled.
    pub(crate) masked: &'a [TokenId],
    /// A bit for each token, from the lowest of each word on; only tokens whose bit is set may be
    /// sampled.
    pub(crate) allowed: Option<&'a [u32]>,
}

/// What a row of logits gave: the token, or the rated one with its log-probabilities.
pub(crate) type RowResult = Result<SampledToken, SampleFault>;

/// The results of a step that was sampled; read by the worker and by whoever waits for the step.
pub(crate) trait StepResults: Send + Sync {
    /// Waits for the step. Results stand in the order of its rows.
    fn wait(&self) -> Result<Vec<RowResult>, StepFault>;
}

/// What became of a sequence's positions in a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Continuation<'a> {
    pub(crate) slot: u32,
    pub(crate) first_position: u32,
    /// Rows of the sequence in the step's batch.
    pub(crate) rows: u32,
    /// For each of the first rows, the token behind it. Those of the other rows are wrong guesses.
    pub(crate) tokens: &'a [TokenId],
    /// Whether proposals are of use.
    pub(crate) wants_proposals: bool,
}

/// Why a step failed.
#[derive(Clone, Debug)]
pub(crate) struct StepFault {
    pub(crate) message: String,
    /// The device can run no further step.
    pub(crate) fatal: bool,
}

impl StepFault {
    /// One after which the device goes on.
    pub(crate) fn passing(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            fatal: false,
        }
    }

    pub(crate) fn of_plan(self, plan: PlanId) -> StepFailure {
        StepFailure {
            plan,
            message: self.message,
            fatal: self.fatal,
        }
    }
}
