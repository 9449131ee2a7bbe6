//! The engine's side of an executor: plans go to the worker's thread, results come back.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use backstop_types::{Executor, KvSpec, PlanId, SleepLevel, StepFailure, StepOutcome, StepPlan};

use crate::device::{KeptWeights, StepDevice, StepFault};
use crate::plan::{Progress, Recipe, StartError, StartStage};
use crate::worker_thread::WorkerThread;

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
    state: State,
    /// How the model comes to its device again after a sleep, if it can.
    recipe: Option<Recipe>,
    in_flight: VecDeque<PlanId>,
    /// A step failed, and plans that were in flight then still are.
    failing: bool,
    /// Counts failures that the engine has seen. A plan carries the count at its submission, so
    /// that the worker can tell plans made before a failure was known from those made after it.
    epoch: u64,
}

/// Whether there is a device.
enum State {
    Awake(WorkerThread),
    /// With the weights, if they are kept.
    Asleep(Option<KeptWeights>),
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
        Ok(Self {
            max_logit_rows: device.limits().logit_rows,
            kv: settings.kv.clone(),
            state: State::Awake(WorkerThread::start(device, &settings)?),
            recipe: None,
            in_flight: VecDeque::new(),
            failing: false,
            epoch: 0,
        })
    }

    /// Brings a model to its device and starts the worker's thread. The executor can sleep.
    pub(crate) fn of_recipe(recipe: Recipe, progress: Progress<'_>) -> Result<Self, StartError> {
        let (device, settings) = recipe.load(None, progress)?;
        Ok(Self {
            recipe: Some(recipe),
            ..Self::start(device, settings)?
        })
    }

    fn worker(&self) -> &WorkerThread {
        match &self.state {
            State::Awake(worker) => worker,
            State::Asleep(_) => panic!("a plan for an executor that sleeps"),
        }
    }

    fn outcome_of(&mut self, plan: PlanId) -> Result<StepOutcome, StepFailure> {
        let queued = self.worker().next_step().unwrap_or_else(|| {
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
        self.worker().submit(self.epoch, plan);
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

    fn sleep(&mut self, level: SleepLevel) -> Result<(), String> {
        assert!(self.in_flight.is_empty(), "plans are in flight");
        if self.recipe.is_none() {
            return Err("this model cannot be loaded again, and so cannot sleep".to_owned());
        }
        let State::Awake(worker) = &self.state else {
            return Err("it sleeps already".to_owned());
        };
        let kept = match level {
            SleepLevel::KeepWeights => Some(worker.keep_weights()?),
            SleepLevel::DropWeights => None,
        };
        if let State::Awake(worker) = std::mem::replace(&mut self.state, State::Asleep(kept)) {
            // The device's memory goes with it.
            worker.end();
        }
        Ok(())
    }

    fn wake(&mut self, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<(), String> {
        let (State::Asleep(kept), Some(recipe)) = (&self.state, &self.recipe) else {
            return Err("it is awake".to_owned());
        };
        // Weights that were kept are given to the device, or stay kept if there is none.
        let loaded = recipe.load(kept.as_ref(), &|stage, done, total| {
            if stage == StartStage::Loading {
                progress(done, total);
            }
        });
        let (device, settings) = loaded.map_err(|error| error.to_string())?;
        let worker = WorkerThread::start(device, &settings);
        self.state = State::Awake(worker.map_err(|error| error.to_string())?);
        Ok(())
    }
}
