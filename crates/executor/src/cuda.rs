//! Executor on a card.
//!
//! A worker thread turns plans into uploads and launches while the device computes the step
//! before. Sampled tokens stay on the device, where the next step's embedding reads them; the
//! host gets copies, which it waits for only in [`Executor::wait`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use backstop_arch::Model;
use backstop_card::DeviceError;
use backstop_card::backend::CudaBackend;
use backstop_card::runner::{Outputs, Runner, STEPS_IN_FLIGHT, Ticket};
use backstop_types::{
    Executor, KvSpec, PlanId, PromptLogprobs, SampleFault, SampledToken, SequenceId, StepFailure,
    StepOutcome, StepPlan, TokenId, TokenLogprobs, TokenSample,
};

use crate::cuda_worker::Worker;

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
    max_logit_rows: u32,
    plans: Sender<(u64, StepPlan)>,
    queued: Receiver<Result<QueuedStep, StepFailure>>,
    outputs: Arc<Outputs>,
    in_flight: VecDeque<PlanId>,
    /// Counts failures that the engine has seen, as the CPU's executor does.
    epoch: u64,
}

/// A step on its way, with what is needed to read its rows.
pub(crate) struct QueuedStep {
    pub(crate) plan: PlanId,
    pub(crate) ticket: Ticket,
    pub(crate) rows: Vec<QueuedRow>,
}

/// What a row of logits is for.
#[derive(Clone, Copy)]
pub(crate) enum QueuedRow {
    /// Rates a token of a prompt.
    Rating {
        sequence: SequenceId,
        token: TokenId,
    },
    /// Yields the next token of a sequence.
    Sample {
        sequence: SequenceId,
        /// Whether its log-probability is wanted.
        logprobs: bool,
        grammar: Grammar,
    },
}

/// How a row's sequence stands to a grammar.
#[derive(Clone, Copy)]
pub(crate) enum Grammar {
    /// It has none.
    None,
    /// The row has a mask.
    Followed,
    /// There is no mask, and what is sampled does not count.
    Lost,
}

impl QueuedRow {
    pub(crate) fn wants_logprobs(&self) -> bool {
        match *self {
            Self::Rating { .. } => true,
            Self::Sample { logprobs, .. } => logprobs,
        }
    }

    /// Adds to the outcome what was sampled for the row.
    fn read(self, sampled: Option<SampledToken>, outcome: &mut StepOutcome) {
        match self {
            Self::Rating { sequence, token } => {
                // The row was made to sample this token, which it does with any usable logits.
                let certain = sampled.filter(|sampled| sampled.id == token);
                let rating = certain.and_then(|sampled| sampled.logprobs);
                let rating = rating.ok_or(SampleFault::NotANumber);
                add_rating(&mut outcome.prompt_logprobs, sequence, rating);
            }
            Self::Sample {
                sequence, grammar, ..
            } => {
                let token = match grammar {
                    Grammar::None => sampled.ok_or(SampleFault::NotANumber),
                    // The device does not say whether it was the mask or the logits.
                    Grammar::Followed => sampled.ok_or(SampleFault::Constraint),
                    Grammar::Lost => Err(SampleFault::Constraint),
                };
                outcome.samples.push(TokenSample {
                    sequence,
                    token,
                    further: Vec::new(),
                    proposal: Vec::new(),
                });
            }
        }
    }
}

fn add_rating(
    all: &mut Vec<PromptLogprobs>,
    sequence: SequenceId,
    rating: Result<TokenLogprobs, SampleFault>,
) {
    if all.last().is_none_or(|last| last.sequence != sequence) {
        all.push(PromptLogprobs {
            sequence,
            tokens: Ok(Vec::new()),
        });
    }
    let Some(PromptLogprobs { tokens, .. }) = all.last_mut() else {
        return;
    };
    match (tokens, rating) {
        (Ok(tokens), Ok(rating)) => tokens.push(rating),
        (tokens @ Ok(_), Err(fault)) => *tokens = Err(fault),
        (Err(_), _) => {}
    }
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
            runner.capture(&mut |backend| {
                model.forward(backend);
            })?;
        }
        let outputs = runner.outputs();
        let (plans, plan_receiver) = channel();
        let (queued_sender, queued) = channel();
        let max_logit_rows = runner.sample_limits().rows as u32;
        let worker = Worker::new(model, runner, max_num_seqs)?;
        std::thread::Builder::new()
            .name("executor".into())
            .spawn(move || worker.run(plan_receiver, queued_sender))
            .map_err(|error| no_thread(&error))?;
        Ok(Self {
            kv,
            max_logit_rows,
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
            .wait(step.ticket, |row| step.rows[row].wants_logprobs())
            .map_err(|error| failure(step.plan, &error))?;
        let mut outcome = StepOutcome {
            plan: step.plan,
            samples: Vec::new(),
            prompt_logprobs: Vec::new(),
        };
        for (row, token) in step.rows.iter().zip(tokens) {
            row.read(token, &mut outcome);
        }
        Ok(outcome)
    }
}

/// The system has no thread left.
pub(crate) fn no_thread(error: &dyn std::error::Error) -> DeviceError {
    DeviceError {
        attempt: "starting the executor's threads".into(),
        reason: error.to_string(),
        fatal: true,
    }
}

/// A device that failed once is not trusted again unless it says so.
pub(crate) fn failure(plan: PlanId, error: &DeviceError) -> StepFailure {
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

    fn max_logit_rows(&self) -> u32 {
        self.max_logit_rows
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
