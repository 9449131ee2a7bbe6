//! The contract between the engine and whatever computes a step.

use crate::{KvSpec, PlanId, StepOutcome, StepPlan};

/// Runs step plans in order.
///
/// At most [`pipeline_depth`](Executor::pipeline_depth) plans are in flight. Every submitted plan
/// is answered by exactly one [`wait`](Executor::wait), oldest first. After a failure the plans
/// behind it in the pipeline fail too, because their inputs are missing.
pub trait Executor: Send {
    /// Shape of the KV cache that this executor allocated.
    fn kv_spec(&self) -> &KvSpec;

    /// Plans that may be in flight at once; at least 1.
    fn pipeline_depth(&self) -> usize;

    /// Most rows of logits that a plan may ask for, over all its sequences; at least as many as
    /// sequences may run at once.
    fn max_logit_rows(&self) -> u32;

    /// Most guesses at further tokens that a sequence of a plan may carry; 0 if it can check none.
    fn max_draft_tokens(&self) -> u32 {
        0
    }

    /// Queues a plan. Must return promptly: the device, not the caller, does the work.
    fn submit(&mut self, plan: StepPlan);

    /// Waits for the oldest plan in flight.
    fn wait(&mut self) -> Result<StepOutcome, StepFailure>;

    /// Gives memory back until [`wake`](Executor::wake). No plan may be in flight, and none may be submitted
    /// meanwhile. An error leaves the executor awake.
    fn sleep(&mut self, _level: SleepLevel) -> Result<(), String> {
        Err("what computes this model cannot sleep".to_owned())
    }

    /// Takes the memory again, with a KV cache of the same shape that holds nothing. `progress` is told how many bytes of
    /// how many are done. An error leaves the executor asleep.
    fn wake(&mut self, _progress: &(dyn Fn(u64, u64) + Sync)) -> Result<(), String> {
        Err("what computes this model cannot sleep".to_owned())
    }
}

/// How deep an executor sleeps. vLLM's levels 1 and 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SleepLevel {
    /// The device's memory is given back, and the weights are kept in the host's.
    KeepWeights,
    /// The weights are given up as well, and read again on waking.
    DropWeights,
}

impl SleepLevel {
    /// Its number: 1 or 2.
    pub fn number(self) -> u8 {
        match self {
            Self::KeepWeights => 1,
            Self::DropWeights => 2,
        }
    }
}

/// A step that did not complete. Its sequences are rolled back and tried again, or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepFailure {
    /// The plan that failed.
    pub plan: PlanId,
    /// What happened, for the log.
    pub message: String,
    /// The executor can run no further plan.
    pub fatal: bool,
}
