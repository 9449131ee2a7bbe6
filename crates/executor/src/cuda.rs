//! Executor on a card.
//!
//! A worker thread turns plans into uploads and launches while the device computes the step
//! before. Sampled tokens stay on the device, where the next step's embedding reads them; the
//! host gets copies, which it waits for only in [`Executor::wait`].

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use backstop_arch::Model;
use backstop_kernels::Batch;
use backstop_kernels::cuda::DeviceError;
use backstop_kernels::cuda::backend::CudaBackend;
use backstop_kernels::cuda::batch::TableUpdate;
use backstop_kernels::cuda::runner::{
    HistoryStart, Outputs, Runner, STEPS_IN_FLIGHT, StepWork, Ticket,
};
use backstop_kernels::ops::embed::cuda::FEEDBACK;
use backstop_kernels::ops::sample::cuda::{SampleStep, StepRow, needs_history};
use backstop_types::{
    Executor, KvSpec, PlanId, SamplingParams, ScheduledSequence, SequenceId, StepFailure,
    StepOutcome, StepPlan, StopConditions, TokenId, TokenSample,
};

/// What a [`CudaExecutor`] is made of.
#[expect(
    missing_debug_implementations,
    reason = "models and device memory have no useful text form"
)]
pub struct CudaExecutorConfig {
    /// The architecture.
    pub model: Box<dyn Model<CudaBackend>>,
    /// Weights, KV memory and everything else on the device.
    pub runner: Runner,
    /// Shape of the KV memory.
    pub kv: KvSpec,
    /// Slots.
    pub max_num_seqs: u32,
    /// Record the decode steps and replay them.
    pub graphs: bool,
}

/// Runs plans on a card.
#[expect(
    missing_debug_implementations,
    reason = "device memory has no useful text form"
)]
pub struct CudaExecutor {
    kv: KvSpec,
    plans: Sender<(u64, StepPlan)>,
    queued: Receiver<Result<QueuedStep, StepFailure>>,
    outputs: Arc<Outputs>,
    in_flight: VecDeque<PlanId>,
    /// Counts failures that the engine has seen, as the CPU's executor does.
    epoch: u64,
}

/// A step on its way, with what is needed to read its samples.
struct QueuedStep {
    plan: PlanId,
    ticket: Ticket,
    /// Sequences that sample, in order, and whether they want log-probabilities.
    samples: Vec<(SequenceId, bool)>,
}

impl CudaExecutor {
    /// Records the decode steps and starts the worker thread.
    pub fn new(config: CudaExecutorConfig) -> Result<Self, DeviceError> {
        let CudaExecutorConfig {
            model,
            mut runner,
            kv,
            max_num_seqs,
            graphs,
        } = config;
        if graphs {
            runner.capture(&mut |backend| model.forward(backend))?;
        }
        let outputs = runner.outputs();
        let (plans, plan_receiver) = channel();
        let (queued_sender, queued) = channel();
        let worker = Worker {
            samples: SampleStep::new(*runner.sample_limits()),
            slots: (0..max_num_seqs).map(|_| Slot::default()).collect(),
            model,
            runner,
            batch: Batch::new(),
            updates: Vec::new(),
            blocks: Vec::new(),
            failed_epoch: None,
        };
        std::thread::Builder::new()
            .name("executor".into())
            .spawn(move || worker.run(plan_receiver, queued_sender))
            .map_err(|error| DeviceError {
                attempt: "starting the executor's thread".into(),
                reason: error.to_string(),
                fatal: true,
            })?;
        Ok(Self {
            kv,
            plans,
            queued,
            outputs,
            in_flight: VecDeque::new(),
            epoch: 0,
        })
    }

    fn finish(&self, step: &QueuedStep) -> Result<StepOutcome, StepFailure> {
        let tokens = self
            .outputs
            .wait(step.ticket, |row| step.samples[row].1)
            .map_err(|error| failure(step.plan, &error))?;
        let samples = step.samples.iter().zip(tokens);
        Ok(StepOutcome {
            plan: step.plan,
            samples: samples
                .map(|(&(sequence, _), token)| TokenSample { sequence, token })
                .collect(),
        })
    }
}

/// A device that failed once is not trusted again unless it says so.
fn failure(plan: PlanId, error: &DeviceError) -> StepFailure {
    StepFailure {
        plan,
        message: error.to_string(),
        fatal: error.fatal,
    }
}

impl Executor for CudaExecutor {
    fn kv_spec(&self) -> &KvSpec {
        &self.kv
    }

    fn pipeline_depth(&self) -> usize {
        STEPS_IN_FLIGHT
    }

    fn submit(&mut self, plan: StepPlan) {
        assert!(
            self.in_flight.len() < STEPS_IN_FLIGHT,
            "the pipeline is full"
        );
        self.in_flight.push_back(plan.id);
        // A worker that is gone shows in `wait`.
        let _ignored = self.plans.send((self.epoch, plan));
    }

    fn wait(&mut self) -> Result<StepOutcome, StepFailure> {
        let plan = self.in_flight.pop_front().expect("a plan is in flight");
        let queued = self.queued.recv().unwrap_or_else(|_| {
            Err(StepFailure {
                plan,
                message: "the executor's thread ended".into(),
                fatal: true,
            })
        });
        let result = queued.and_then(|step| self.finish(&step));
        if result.is_err() && self.in_flight.is_empty() {
            self.epoch += 1;
        }
        result
    }
}

/// What the host knows of the sequence in a slot. It never learns the sampled tokens: the device
/// has them.
#[derive(Default)]
struct Slot {
    /// Tokens at the start; those behind them were sampled.
    tokens: Arc<[TokenId]>,
    prompt_len: usize,
    /// Tokens known, sampled ones included.
    len: usize,
    sampling: Arc<SamplingParams>,
    stop: Option<Arc<StopConditions>>,
}

