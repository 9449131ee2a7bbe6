//! The engine's side of an executor: plans go to the worker's thread, results come back.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use backstop_types::{Executor, KvSpec, PlanId, StepFailure, StepOutcome, StepPlan};

use crate::device::{StepDevice, StepFault};
use crate::step::QueuedStep;
use crate::worker::Worker;

/// One plan runs while the next is prepared.
const PIPELINE_DEPTH: usize = 2;
/// Guesses at further tokens that a step checks for one sequence.
const MAX_DRAFT_TOKENS: u32 = 32;

/// Runs plans on a device.
#[expect(
    missing_debug_implementations,
    reason = "steps on their way have no useful text form"
)]
pub struct DeviceExecutor {
    kv: KvSpec,
    max_logit_rows: u32,
    plans: Sender<(u64, StepPlan)>,
    queued: Receiver<Result<Arc<QueuedStep>, StepFailure>>,
    in_flight: VecDeque<PlanId>,
    /// A step failed, and plans that were in flight then still are.
    failing: bool,
    /// Counts failures that the engine has seen. A plan carries the count at its submission, so
    /// that the worker can tell plans made before a failure was known from those made after it.
    epoch: u64,
}

/// What the worker is given besides its device.
#[derive(Clone, Debug)]
pub(crate) struct WorkerSettings {
    /// Shape of the device's KV memory.
    pub(crate) kv: KvSpec,
    /// Slots.
    pub(crate) max_num_seqs: u32,
    /// Threads for masks of grammars, and for whatever the device computes on the host.
    pub(crate) num_threads: usize,
}

impl DeviceExecutor {
    /// Starts the worker's thread.
    pub(crate) fn start(
        device: Box<dyn StepDevice>,
        settings: WorkerSettings,
    ) -> std::io::Result<Self> {
        let (plans, plan_receiver) = channel();
        let (queued_sender, queued) = channel();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(settings.num_threads)
            .thread_name(|index| format!("compute-{index}"))
            .build()
            .map_err(std::io::Error::other)?;
        let max_logit_rows = device.limits().logit_rows;
        let worker = Worker::new(device, settings.max_num_seqs);
        std::thread::Builder::new()
            .name("executor".into())
            .spawn(move || {
                // The whole loop runs inside the pool: entering it for every operation would cost a
                // thread switch each.
                pool.install(move || worker.run(&plan_receiver, &queued_sender));
            })?;
        Ok(Self {
            kv: settings.kv,
            max_logit_rows,
            plans,
            queued,
            in_flight: VecDeque::new(),
            failing: false,
            epoch: 0,
        })
    }

    fn outcome_of(&mut self, plan: PlanId) -> Result<StepOutcome, StepFailure> {
        let queued = self.queued.recv().unwrap_or_else(|_| {
            Err(StepFailure {
                plan,
                message: "the executor's thread ended".into(),
                fatal: true,
            })
        });
        let outcome = queued.and_then(|step| step.outcome().map_err(|fault| fault.of_plan(plan)));
        match outcome {
            Ok(_) if self.failing => {
                Err(StepFault::passing("a step before it failed").of_plan(plan))
            }
            outcome => outcome,
        }
    }
}

impl Executor for DeviceExecutor {
    fn kv_spec(&self) -> &KvSpec {
        &self.kv
    }

    fn pipeline_depth(&self) -> usize {
        PIPELINE_DEPTH
    }

    fn max_logit_rows(&self) -> u32 {
        self.max_logit_rows
    }

    fn max_draft_tokens(&self) -> u32 {
        MAX_DRAFT_TOKENS
    }

    fn submit(&mut self, plan: StepPlan) {
        assert!(
            self.in_flight.len() < PIPELINE_DEPTH,
            "the pipeline is full"
        );
        self.in_flight.push_back(plan.id);
        // A worker that is gone shows in `wait`.
        let _ignored = self.plans.send((self.epoch, plan));
    }

    fn wait(&mut self) -> Result<StepOutcome, StepFailure> {
        let plan = self.in_flight.pop_front().expect("a plan is in flight");
        let outcome = self.outcome_of(plan);
        self.failing |= outcome.is_err();
        if self.failing && self.in_flight.is_empty() {
            self.failing = false;
            self.epoch += 1;
        }
        outcome
    }
}
