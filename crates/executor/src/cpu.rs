//! Executor on the machine's processors.
//!
//! A worker thread owns model, weights, KV cache and slots and runs the plans in order, while the
//! engine prepares the next one. The work of a step is spread over a thread pool of its own, so
//! that a busy HTTP server and a busy model do not queue behind each other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};

use backstop_arch::Model;
use backstop_kernels::{Batch, CpuBackend, SampleArgs, SampleScratch, rate, sample};
use backstop_types::{
    Executor, KvSpec, PlanId, PromptLogprobs, SampleFault, SampledToken, ScheduledSequence,
    StepFailure, StepOutcome, StepPlan, TokenId, TokenLogprobs, TokenSample,
};
use rayon::prelude::*;

use crate::constraint::Follower;
use crate::drafter::Drafter;
use crate::slots::{Slot, Slots};

/// One plan runs while the next is prepared.
const PIPELINE_DEPTH: usize = 2;
/// Rows of logits of a step if few sequences may run: prompts are rated this many tokens at a time.
const MIN_LOGIT_ROWS: u32 = 64;
/// Guesses at further tokens that a step checks for one sequence.
const MAX_DRAFT_TOKENS: u32 = 32;

/// What a [`CpuExecutor`] is made of.
#[expect(
    missing_debug_implementations,
    reason = "models and weights have no useful text form"
)]
pub struct CpuExecutorConfig {
    /// The architecture.
    pub model: Box<dyn Model<CpuBackend>>,
    /// Weights and KV memory.
    pub backend: CpuBackend,
    /// Shape of the KV memory that `backend` holds.
    pub kv: KvSpec,
    /// Slots.
    pub max_num_seqs: u32,
    /// Threads that share the work of a step.
    pub num_threads: usize,
    /// What proposes tokens with those that are sampled, if anything.
    pub drafter: Option<Drafter>,
}

/// Runs plans on the CPU.
#[derive(Debug)]
pub struct CpuExecutor {
    kv: KvSpec,
    max_logit_rows: u32,
    plans: Sender<(u64, StepPlan)>,
    results: Receiver<Result<StepOutcome, StepFailure>>,
    in_flight: std::collections::VecDeque<PlanId>,
    /// Counts failures that the engine has seen. A plan carries the count at its submission, so
    /// that the worker can tell plans made before a failure was known from those made after it.
    epoch: u64,
}

impl CpuExecutor {
    /// Starts the worker thread.
    pub fn new(config: CpuExecutorConfig) -> std::io::Result<Self> {
        let (plans, plan_receiver) = channel();
        let (result_sender, results) = channel();
        let kv = config.kv.clone();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(config.num_threads)
            .thread_name(|index| format!("compute-{index}"))
            .build()
            .map_err(std::io::Error::other)?;
        let worker = Worker {
            slots: Slots::new(&config.kv, config.max_num_seqs),
            model: config.model,
            backend: config.backend,
            drafter: config.drafter,
            batch: Batch::new(),
            tokens: Vec::new(),
            scratch: SampleScratch::default(),
            failed_epoch: None,
        };
        std::thread::Builder::new()
            .name("executor".into())
            .spawn(move || {
                // The whole loop runs inside the pool: entering it for every operation would cost a
                // thread switch each.
                pool.install(move || worker.run(plan_receiver, result_sender));
            })?;
        Ok(Self {
            kv,
            max_logit_rows: config.max_num_seqs.max(MIN_LOGIT_ROWS),
            plans,
            results,
            in_flight: Default::default(),
            epoch: 0,
        })
    }
}

impl Executor for CpuExecutor {
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
        let result = self.results.recv().unwrap_or_else(|_| {
            Err(StepFailure {
                plan,
                message: "the executor's thread ended".into(),
                fatal: true,
            })
        });
        if result.is_err() && self.in_flight.is_empty() {
            self.epoch += 1;
        }
        result
    }
}

struct Worker {
    model: Box<dyn Model<CpuBackend>>,
    backend: CpuBackend,
    drafter: Option<Drafter>,
    slots: Slots,
    batch: Batch,
    /// Inputs of the sequence that is being added to the batch.
    tokens: Vec<TokenId>,
    scratch: SampleScratch,
    /// Plans of this epoch lack inputs, because one before them failed.
    failed_epoch: Option<u64>,
}

impl Worker {
    fn run(
        mut self,
        plans: Receiver<(u64, StepPlan)>,
        results: Sender<Result<StepOutcome, StepFailure>>,
    ) {
        while let Ok((epoch, plan)) = plans.recv() {
            let result = self.step_guarded(epoch, &plan);
            if results.send(result).is_err() {
                return;
            }
        }
    }

    fn step_guarded(&mut self, epoch: u64, plan: &StepPlan) -> Result<StepOutcome, StepFailure> {
        let failure = |message: String| StepFailure {
            plan: plan.id,
            message,
            fatal: false,
        };
        if self.failed_epoch == Some(epoch) {
            return Err(failure("a step before it failed".into()));
        }
        // A panic in a kernel costs this step, not the server: the sequences are started anew,
        // and those that fail again and again are given up one by one.
        catch_unwind(AssertUnwindSafe(|| self.step(plan))).map_err(|panic| {
            self.failed_epoch = Some(epoch);
            failure(crate::panics::message(panic.as_ref()))
        })
    }

