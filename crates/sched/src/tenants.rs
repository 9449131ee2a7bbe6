//! Whose sequences wait and run.

use std::collections::BTreeMap;

use crate::sequence::{Rank, SequenceIndex};

/// Tenants with sequences that wait or run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tenants {
    by_id: BTreeMap<u64, Tenant>,
}

#[derive(Clone, Debug, Default)]
struct Tenant {
    waiting: BTreeMap<Rank, SequenceIndex>,
    running: u32,
}

impl Tenants {
    /// A sequence went into the queue.
    pub(crate) fn queued(&mut self, tenant: u64, rank: Rank, index: SequenceIndex) {
        self.by_id
            .entry(tenant)
            .or_default()
            .waiting
            .insert(rank, index);
    }

    /// A sequence left the queue.
    pub(crate) fn unqueued(&mut self, tenant: u64, rank: Rank) {
        self.change(tenant, |tenant| {
            tenant.waiting.remove(&rank);
        });
    }

    /// A sequence began to run.
    pub(crate) fn started(&mut self, tenant: u64) {
        self.by_id.entry(tenant).or_default().running += 1;
    }

    /// A sequence no longer runs.
    pub(crate) fn stopped(&mut self, tenant: u64) {
        self.change(tenant, |tenant| tenant.running -= 1);
    }

    /// Sequences of a tenant that run.
    pub(crate) fn running(&self, tenant: u64) -> u32 {
        self.by_id.get(&tenant).map_or(0, |tenant| tenant.running)
    }

    /// Tenants of which several sequences run, and how many.
    pub(crate) fn crowded(&self) -> impl Iterator<Item = (u64, u32)> {
        let tenants = self.by_id.iter();
        tenants.filter_map(|(&id, tenant)| (tenant.running > 1).then_some((id, tenant.running)))
    }

    /// The first in rank of those whose tenant has nothing running.
    pub(crate) fn first_without_place(&self) -> Option<SequenceIndex> {
        let without = self.by_id.values().filter(|tenant| tenant.running == 0);
        let first = without
            .filter_map(|tenant| tenant.waiting.first_key_value())
            .min();
        first.map(|(_, &index)| index)
    }

    /// Sequences that wait and that run, over all tenants.
    pub(crate) fn totals(&self) -> (usize, usize) {
        let tenants = self.by_id.values();
        tenants.fold((0, 0), |(waiting, running), tenant| {
            (
                waiting + tenant.waiting.len(),
                running + tenant.running as usize,
            )
        })
    }

    fn change(&mut self, id: u64, change: impl FnOnce(&mut Tenant)) {
        let tenant = self
            .by_id
            .get_mut(&id)
            .expect("a tenant with sequences is known");
        change(tenant);
        if tenant.running == 0 && tenant.waiting.is_empty() {
            self.by_id.remove(&id);
        }
    }
}
