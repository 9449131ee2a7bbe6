//! The scheduler's state, and the dispatch of events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use backstop_kv::fault::{Fault, planted};
use backstop_kv::{GroupUsage, KvCache};
use backstop_types::{FinishReason, PlanId, SequenceId, SequenceSlot};

use crate::budget::Want;
use crate::sequence::{Rank, Sequence, SequenceIndex, Stage};
use crate::tenants::Tenants;
use crate::{ConfigError, Event, Notice, Rejection, SchedulerConfig};

/// One sequence's part of a plan in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlannedSequence {
    pub(crate) index: SequenceIndex,
    pub(crate) num_tokens: u32,
    /// Prompt tokens that it rates.
    pub(crate) rated: u32,
    pub(crate) samples: bool,
    /// Guesses that it checks.
    pub(crate) drafts: u32,
}

/// A plan whose outcome is not known.
#[derive(Clone, Debug)]
pub(crate) struct PlanInFlight {
    pub(crate) id: PlanId,
    pub(crate) sequences: Vec<PlannedSequence>,
    /// A plan before it failed, so its inputs are missing and its sequences were rolled back.
    pub(crate) doomed: bool,
}

/// Counts since the beginning, which only grow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) prefix_cache_queries: u64,
    pub(crate) prefix_cache_hits: u64,
    pub(crate) preemptions: u64,
    pub(crate) plans_made: u64,
    pub(crate) plans_failed: u64,
    pub(crate) tokens_planned: u64,
    pub(crate) tokens_generated: u64,
    pub(crate) drafts: u64,
    pub(crate) draft_tokens: u64,
    pub(crate) accepted_tokens: u64,
    pub(crate) sequences_admitted: u64,
    pub(crate) sequences_finished: u64,
}

/// A snapshot for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchedulerStats {
    /// Sequences that hold a slot, those included that have ended and are still in flight.
    pub running: u32,
    /// Sequences that may hold a slot at once.
    pub max_running: u32,
    /// Sequences in the queue, preempted ones included.
    pub waiting: u32,
    /// Plans whose outcome is not known.
    pub plans_in_flight: u32,
    /// Blocks by use, for each attention group.
    pub kv_blocks: Vec<GroupUsage>,
    /// Prompt tokens looked up in the prefix cache at first admission.
    pub prefix_cache_queries: u64,
    /// Those of them that were found.
    pub prefix_cache_hits: u64,
    /// Times that a running sequence went back to the queue.
    pub preemptions: u64,
    /// Plans made.
    pub plans_made: u64,
    /// Plans that failed.
    pub plans_failed: u64,
    /// Positions that the plans computed, recomputed ones included.
    pub tokens_planned: u64,
    /// Tokens handed out.
    pub tokens_generated: u64,
    /// Times that tokens were guessed and checked.
    pub drafts: u64,
    /// Tokens that were guessed and checked.
    pub draft_tokens: u64,
    /// Tokens handed out because a guess before them was right.
    pub accepted_tokens: u64,
    /// Sequences that left the queue to run, each counted once.
    pub sequences_admitted: u64,
    /// Sequences that ended, for whatever reason.
    pub sequences_finished: u64,
}

/// Decides what each step computes. See the crate's documentation.
#[derive(Clone, Debug)]
pub struct Scheduler {
    pub(crate) config: SchedulerConfig,
    pub(crate) kv: KvCache,
    /// Indexed by [`SequenceIndex`]; at most `max_waiting + max_num_seqs` of them are in use.
    pub(crate) sequences: Vec<Option<Sequence>>,
    pub(crate) free_indices: Vec<SequenceIndex>,
    pub(crate) by_id: BTreeMap<SequenceId, SequenceIndex>,
    pub(crate) waiting: BTreeMap<Rank, SequenceIndex>,
    pub(crate) tenants: Tenants,
    /// Runs, and is to be preempted as soon as no plan uses it.
    pub(crate) leaving: Option<SequenceIndex>,
    /// Deadlines of sequences that have never been admitted.
    pub(crate) deadlines: BTreeSet<(u64, SequenceIndex)>,
    /// In rank order.
    pub(crate) running: Vec<SequenceIndex>,
    pub(crate) free_slots: Vec<SequenceSlot>,
    /// Oldest first.
    pub(crate) in_flight: VecDeque<PlanInFlight>,
    pub(crate) next_arrival: u64,
    pub(crate) next_plan: PlanId,
    pub(crate) notices: Vec<Notice>,
    pub(crate) counters: Counters,
    pub(crate) scratch: Scratch,
}

