//! Who gives up its place, when slots or blocks run out.
//!
//! Two rules. Sequences give way to those before them in rank. And a tenant of which one sequence
//! wants to run comes before the second one of every other tenant: so nobody can fill the machine
//! with long answers and keep all others waiting for their end. Where there is one tenant, the
//! second rule says nothing.
//!
//! The first in rank advances under both: of a tenant with several sequences the youngest yields,
//! which is never the first in rank, and whose tenant has just one sequence running yields only to
//! one before it.

use backstop_kv::fault::{Fault, planted};

use crate::sequence::{SequenceIndex, Stage};
use crate::{Notice, Scheduler};

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scarce {
    Slots,
    Blocks,
}

impl Scheduler {
    /// Takes a place from the tenant that has most of what is scarce, for one that has none.
    /// Whether that is done; if not, it may be for a later plan.
    pub(crate) fn make_room(&mut self, scarce: Scarce) -> bool {
        let refused = scarce == Scarce::Slots && planted(Fault::RoomNotMade);
        if self.leaving.is_some() || refused {
            return false;
        }
        let crowded = self.tenants.crowded();
        let largest = crowded.max_by_key(|&(tenant, running)| match scarce {
            Scarce::Slots => running,
            Scarce::Blocks => self.blocks_of(tenant),
        });
        let Some((tenant, _)) = largest else {
            return false;
        };
        let mut from_last = self.running.iter().rev();
        let youngest = from_last.find(|&&other| self.sequence(other).tenant == tenant);
        let &youngest = youngest.expect("a crowded tenant has running sequences");
        if self.sequence(youngest).plans_in_flight > 0 {
            // It stands in no further plan and so comes to rest.
            self.leaving = Some(youngest);
            return false;
        }
        self.preempt(youngest);
        true
    }

    /// Preempts the sequence that was told to leave, once no plan uses it.
    pub(crate) fn see_off(&mut self) {
        if let Some(index) = self.leaving
            && self.sequence(index).plans_in_flight == 0
        {
            self.leaving = None;
            // Others of its tenant may have ended meanwhile.
            if self.tenants.running(self.sequence(index).tenant) > 1 {
                self.preempt(index);
            }
        }
    }

    /// Whether these blocks would be there if of every tenant only its first sequence ran.
    pub(crate) fn room_can_be_made(&self, needed: &[u32]) -> bool {
        let groups = self.kv.num_groups();
        let mut reserved = needed.to_vec();
        let mut room: Vec<u32> = (0..groups).map(|group| self.kv.available(group)).collect();
        let mut kept = Vec::new();
        for &index in &self.running {
            let sequence = self.sequence(index);
            if !kept.contains(&sequence.tenant) {
                kept.push(sequence.tenant);
                self.add_reserve(sequence, &mut reserved);
                continue;
            }
            let tables = sequence.blocks.tables();
            let held = room.iter_mut().zip(tables);
            held.for_each(|(room, table)| *room += table.len());
        }
        reserved
            .iter()
            .zip(&room)
            .all(|(needed, room)| needed <= room)
    }

    /// Preempts somebody so that a running sequence gets a block. Whether to look for one again.
    pub(crate) fn make_way(&mut self, index: SequenceIndex) -> bool {
        let alone = self.tenants.running(self.sequence(index).tenant) == 1;
        if alone && self.tenants.crowded().next().is_some() && !planted(Fault::LonePreempted) {
            return self.make_room(Scarce::Blocks);
        }
        let at_rest = |other: SequenceIndex| self.sequence(other).plans_in_flight == 0;
        let may_yield = |other: SequenceIndex| {
            alone
                || self.tenants.running(self.sequence(other).tenant) > 1
                || planted(Fault::LonePreempted)
        };
        let from_last = self.running.iter().rev().copied();
        let mut behind = from_last.take_while(|&other| other != index);
        let victim = behind.find(|&other| at_rest(other) && may_yield(other));
        // If those behind it are not to yield to it, it is the one in the way.
        let is_last = self.running.last() == Some(&index);
        let victim = victim.or((!is_last && !alone && at_rest(index)).then_some(index));
        let Some(victim) = victim else { return false };
        self.preempt(victim);
        victim != index
    }

    /// Sends a sequence back to the queue, where its rank puts it. It keeps its tokens.
    fn preempt(&mut self, index: SequenceIndex) {
        self.remove_running(index);
        self.release_blocks(index);
        self.release_slot(index);
        let sequence = self.sequence_mut(index);
        assert_eq!(
            sequence.samples_in_flight, 0,
            "only a sequence at rest can be preempted"
        );
        sequence.stage = Stage::Waiting;
        if !planted(Fault::StaleComputedAfterPreemption) {
            sequence.computed = 0;
            sequence.planned = 0;
        }
        let id = sequence.id;
        if !planted(Fault::PreemptedLost) {
            self.enqueue(index);
        }
        self.counters.preemptions += 1;
        self.notices.push(Notice::Preempted { sequence: id });
    }

    fn blocks_of(&self, tenant: u64) -> u32 {
        let running = self.running.iter().map(|&index| self.sequence(index));
        let own = running.filter(|sequence| sequence.tenant == tenant);
        own.map(|sequence| sequence.blocks.count()).sum()
    }
}
