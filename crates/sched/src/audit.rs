//! Checks that the scheduler's books balance.

use crate::Scheduler;
use crate::sequence::{Sequence, SequenceIndex, Stage};

impl Scheduler {
    /// Panics unless all lists, counts and blocks agree. It walks over everything, so it is for
    /// tests, for the simulator and for moments in which nothing runs.
    pub fn audit(&self) {
        let live = || self.sequences.iter().flatten();
        self.kv.audit(live().map(|sequence| &sequence.blocks));
        self.audit_lists();
        self.audit_slots();
        for (number, sequence) in self.sequences.iter().enumerate() {
            if let Some(sequence) = sequence {
                self.audit_sequence(SequenceIndex(number as u32), sequence);
            }
        }
    }

    fn audit_lists(&self) {
        let live = self.sequences.iter().flatten();
        let count = |stage| {
            live.clone()
                .filter(|sequence| sequence.stage == stage)
                .count()
        };
        assert_eq!(
            self.by_id.len(),
            live.clone().count(),
            "every sequence has its id"
        );
        assert_eq!(
            self.sequences.len(),
            self.by_id.len() + self.free_indices.len(),
            "lost index"
        );
        assert_eq!(
            self.waiting.len(),
            count(Stage::Waiting),
            "every waiting sequence is queued"
        );
        assert_eq!(
            self.running.len(),
            count(Stage::Running),
            "every running sequence is listed"
        );
        let capacity = self.config.max_waiting + self.config.max_num_seqs;
        assert!(
            self.by_id.len() <= capacity as usize,
            "more sequences than there may be"
        );
        assert_eq!(
            self.tenants.totals(),
            (self.waiting.len(), self.running.len()),
            "every sequence counts for its tenant"
        );
        for &index in &self.running {
            let tenant = self.sequence(index).tenant;
            let running = self
                .running
                .iter()
                .map(|&other| self.sequence(other).tenant);
            let own = running.filter(|&other| other == tenant).count();
            assert_eq!(
                self.tenants.running(tenant) as usize,
                own,
                "sequences of a tenant"
            );
        }
        if let Some(leaving) = self.leaving {
            assert_eq!(self.sequence(leaving).stage, Stage::Running);
        }
        assert!(self.in_flight.len() <= self.config.max_in_flight_plans as usize);
        let in_order =
            |pair: &[SequenceIndex]| self.sequence(pair[0]).rank < self.sequence(pair[1]).rank;
        assert!(
            self.running.windows(2).all(in_order),
            "running sequences stand in rank order"
        );
        for (rank, &index) in &self.waiting {
            assert_eq!(
                self.sequence(index).rank,
                *rank,
                "the queue mistakes a rank"
            );
            assert_eq!(self.sequence(index).stage, Stage::Waiting);
        }
        for &(deadline_ms, index) in &self.deadlines {
            let sequence = self.sequence(index);
            assert_eq!(sequence.deadline_ms, Some(deadline_ms));
            assert_eq!(sequence.stage, Stage::Waiting);
        }
    }

    fn audit_slots(&self) {
        let mut taken = vec![false; self.config.max_num_seqs as usize];
        let held = self
            .sequences
            .iter()
            .flatten()
            .filter_map(|sequence| sequence.slot);
        for slot in held.chain(self.free_slots.iter().copied()) {
            let seat = &mut taken[slot.0 as usize];
            assert!(!*seat, "slot {} is held twice", slot.0);
            *seat = true;
        }
        assert!(taken.iter().all(|&seat| seat), "a slot is lost");
    }

    fn audit_sequence(&self, index: SequenceIndex, sequence: &Sequence) {
        assert_eq!(
            self.by_id.get(&sequence.id),
            Some(&index),
            "an id leads elsewhere"
        );
        let plans = || self.in_flight.iter().flat_map(|plan| &plan.sequences);
        let own = || plans().filter(|planned| planned.index == index);
        assert_eq!(
            sequence.plans_in_flight as usize,
            own().count(),
            "plans in flight"
        );
        match sequence.stage {
            Stage::Waiting => {
                assert!(sequence.slot.is_none(), "a waiting sequence holds a slot");
                assert!(
                    sequence.blocks.is_empty(),
                    "a waiting sequence holds blocks"
                );
                assert_eq!(
                    sequence.plans_in_flight, 0,
                    "a waiting sequence is in flight"
                );
            }
            Stage::Running => self.audit_running(index, sequence),
            Stage::Ended => {
                assert!(
                    sequence.plans_in_flight > 0,
                    "an ended sequence is kept for nothing"
                );
            }
        }
    }

    fn audit_running(&self, index: SequenceIndex, sequence: &Sequence) {
        assert!(sequence.slot.is_some(), "a running sequence has no slot");
        assert!(
            sequence.computed < sequence.known(),
            "nothing is left to compute"
        );
        assert!(
            sequence.planned <= sequence.total() + sequence.drafts_in_flight,
            "a position is planned without a token"
        );
        assert!(
            sequence.total() <= sequence.end_len,
            "a sequence grows past its end"
        );
        assert!(
            sequence.rated_end >= sequence.computed.min(sequence.prompt_len - 1),
            "a computed position has not rated the token that follows it"
        );
        let live = self.in_flight.iter().filter(|plan| !plan.doomed);
        let own = live
            .flat_map(|plan| &plan.sequences)
            .filter(|planned| planned.index == index);
        let (mut num_tokens, mut samples, mut drafts) = (0, 0, 0);
        for planned in own {
            num_tokens += planned.num_tokens;
            samples += u32::from(planned.samples);
            drafts += planned.drafts;
        }
        assert_eq!(
            sequence.planned,
            sequence.computed + num_tokens,
            "planned positions"
        );
        assert_eq!(sequence.samples_in_flight, samples, "samples in flight");
        assert_eq!(sequence.drafts_in_flight, drafts, "guesses in flight");
        let needed_end = sequence.planned.div_ceil(self.kv.block_size());
        for (group, (table, spec)) in sequence
            .blocks
            .tables()
            .iter()
            .zip(&self.config.kv.groups)
            .enumerate()
        {
            let first_visible = spec.span.first_visible(sequence.computed);
            assert!(
                table.first_index() <= first_visible / self.kv.block_size(),
                "group {group} has given back a visible block"
            );
            assert!(
                table.end_index() >= needed_end,
                "group {group} lacks a planned block"
            );
        }
    }
}