    fn step(&mut self, plan: &StepPlan) -> StepOutcome {
        self.batch.clear();
        for scheduled in &plan.sequences {
            self.slots.update(scheduled);
            let first_row = self.batch.rows();
            let rows = scheduled.rated.clone();
            let rows = rows.map(|position| first_row + position - scheduled.first_position);
            self.batch.logit_rows.extend(rows);
            self.tokens.clear();
            self.tokens.extend(self.slots.tokens(scheduled));
            let first_position = scheduled.first_position;
            self.batch
                .push(scheduled.slot.0, first_position, &self.tokens, false);
            let sampling = u32::from(scheduled.samples) + scheduled.draft.len() as u32;
            let end = self.batch.rows();
            self.batch.logit_rows.extend(end - sampling..end);
        }
        self.backend.begin(&self.batch, &self.slots.tables);
        let hidden = self.model.forward(&mut self.backend);
        let vocabulary = self.model.spec().vocabulary_size as usize;
        self.slots.prepare_masks(plan, vocabulary);
        let mut outcome = self.read_rows(plan, vocabulary);
        if let Some(drafter) = &mut self.drafter {
            drafter.propose(plan, &self.slots, &hidden, &mut outcome);
        }
        outcome
    }

    /// What the rows of logits say: first the rated ones of a sequence, then the one that yields
    /// its next token.
    fn read_rows(&mut self, plan: &StepPlan, vocabulary: usize) -> StepOutcome {
        let mut rows = self.backend.logits().chunks_exact(vocabulary);
        let mut outcome = StepOutcome {
            plan: plan.id,
            samples: Vec::new(),
            prompt_logprobs: Vec::new(),
        };
        for scheduled in &plan.sequences {
            let slot = &mut self.slots.slots[scheduled.slot.0 as usize];
            let rated = scheduled.rated.len();
            if rated > 0 {
                let rows: Vec<&[f32]> = rows.by_ref().take(rated).collect();
                outcome.prompt_logprobs.push(PromptLogprobs {
                    sequence: scheduled.sequence,
                    tokens: rate_prompt(slot, scheduled.rated.start, &rows),
                });
            }
            if scheduled.samples {
                let rows: Vec<&[f32]> = rows.by_ref().take(1 + scheduled.draft.len()).collect();
                outcome
                    .samples
                    .push(sample_rows(slot, scheduled, &rows, &mut self.scratch));
            }
        }
        outcome
    }
}

/// Log-probabilities of the tokens behind the positions from `first` on, which have these logits.
fn rate_prompt(
    slot: &Slot,
    first: u32,
    rows: &[&[f32]],
) -> Result<Vec<TokenLogprobs>, SampleFault> {
    let alternatives = slot.sampling.prompt_logprobs.unwrap_or(0);
    let tokens = &slot.tokens[first as usize + 1..];
    rows.par_iter()
        .zip(tokens)
        .map_init(SampleScratch::default, |scratch, (logits, &token)| {
            rate(logits, token, alternatives, scratch).ok_or(SampleFault::NotANumber)
        })
        .collect()
}

/// The next token of a sequence, and those behind it for as long as guesses are right. Each is
/// sampled as if it were alone, so that guesses never change what is said.
fn sample_rows(
    slot: &mut Slot,
    scheduled: &ScheduledSequence,
    rows: &[&[f32]],
    scratch: &mut SampleScratch,
) -> TokenSample {
    let token = next_token(slot, rows[0], scratch);
    let mut last = token.as_ref().ok().map(|token| token.id);
    slot.push(last);
    let mut further = Vec::new();
    for (&guess, &logits) in scheduled.draft.iter().zip(&rows[1..]) {
        if last != Some(guess) {
            break;
        }
        // A fault behind the first token is found again by the next step.
        let Ok(token) = next_token(slot, logits, scratch) else {
            break;
        };
        last = Some(token.id);
        slot.push(last);
        further.push(token);
    }
    TokenSample {
        sequence: scheduled.sequence,
        token,
        further,
        proposal: Vec::new(),
    }
}

fn next_token(
    slot: &Slot,
    logits: &[f32],
    scratch: &mut SampleScratch,
) -> Result<SampledToken, SampleFault> {
    let allowed = slot.follower.as_ref().map(Follower::allowed).transpose()?;
    let (prompt, output) = slot.tokens.split_at(slot.prompt_len);
    let args = SampleArgs {
        logits,
        params: &slot.sampling,
        prompt,
        output,
        masked: slot.masked(),
        allowed,
        position: slot.tokens.len() as u32,
    };
    sample(&args, scratch).ok_or_else(|| {
        let usable = logits.iter().all(|&logit| logit < f32::INFINITY);
        match allowed.is_some() && usable {
            true => SampleFault::Constraint,
            false => SampleFault::NotANumber,
        }
    })
}