impl Slot {
    fn masked(&self) -> &[TokenId] {
        match &self.stop {
            Some(stop) if self.len - self.prompt_len < stop.min_tokens as usize => {
                &stop.stop_token_ids
            }
            _ => &[],
        }
    }
}

struct Worker {
    model: Box<dyn Model<CudaBackend>>,
    runner: Runner,
    slots: Vec<Slot>,
    batch: Batch,
    samples: SampleStep,
    updates: Vec<TableUpdate>,
    blocks: Vec<u32>,
    /// Plans of this epoch lack inputs, because one before them failed.
    failed_epoch: Option<u64>,
}

impl Worker {
    fn run(
        mut self,
        plans: Receiver<(u64, StepPlan)>,
        queued: Sender<Result<QueuedStep, StepFailure>>,
    ) {
        while let Ok((epoch, plan)) = plans.recv() {
            let result = self.step_guarded(epoch, &plan);
            if queued.send(result).is_err() {
                return;
            }
        }
    }

    fn step_guarded(&mut self, epoch: u64, plan: &StepPlan) -> Result<QueuedStep, StepFailure> {
        let failed = |message: String| StepFailure {
            plan: plan.id,
            message,
            fatal: false,
        };
        if self.failed_epoch == Some(epoch) {
            return Err(failed("a step before it failed".into()));
        }
        let result = catch_unwind(AssertUnwindSafe(|| self.step(plan)));
        let result = match result {
            Ok(queued) => queued.map_err(|error| failure(plan.id, &error)),
            Err(panic) => Err(failed(crate::panics::message(panic.as_ref()))),
        };
        if result.is_err() {
            self.failed_epoch = Some(epoch);
        }
        result
    }

    fn step(&mut self, plan: &StepPlan) -> Result<QueuedStep, DeviceError> {
        self.batch.clear();
        self.samples.clear();
        self.updates.clear();
        self.blocks.clear();
        let mut sampled = Vec::new();
        for scheduled in &plan.sequences {
            self.enter(scheduled);
            self.add_rows(scheduled);
            if scheduled.samples {
                let logprobs = self.add_sample(scheduled)?;
                sampled.push((scheduled.sequence, logprobs));
            }
        }
        let histories: Vec<HistoryStart<'_>> = starting_histories(plan).collect();
        let work = StepWork {
            batch: &self.batch,
            samples: &self.samples,
            updates: &self.updates,
            blocks: &self.blocks,
            histories: &histories,
            logprobs: sampled.iter().any(|&(_, logprobs)| logprobs),
        };
        let model = &self.model;
        let ticket = self
            .runner
            .submit(&work, &mut |backend| model.forward(backend))?;
        Ok(QueuedStep {
            plan: plan.id,
            ticket,
            samples: sampled,
        })
    }

    /// Takes in what the plan says of a sequence's slot.
    fn enter(&mut self, scheduled: &ScheduledSequence) {
        let index = scheduled.slot.0;
        if let Some(start) = &scheduled.start {
            self.slots[index as usize] = Slot {
                tokens: Arc::clone(&start.tokens),
                prompt_len: start.prompt_len as usize,
                len: start.tokens.len(),
                sampling: Arc::clone(&start.sampling),
                stop: Some(Arc::clone(&start.stop)),
            };
        }
        for append in &scheduled.new_blocks {
            self.updates.push(TableUpdate {
                table: append.group as u32,
                slot: index,
                first: append.first_index,
                count: append.blocks.len() as u32,
                offset: self.blocks.len() as u32,
            });
            self.blocks
                .extend(append.blocks.iter().map(|block| block.0));
        }
    }

    /// Adds the sequence's rows to the batch.
    fn add_rows(&mut self, scheduled: &ScheduledSequence) {
        let index = scheduled.slot.0;
        let slot = &self.slots[index as usize];
        let first = scheduled.first_position as usize;
        let end = first + scheduled.num_tokens as usize;
        assert!(
            end <= slot.len,
            "a step computes tokens that are known or in flight"
        );
        let known = end.min(slot.tokens.len()).max(first);
        // Of sampled tokens only the last is ever computed: those before it were inputs already.
        assert!(end - known <= 1, "at most one token is in flight");
        let mut tokens =
            slot.tokens[first.min(slot.tokens.len())..known.min(slot.tokens.len())].to_vec();
        tokens.resize(end - first, FEEDBACK | index);
        self.batch
            .push(index, scheduled.first_position, &tokens, scheduled.samples);
    }

    /// Adds how the sequence's next token is sampled; says whether log-probabilities are wanted.
    fn add_sample(&mut self, scheduled: &ScheduledSequence) -> Result<bool, DeviceError> {
        let index = scheduled.slot.0;
        let slot = &mut self.slots[index as usize];
        let row = StepRow {
            params: &slot.sampling,
            slot: index,
            position: slot.len as u32,
            history: needs_history(&slot.sampling).then_some(index),
            masked: slot.masked(),
            allowed: None,
        };
        self.samples.push(row).map_err(|full| DeviceError {
            attempt: "preparing a step's sampling".into(),
            reason: full.to_string(),
            fatal: false,
        })?;
        slot.len += 1;
        Ok(slot.sampling.logprobs.is_some())
    }
}

/// Sequences with penalties that enter their slots.
fn starting_histories(plan: &StepPlan) -> impl Iterator<Item = HistoryStart<'_>> {
    plan.sequences.iter().filter_map(|scheduled| {
        let start = scheduled.start.as_ref()?;
        needs_history(&start.sampling).then(|| HistoryStart {
            slot: scheduled.slot.0,
            tokens: &start.tokens,
            prompt_len: start.prompt_len as usize,
        })
    })
}