/// Lists that a plan needs while it is made, kept for their allocations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) candidates: Vec<SequenceIndex>,
    pub(crate) wants: Vec<Want>,
    pub(crate) row_wants: Vec<Want>,
    pub(crate) shares: Vec<u32>,
    pub(crate) reserved: Vec<u32>,
    pub(crate) planned: Vec<Vec<PlannedSequence>>,
}

impl Scheduler {
    /// A scheduler with nothing to do.
    pub fn new(config: SchedulerConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            kv: KvCache::new(&config.kv, config.enable_prefix_caching),
            sequences: Vec::new(),
            free_indices: Vec::new(),
            by_id: BTreeMap::new(),
            waiting: BTreeMap::new(),
            tenants: Tenants::default(),
            leaving: None,
            deadlines: BTreeSet::new(),
            running: Vec::with_capacity(config.max_num_seqs as usize),
            free_slots: (0..config.max_num_seqs).rev().map(SequenceSlot).collect(),
            in_flight: VecDeque::with_capacity(config.max_in_flight_plans as usize),
            next_arrival: 0,
            next_plan: PlanId(0),
            notices: Vec::new(),
            counters: Counters::default(),
            scratch: Scratch::default(),
            config,
        })
    }

    /// Takes an event. Only an arrival can be refused.
    ///
    /// # Panics
    ///
    /// When an outcome is not that of the oldest plan in flight: then executor and scheduler no
    /// longer agree on what the blocks hold, and going on would corrupt answers.
    pub fn on(&mut self, event: Event) -> Result<(), Rejection> {
        match event {
            Event::Arrive(arrival) => return self.arrive(arrival),
            Event::Abort(id) => self.abort(id),
            Event::StepDone(outcome) => self.step_done(outcome),
            Event::StepFailed(plan) => self.step_failed(plan),
            Event::Tick { now_ms } => self.expire(now_ms),
            Event::CacheLost => self.forget_cache(),
        }
        Ok(())
    }

    fn forget_cache(&mut self) {
        assert!(!self.has_work(), "the cache is lost under live sequences");
        if planted(Fault::LostCacheKept) {
            return;
        }
        self.kv = KvCache::new(&self.config.kv, self.config.enable_prefix_caching);
    }

    /// What happened since the last call, in order.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Whether any sequence is alive or any plan in flight.
    pub fn has_work(&self) -> bool {
        !self.by_id.is_empty() || !self.in_flight.is_empty()
    }

    /// Numbers for metrics.
    pub fn stats(&self) -> SchedulerStats {
        SchedulerStats {
            running: self.config.max_num_seqs - self.free_slots.len() as u32,
            max_running: self.config.max_num_seqs,
            waiting: self.waiting.len() as u32,
            plans_in_flight: self.in_flight.len() as u32,
            kv_blocks: (0..self.kv.num_groups())
                .map(|group| self.kv.usage(group))
                .collect(),
            prefix_cache_queries: self.counters.prefix_cache_queries,
            prefix_cache_hits: self.counters.prefix_cache_hits,
            preemptions: self.counters.preemptions,
            plans_made: self.counters.plans_made,
            plans_failed: self.counters.plans_failed,
            tokens_planned: self.counters.tokens_planned,
            tokens_generated: self.counters.tokens_generated,
            drafts: self.counters.drafts,
            draft_tokens: self.counters.draft_tokens,
            accepted_tokens: self.counters.accepted_tokens,
            sequences_admitted: self.counters.sequences_admitted,
            sequences_finished: self.counters.sequences_finished,
        }
    }

    pub(crate) fn sequence(&self, index: SequenceIndex) -> &Sequence {
        self.sequences[index.0 as usize]
            .as_ref()
            .expect("an index in use names a sequence")
    }

    pub(crate) fn sequence_mut(&mut self, index: SequenceIndex) -> &mut Sequence {
        self.sequences[index.0 as usize]
            .as_mut()
            .expect("an index in use names a sequence")
    }

    fn abort(&mut self, id: SequenceId) {
        let Some(&index) = self.by_id.get(&id) else {
            return;
        };
        let sequence = self.sequence(index);
        if planted(Fault::LostAbort) && sequence.stage == Stage::Running {
            return;
        }
        if sequence.stage != Stage::Ended {
            self.finish(index, FinishReason::Aborted);
        }
    }

    /// Ends a sequence: reports it, and gives back what it holds as soon as no plan uses it.
    pub(crate) fn finish(&mut self, index: SequenceIndex, reason: FinishReason) {
        let sequence = self.sequence_mut(index);
        let stage = std::mem::replace(&mut sequence.stage, Stage::Ended);
        let deadline_ms = sequence.deadline_ms;
        let notice = Notice::Finished {
            sequence: sequence.id,
            reason,
            usage: sequence.usage(),
        };
        let in_flight = sequence.plans_in_flight > 0;
        match stage {
            Stage::Waiting => {
                self.unqueue(index);
                if let Some(deadline_ms) = deadline_ms {
                    self.deadlines.remove(&(deadline_ms, index));
                }
            }
            Stage::Running => self.remove_running(index),
            Stage::Ended => panic!("a sequence ends once"),
        }
        self.notices.push(notice);
        self.counters.sequences_finished += 1;
        if !in_flight {
            self.forget(index);
        } else if planted(Fault::SlotReusedInFlight) {
            self.release_slot(index);
        } else if planted(Fault::BlocksReusedInFlight) {
            self.release_blocks(index);
        }
    }

    /// Gives back everything that an ended sequence holds.
    pub(crate) fn forget(&mut self, index: SequenceIndex) {
        self.release_blocks(index);
        self.release_slot(index);
        let sequence = self.sequences[index.0 as usize].take();
        let sequence = sequence.expect("a sequence is forgotten once");
        assert_eq!(
            sequence.stage,
            Stage::Ended,
            "only ended sequences are forgotten"
        );
        assert_eq!(
            sequence.plans_in_flight, 0,
            "a sequence is forgotten while it is in flight"
        );
        self.by_id.remove(&sequence.id);
        self.free_indices.push(index);
    }

    pub(crate) fn release_blocks(&mut self, index: SequenceIndex) {
        let sequence = self.sequences[index.0 as usize].as_mut();
        let sequence = sequence.expect("an index in use names a sequence");
        self.kv.release_all(&mut sequence.blocks);
    }

    pub(crate) fn release_slot(&mut self, index: SequenceIndex) {
        if let Some(slot) = self.sequence_mut(index).slot.take() {
            self.free_slots.push(slot);
        }
    }

    pub(crate) fn remove_running(&mut self, index: SequenceIndex) {
        let (rank, tenant) = (self.sequence(index).rank, self.sequence(index).tenant);
        let place = self
            .running_place(rank)
            .expect("a running sequence is listed");
        self.running.remove(place);
        self.tenants.stopped(tenant);
        if self.leaving == Some(index) {
            self.leaving = None;
        }
    }

    pub(crate) fn enqueue(&mut self, index: SequenceIndex) {
        let (rank, tenant) = (self.sequence(index).rank, self.sequence(index).tenant);
        self.waiting.insert(rank, index);
        self.tenants.queued(tenant, rank, index);
    }

    pub(crate) fn unqueue(&mut self, index: SequenceIndex) {
        let (rank, tenant) = (self.sequence(index).rank, self.sequence(index).tenant);
        self.waiting.remove(&rank);
        self.tenants.unqueued(tenant, rank);
    }

    /// The sequences that run, in rank order.
    pub fn running(&self) -> impl Iterator<Item = SequenceId> {
        self.running.iter().map(|&index| self.sequence(index).id)
    }

    /// Where a rank stands, or would stand, among the running sequences.
    pub(crate) fn running_place(&self, rank: Rank) -> Result<usize, usize> {
        self.running
            .binary_search_by_key(&rank, |&index| self.sequence(index).rank)
    }
}
