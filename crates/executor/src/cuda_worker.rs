//! The thread that turns plans into uploads and launches.
//!
//! It runs ahead of the device and does not know the tokens that are being sampled. Grammars must
//! know them, so a step with a sequence that follows one is queued in two parts: its operations at
//! once, and its sampling when the step before it is done and the masks are made. The device
//! computes the one while the host waits for the other. Steps without such sequences never wait.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use backstop_arch::Model;
use backstop_card::DeviceError;
use backstop_card::backend::CudaBackend;
use backstop_card::batch::TableUpdate;
use backstop_card::ops::embed::FEEDBACK;
use backstop_card::ops::sample::{SampleStep, SampleStepFull, StepRow, needs_history};
use backstop_card::runner::{HistoryStart, Runner, STEPS_IN_FLIGHT, StepWork, Ticket};
use backstop_kernels::Batch;
use backstop_types::{
    SamplingParams, ScheduledSequence, StepFailure, StepPlan, StopConditions, TokenId,
};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::constraint::{Follower, prepare_masks};
use crate::cuda::{Grammar, QueuedRow, QueuedStep, failure, no_thread};

/// Most threads that make masks.
const MAX_MASK_THREADS: usize = 16;

/// What the host knows of the sequence in a slot. It keeps none of the sampled tokens: the device
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
    /// Present if a grammar restricts the answer.
    follower: Option<Follower>,
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

/// Samples of a step on its way that grammars have not been told of.
struct Unread {
    ticket: Ticket,
    /// Rows, and the slots of their sequences.
    rows: Vec<(usize, u32)>,
}

pub(crate) struct Worker {
    model: Box<dyn Model<CudaBackend>>,
    runner: Runner,
    slots: Vec<Slot>,
    /// Steps whose outputs have not been overwritten, oldest first.
    unread: VecDeque<Unread>,
    mask_threads: ThreadPool,
    batch: Batch,
    samples: SampleStep,
    updates: Vec<TableUpdate>,
    blocks: Vec<u32>,
    /// Plans of this epoch lack inputs, because one before them failed.
    failed_epoch: Option<u64>,
}

