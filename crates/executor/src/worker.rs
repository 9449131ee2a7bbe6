//! The thread that makes steps of plans, the same for all devices.
//!
//! With a device that queues its work it runs ahead and does not know the tokens that are being
//! sampled. Grammars must know them: a step with a sequence that follows one is computed at once,
//! and sampled when the step before it is read and the masks are made, so that the device computes
//! the one while the host waits for the other. Steps without such sequences wait for nothing.

use std::any::Any;
use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use backstop_kernels::Batch;
use backstop_types::{ScheduledSequence, StepOutcome, StepPlan, TokenId};

use crate::constraint::prepare_masks;
use crate::device::{Continuation, KeptWeights, LogitRow, StepDevice, StepFault};
use crate::panics::message;
use crate::slots::Slot;
use crate::step::QueuedStep;
use crate::worker_thread::StepResult;

/// What a worker is asked.
pub(crate) enum Task {
    /// To run a plan of this epoch.
    Step(u64, StepPlan),
    /// For the weights, behind all plans.
    KeepWeights(Sender<Result<KeptWeights, StepFault>>),
}

pub(crate) struct Worker {
    device: Box<dyn StepDevice>,
    slots: Vec<Slot>,
    /// Steps whose samples the slots have not been told of, oldest first.
    unread: VecDeque<Arc<QueuedStep>>,
    batch: Batch,
    steps: u64,
    /// Plans of this epoch lack inputs, because one before them failed.
    failed_epoch: Option<u64>,
}

impl Worker {
    pub(crate) fn new(device: Box<dyn StepDevice>, max_num_seqs: u32) -> Self {
        Self {
            device,
            slots: (0..max_num_seqs).map(|_| Slot::default()).collect(),
            unread: VecDeque::new(),
            batch: Batch::new(),
            steps: 0,
            failed_epoch: None,
        }
    }

    /// Does what it is asked until nobody asks any more.
    pub(crate) fn run(mut self, tasks: &Receiver<Task>, queued: &Sender<StepResult>) {
        while let Ok(task) = tasks.recv() {
            match task {
                Task::Step(epoch, plan) => {
                    let id = plan.id;
                    let step = self.step_guarded(epoch, plan);
                    // Who waits for nothing any more is about to end this thread.
                    let _ignored = queued.send(step.map_err(|fault| fault.of_plan(id)));
                }
                Task::KeepWeights(reply) => {
                    let _ignored = reply.send(self.device.keep_weights());
                }
            }
        }
    }

    fn step_guarded(&mut self, epoch: u64, plan: StepPlan) -> Result<Arc<QueuedStep>, StepFault> {
        if self.failed_epoch == Some(epoch) {
            return Err(StepFault::passing("a step before it failed"));
        }
        // A panic in a kernel costs this step, not the server: the sequences are started anew,
        // and those that fail again and again are given up one by one.
        let step = catch_unwind(AssertUnwindSafe(|| self.step(plan)));
        let panicked = |panic: Box<dyn Any + Send>| StepFault::passing(message(panic.as_ref()));
        let step = step.map_err(panicked).flatten();
        if step.is_err() {
            self.failed_epoch = Some(epoch);
        }
        step
    }

    fn step(&mut self, mut plan: StepPlan) -> Result<Arc<QueuedStep>, StepFault> {
        self.read_before_step();
        self.steps += 1;
        self.batch.clear();
        for scheduled in &mut plan.sequences {
            self.enter(scheduled);
            self.add_to_batch(scheduled);
        }
        self.device.compute(&plan, &self.batch)?;
        self.prepare_masks(&plan);
        let results = self.device.sample(&logit_rows(&self.slots, &plan))?;
        for scheduled in plan.sequences.iter().filter(|scheduled| scheduled.samples) {
            self.slots[scheduled.slot.0 as usize].sampled(scheduled);
        }
        let mut step = QueuedStep {
            number: self.steps,
            plan,
            results,
            proposals: Vec::new(),
        };
        if self.device.proposes() {
            step.proposals = self.propose(&step)?;
            return Ok(Arc::new(step));
        }
        let step = Arc::new(step);
        self.unread.push_back(Arc::clone(&step));
        Ok(step)
    }

    /// Reads what the device does not keep any longer, and how many of the latest guesses were
    /// right. Neither is waited for: plans are made when such steps are known to be done.
    fn read_before_step(&mut self) {
        let steps_ahead = self.device.limits().steps_ahead;
        while self.unread.len() > steps_ahead || self.unread.iter().any(|step| step.has_guesses()) {
            self.read_oldest();
        }
    }

