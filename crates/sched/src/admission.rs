//! The queue: who enters it, who waits too long, and who may leave it to run.

use backstop_kv::fault::{Fault, planted};
use backstop_types::{FinishReason, PlanId};

use crate::sequence::{Sequence, SequenceIndex, Stage};
use crate::yielding::Scarce;
use crate::{Arrival, Notice, Rejection, Scheduler};

/// Plans for which a refused sequence is taken to need as many blocks as before. After that it may
/// find that another one has computed its prefix meanwhile.
const REFUSAL_PLANS: u64 = 8;

impl Scheduler {
    /// Queues a sequence, or refuses it when it could never finish.
    pub(crate) fn arrive(&mut self, arrival: Arrival) -> Result<(), Rejection> {
        let end_len = self.check_arrival(&arrival)?;
        let sequence = Sequence::new(arrival, self.next_arrival, end_len, self.kv.num_groups());
        self.next_arrival += 1;
        let (id, deadline_ms) = (sequence.id, sequence.deadline_ms);
        let index = self.free_indices.pop().unwrap_or_else(|| {
            self.sequences.push(None);
            SequenceIndex(self.sequences.len() as u32 - 1)
        });
        self.sequences[index.0 as usize] = Some(sequence);
        self.by_id.insert(id, index);
        self.enqueue(index);
        if let Some(deadline_ms) = deadline_ms {
            self.deadlines.insert((deadline_ms, index));
        }
        Ok(())
    }

    /// The length with which the sequence ends, if it may come in.
    fn check_arrival(&self, arrival: &Arrival) -> Result<u32, Rejection> {
        let max_model_len = self.config.max_model_len;
        if arrival.prompt.is_empty() {
            return Err(Rejection::EmptyPrompt);
        }
        if arrival.stop.max_tokens == 0 {
            return Err(Rejection::InvalidLimits);
        }
        let prompt_tokens = u32::try_from(arrival.prompt.len()).unwrap_or(u32::MAX);
        if prompt_tokens >= max_model_len {
            return Err(Rejection::PromptTooLong {
                prompt_tokens,
                max_model_len,
            });
        }
        if self.by_id.contains_key(&arrival.id) {
            return Err(Rejection::DuplicateSequence {
                sequence: arrival.id,
            });
        }
        let end_len = prompt_tokens
            .saturating_add(arrival.stop.max_tokens)
            .min(max_model_len);
        for group in 0..self.kv.num_groups() {
            let needed_blocks = self.kv.blocks_to_finish(group, end_len - 1);
            let pool_blocks = self.kv.usage(group).total();
            if needed_blocks > pool_blocks {
                let max_tokens_total = end_len;
                return Err(Rejection::NeverFits {
                    max_tokens_total,
                    group,
                    needed_blocks,
                    pool_blocks,
                });
            }
        }
        // Last, because it alone may be different a moment later.
        let waiting = self.waiting.len() as u32;
        if waiting >= self.config.max_waiting {
            return Err(Rejection::QueueFull { waiting });
        }
        Ok(if planted(Fault::LengthOffByOne) {
            end_len + 1
        } else {
            end_len
        })
    }