impl Worker {
    pub(crate) fn new(
        model: Box<dyn Model<CudaBackend>>,
        runner: Runner,
        max_num_seqs: u32,
    ) -> Result<Self, DeviceError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mask_threads = ThreadPoolBuilder::new()
            .num_threads(threads.min(MAX_MASK_THREADS))
            .thread_name(|index| format!("mask-{index}"))
            .build()
            .map_err(|error| no_thread(&error))?;
        Ok(Self {
            samples: SampleStep::new(*runner.sample_limits()),
            slots: (0..max_num_seqs).map(|_| Slot::default()).collect(),
            unread: VecDeque::new(),
            mask_threads,
            model,
            runner,
            batch: Batch::new(),
            updates: Vec::new(),
            blocks: Vec::new(),
            failed_epoch: None,
        })
    }

    pub(crate) fn run(
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
        for scheduled in &plan.sequences {
            self.enter(scheduled);
            self.add_rows(scheduled);
        }
        let histories: Vec<HistoryStart<'_>> = starting_histories(plan).collect();
        let work = StepWork {
            batch: &self.batch,
            updates: &self.updates,
            blocks: &self.blocks,
            histories: &histories,
        };
        let model = &self.model;
        let computed = self.runner.compute(&work, &mut |backend| {
            model.forward(backend);
        })?;
        self.prepare_masks(plan);
        let rows = self.add_samples(plan).map_err(|full| DeviceError {
            attempt: "preparing a step's sampling".into(),
            reason: full.to_string(),
            fatal: false,
        })?;
        let logprobs = rows.iter().any(QueuedRow::wants_logprobs);
        let ticket = self.runner.sample(computed, &self.samples, logprobs)?;
        self.remember(plan, ticket, &rows);
        Ok(QueuedStep {
            plan: plan.id,
            ticket,
            rows,
        })
    }

    /// Makes the masks of the plan's sequences that follow grammars. If the last token of one is
    /// not known, this waits for the step before.
    fn prepare_masks(&mut self, plan: &StepPlan) {
        // Only two steps are on their way at once: before this one was handed in, somebody has
        // waited for the one whose outputs it is going to overwrite.
        while self.unread.len() >= STEPS_IN_FLIGHT {
            self.read_oldest();
        }
        let sampling = plan.sequences.iter().filter(|scheduled| scheduled.samples);
        let slots = sampling.map(|scheduled| scheduled.slot.0);
        let following: Vec<u32> = slots
            .filter(|&slot| self.slots[slot as usize].follower.is_some())
            .collect();
        if following.is_empty() {
            return;
        }
        let waits = |unread: &Unread| unread.rows.iter().any(|(_, slot)| following.contains(slot));
        while self.unread.iter().any(waits) {
            self.read_oldest();
        }
        let vocabulary = self.runner.sample_limits().vocabulary;
        let followers = self.slots.iter_mut().map(|slot| slot.follower.as_mut());
        let followers: Vec<Option<&mut Follower>> = followers.collect();
        self.mask_threads
            .install(|| prepare_masks(plan, followers.into_iter(), vocabulary));
    }

    /// Tells the grammars what the oldest unread step sampled.
    fn read_oldest(&mut self) {
        let Some(unread) = self.unread.pop_front() else {
            return;
        };
        if unread.rows.is_empty() {
            return;
        }
        // A step that failed is told to whoever waits for it, and its sequences start again. Until
        // then their grammars are lost.
        let tokens = self.runner.outputs().wait(unread.ticket, |_| false);
        for (row, slot) in unread.rows {
            let token = tokens.as_ref().ok().and_then(|tokens| tokens[row].as_ref());
            if let Some(follower) = &mut self.slots[slot as usize].follower {
                follower.push(token.map(|token| token.id));
            }
        }
    }

    /// Keeps in mind which of a step's samples grammars must be told of.
    fn remember(&mut self, plan: &StepPlan, ticket: Ticket, rows: &[QueuedRow]) {
        let samples = rows.iter().enumerate();
        let samples = samples.filter(|(_, row)| matches!(row, QueuedRow::Sample { .. }));
        let slots = plan.sequences.iter().filter(|scheduled| scheduled.samples);
        let rows = samples
            .zip(slots.map(|scheduled| scheduled.slot.0))
            .filter(|(_, slot)| self.slots[*slot as usize].follower.is_some())
            .map(|((row, _), slot)| (row, slot));
        let rows = rows.collect();
        self.unread.push_back(Unread { ticket, rows });
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
                follower: Follower::new(start),
            };
            // Samples of the slot's last sequence, or of this one before it was preempted.
            for unread in &mut self.unread {
                unread.rows.retain(|&(_, slot)| slot != index);
            }
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
        let first_row = self.batch.rows();
        let rated = scheduled.rated.clone();
        let rated = rated.map(|position| first_row + position - scheduled.first_position);
        self.batch.logit_rows.extend(rated);
        self.batch
            .push(index, scheduled.first_position, &tokens, scheduled.samples);
    }

    /// Adds what each of the step's rows of logits is for, in the order of [`add_rows`].
    ///
    /// [`add_rows`]: Self::add_rows
    fn add_samples(&mut self, plan: &StepPlan) -> Result<Vec<QueuedRow>, SampleStepFull> {
        let mut rows = Vec::new();
        for scheduled in &plan.sequences {
            let slot = &self.slots[scheduled.slot.0 as usize];
            let alternatives = slot.sampling.prompt_logprobs.unwrap_or(0);
            for position in scheduled.rated.clone() {
                let token = slot.tokens[position as usize + 1];
                let nobody = self.runner.rating_slot();
                self.samples.push_rating(token, alternatives, nobody)?;
                let sequence = scheduled.sequence;
                rows.push(QueuedRow::Rating { sequence, token });
            }
            if scheduled.samples {
                rows.push(self.add_sample(scheduled)?);
            }
        }
        Ok(rows)
    }

    /// Adds how the sequence's next token is sampled.
    fn add_sample(&mut self, scheduled: &ScheduledSequence) -> Result<QueuedRow, SampleStepFull> {
        let index = scheduled.slot.0;
        let slot = &mut self.slots[index as usize];
        let (grammar, allowed) = match slot.follower.as_ref().map(Follower::allowed) {
            None => (Grammar::None, None),
            Some(Ok(mask)) => (Grammar::Followed, Some(mask)),
            Some(Err(_)) => (Grammar::Lost, None),
        };
        self.samples.push(StepRow {
            params: &slot.sampling,
            slot: index,
            position: slot.len as u32,
            history: needs_history(&slot.sampling).then_some(index),
            masked: slot.masked(),
            allowed,
        })?;
        slot.len += 1;
        Ok(QueuedRow::Sample {
            sequence: scheduled.sequence,
            logprobs: slot.sampling.logprobs.is_some(),
            grammar,
        })
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