    /// Tells the slots what the oldest unread step sampled. One that failed is told to whoever
    /// waits for it, and its sequences start again; until then their grammars are lost.
    fn read_oldest(&mut self) {
        if let Some(step) = self.unread.pop_front() {
            let outcome = step.outcome().ok();
            self.read(&step, outcome.as_ref());
        }
    }

    fn read(&mut self, step: &QueuedStep, outcome: Option<&StepOutcome>) {
        for (index, scheduled) in step.sampling().enumerate() {
            let slot = &mut self.slots[scheduled.slot.0 as usize];
            if slot.was_in(step.number) {
                slot.read(scheduled, outcome.map(|outcome| &outcome.samples[index]));
            }
        }
    }

    /// Takes in what the plan says of a sequence, without guesses that cannot be checked. Those of a
    /// sequence with a grammar would each need a mask.
    fn enter(&mut self, scheduled: &mut ScheduledSequence) {
        let slot = &mut self.slots[scheduled.slot.0 as usize];
        if let Some(start) = &scheduled.start {
            slot.enter(self.steps, start);
        }
        let checks = slot.follower.is_none() && self.device.checks_guesses(&slot.sampling);
        if !checks {
            scheduled.num_tokens -= scheduled.draft.len() as u32;
            scheduled.draft.clear();
        }
        slot.guess(&scheduled.draft);
    }

    fn add_to_batch(&mut self, scheduled: &ScheduledSequence) {
        let first_row = self.batch.rows();
        let tokens = self.slots[scheduled.slot.0 as usize].tokens_of(scheduled);
        self.batch
            .push(scheduled.slot.0, scheduled.first_position, tokens, false);
        let end = self.batch.rows();
        let rated = scheduled.rated.clone();
        let rated = rated.map(|position| first_row + position - scheduled.first_position);
        self.batch.logit_rows.extend(rated);
        self.batch
            .logit_rows
            .extend(end - scheduled.sampled_rows()..end);
    }

    /// Makes the masks of the plan's sequences that follow grammars, for which their last tokens
    /// must be known.
    fn prepare_masks(&mut self, plan: &StepPlan) {
        let sampling = plan.sequences.iter().filter(|scheduled| scheduled.samples);
        let slots = sampling.map(|scheduled| scheduled.slot.0 as usize);
        let slots: BTreeSet<usize> = slots
            .filter(|&slot| self.slots[slot].follower.is_some())
            .collect();
        if slots.is_empty() {
            return;
        }
        while self
            .unread
            .iter()
            .any(|step| self.samples_any(step, &slots))
        {
            self.read_oldest();
        }
        let due = self.slots.iter_mut().enumerate();
        let due = due.filter(|(slot, _)| slots.contains(slot));
        let followers = due.filter_map(|(_, slot)| slot.follower.as_mut());
        prepare_masks(followers, self.device.limits().vocabulary);
    }

    /// Whether a step samples a sequence that is in one of these slots.
    fn samples_any(&self, step: &QueuedStep, slots: &BTreeSet<usize>) -> bool {
        let mut sampled = step.sampling().map(|scheduled| scheduled.slot.0 as usize);
        sampled.any(|slot| slots.contains(&slot) && self.slots[slot].was_in(step.number))
    }

    /// Lets the device guess what follows this step, which is waited for.
    fn propose(&mut self, step: &QueuedStep) -> Result<Vec<Vec<TokenId>>, StepFault> {
        let outcome = step.outcome()?;
        self.read(step, Some(&outcome));
        let mut samples = outcome.samples.iter();
        let continuations = step.plan.sequences.iter().map(|scheduled| {
            let sample = scheduled.samples.then(|| samples.next()).flatten();
            self.slots[scheduled.slot.0 as usize].continuation(scheduled, sample)
        });
        let continuations: Vec<Continuation<'_>> = continuations.collect();
        self.device.propose(&continuations)
    }
}

/// What the rows of logits are for, in the order in which they were added to the batch.
fn logit_rows<'a>(slots: &'a [Slot], plan: &'a StepPlan) -> Vec<LogitRow<'a>> {
    let sequences = plan.sequences.iter();
    let rows =
        sequences.flat_map(|scheduled| slots[scheduled.slot.0 as usize].logit_rows(scheduled));
    rows.collect()
}