    /// Ends the sequences that were not admitted in time.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        while let Some(&(deadline_ms, index)) = self.deadlines.first() {
            if deadline_ms >= now_ms {
                return;
            }
            self.finish(index, FinishReason::DeadlineExceeded);
        }
    }

    /// Lets waiting sequences run as long as there are slots and blocks for them: first those
    /// whose tenant has nothing running, for whom room is made, then first in rank first. Nobody
    /// overtakes a head that has to wait for blocks.
    pub(crate) fn admit(&mut self) {
        if self.waiting.is_empty() || (self.free_slots.is_empty() && self.newcomer().is_none()) {
            return;
        }
        let mut reserved = std::mem::take(&mut self.scratch.reserved);
        self.reserve(&mut reserved);
        loop {
            let newcomer = self.newcomer();
            let Some(index) = newcomer.or_else(|| self.first_waiting()) else {
                break;
            };
            let scarce = if self.free_slots.is_empty() {
                Scarce::Slots
            } else if self.try_admit(index, &mut reserved) {
                continue;
            } else {
                Scarce::Blocks
            };
            let possible = scarce == Scarce::Slots
                || self.room_can_be_made(&self.sequence(index).refused_blocks);
            if newcomer.is_none() || !possible || !self.make_room(scarce) {
                break;
            }
            self.reserve(&mut reserved);
        }
        self.scratch.reserved = reserved;
    }

    /// The first in rank of those whose tenant has nothing running.
    fn newcomer(&self) -> Option<SequenceIndex> {
        let first = self.tenants.first_without_place();
        first.filter(|_| !planted(Fault::PlaceNotKept) && !planted(Fault::YoungestFirst))
    }

    fn first_waiting(&self) -> Option<SequenceIndex> {
        let first = match planted(Fault::YoungestFirst) {
            true => self.waiting.last_key_value(),
            false => self.waiting.first_key_value(),
        };
        first.map(|(_, &index)| index)
    }

    /// Blocks that the running sequences are going to need soon.
    fn reserve(&self, reserved: &mut Vec<u32>) {
        reserved.clear();
        reserved.resize(self.kv.num_groups(), 0);
        for &index in &self.running {
            self.add_reserve(self.sequence(index), reserved);
        }
    }

    /// Adds the blocks that a sequence is going to need soon.
    pub(crate) fn add_reserve(&self, sequence: &Sequence, reserved: &mut [u32]) {
        let end = sequence.reserved_len(self.kv.block_size());
        for (group, reserved) in reserved.iter_mut().enumerate() {
            *reserved += self.kv.blocks_missing(&sequence.blocks, group, end);
        }
    }

    fn try_admit(&mut self, index: SequenceIndex, reserved: &mut [u32]) -> bool {
        // Someone must run. Alone, any sequence that was let in can finish.
        let alone = self.running.is_empty();
        let sequence = self.sequence(index);
        let remembered =
            !sequence.refused_blocks.is_empty() && self.next_plan < sequence.refused_until;
        if !alone && remembered && !self.fits(&sequence.refused_blocks, reserved) {
            return false;
        }
        let sequence = self.sequences[index.0 as usize].as_mut();
        let sequence = sequence.expect("an index in use names a sequence");
        // What is not computed has no logits.
        let adopts = !sequence.is_to_be_rated() || planted(Fault::RatedPrefixAdopted);
        let cached_tokens = if adopts {
            self.kv.adopt_prefix(&mut sequence.blocks, &sequence.tokens)
        } else {
            0
        };
        let sequence = self.sequence(index);
        let mut needed = vec![0; reserved.len()];
        self.add_reserve(sequence, &mut needed);
        if !alone && !self.fits(&needed, reserved) {
            self.release_blocks(index);
            let refused_until = PlanId(self.next_plan.0 + REFUSAL_PLANS);
            let sequence = self.sequence_mut(index);
            sequence.refused_blocks = needed;
            sequence.refused_until = refused_until;
            return false;
        }
        reserved
            .iter_mut()
            .zip(&needed)
            .for_each(|(reserved, needed)| *reserved += needed);
        self.begin(index, cached_tokens);
        true
    }

    /// Whether this many blocks are there beyond those in reserve.
    fn fits(&self, needed: &[u32], reserved: &[u32]) -> bool {
        let mut groups = needed.iter().zip(reserved).enumerate();
        groups.all(|(group, (needed, reserved))| needed + reserved <= self.kv.available(group))
    }

    /// Moves a sequence from the queue to a slot.
    fn begin(&mut self, index: SequenceIndex, cached_tokens: u32) {
        let slot = self
            .free_slots
            .pop()
            .expect("admission begins with a free slot");
        let sequence = self.sequence_mut(index);
        assert_eq!(
            sequence.stage,
            Stage::Waiting,
            "only waiting sequences are admitted"
        );
        sequence.stage = Stage::Running;
        sequence.slot = Some(slot);
        sequence.must_start = true;
        if !planted(Fault::StaleComputedAfterPreemption) || sequence.computed == 0 {
            sequence.computed = cached_tokens;
            sequence.planned = cached_tokens;
        }
        sequence.refused_blocks = Vec::new();
        let (rank, id, tenant) = (sequence.rank, sequence.id, sequence.tenant);
        let prompt_len = sequence.prompt_len;
        let looked_up = !sequence.is_to_be_rated();
        let deadline_ms = sequence.deadline_ms.take();
        let first_time = sequence.cached_tokens.is_none();
        if first_time {
            sequence.cached_tokens = Some(cached_tokens);
        }
        self.unqueue(index);
        self.tenants.started(tenant);
        let place = self.running_place(rank).expect_err("ranks are distinct");
        self.running.insert(place, index);
        if let Some(deadline_ms) = deadline_ms {
            self.deadlines.remove(&(deadline_ms, index));
        }
        if first_time {
            self.counters.sequences_admitted += 1;
            if self.config.enable_prefix_caching && looked_up {
                self.counters.prefix_cache_queries += u64::from(prompt_len);
                self.counters.prefix_cache_hits += u64::from(cached_tokens);
            }
            self.notices.push(Notice::Admitted {
                sequence: id,
                cached_tokens,
            });
        }
    }
}
