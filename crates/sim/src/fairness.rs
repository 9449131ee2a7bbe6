//! What tenants may expect of one another: of each one sequence runs before others have several.

use std::collections::{BTreeMap, BTreeSet};

use backstop_sched::Notice;
use backstop_types::SequenceId;

use crate::oracle::{Expected, Oracle};
use crate::scenario::Scenario;

/// Plans within which room is made for one tenant where slots alone are short: what is in flight
/// comes to an end first.
const PLANS_PER_TENANT: u32 = 4;

/// Who runs before a plan is made, while that is done, and after.
#[derive(Clone, Debug)]
pub(crate) struct PlanWatch {
    /// Those that surely run at the notice under way.
    sure: BTreeSet<SequenceId>,
    /// Those that may. That a preempted sequence runs again, no notice tells.
    possible: BTreeSet<SequenceId>,
    after: BTreeSet<SequenceId>,
}

impl PlanWatch {
    pub(crate) fn new(
        before: BTreeSet<SequenceId>,
        after: BTreeSet<SequenceId>,
        notices: &[Notice],
    ) -> Self {
        let admitted: BTreeSet<_> = notices.iter().filter_map(admitted).collect();
        let preempted = notices.iter().filter_map(|notice| match notice {
            Notice::Preempted { sequence } => Some(*sequence),
            _ => None,
        });
        let mut possible: BTreeSet<_> = before.iter().copied().chain(preempted).collect();
        possible.extend(&after);
        possible.retain(|id| !admitted.contains(id));
        Self {
            sure: before,
            possible,
            after,
        }
    }

    /// Checks that a notice, which a plan brought, keeps the order and nobody from running.
    pub(crate) fn check(&mut self, notice: &Notice, oracle: &Oracle) {
        match notice {
            Notice::Admitted { sequence, .. } => {
                self.check_order(*sequence, oracle);
                self.sure.insert(*sequence);
                self.possible.insert(*sequence);
            }
            Notice::Preempted { sequence } => {
                let running = |tenant| count(&self.possible, tenant, oracle);
                let crowded = oracle.tenants().any(|tenant| running(tenant) > 1);
                assert!(
                    running(oracle.tenant(*sequence)) > 1 || !crowded,
                    "the only sequence of a tenant yields although another tenant has several"
                );
                self.sure.remove(sequence);
                self.possible.remove(sequence);
            }
            _ => {}
        }
    }

    /// Nobody is overtaken but by those whose tenant has nothing running.
    fn check_order(&self, admitted: SequenceId, oracle: &Oracle) {
        let rank = |expected: &Expected| (expected.arrival.priority, expected.arrival.id);
        let expected = &oracle.live[&admitted];
        let newcomer = count(&self.sure, expected.arrival.tenant, oracle) == 0;
        let waiting = oracle.live.values();
        for other in waiting.filter(|other| other.cached_tokens.is_none()) {
            let placeless = count(&self.possible, other.arrival.tenant, oracle) == 0;
            let overtaken = rank(other) < rank(expected);
            assert!(
                !overtaken || newcomer && !placeless,
                "a sequence is overtaken in the queue"
            );
            assert!(
                newcomer || !placeless || other.arrival.id == admitted,
                "a tenant gets a second place before another has one"
            );
        }
    }
}

fn admitted(notice: &Notice) -> Option<SequenceId> {
    match notice {
        Notice::Admitted { sequence, .. } => Some(*sequence),
        _ => None,
    }
}

/// Sequences of a tenant among these.
fn count(running: &BTreeSet<SequenceId>, tenant: u64, oracle: &Oracle) -> usize {
    let tenants = running.iter().map(|&id| oracle.tenant(id));
    tenants.filter(|&other| other == tenant).count()
}

/// Counts how long tenants wait for their first place.
#[derive(Clone, Debug)]
pub(crate) struct Fairness {
    tenants: u32,
    roomy: bool,
    /// Plans in a row that were made while a tenant had nothing running and another one several.
    without_place: BTreeMap<u64, u32>,
}

impl Fairness {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            tenants: scenario.tenants,
            roomy: scenario.roomy,
            without_place: BTreeMap::new(),
        }
    }

    /// How many times as long as in order of arrival a sequence may wait: between two of its
    /// tenant those of others may come first.
    pub(crate) fn detour(&self) -> u64 {
        match self.tenants {
            1 => 1,
            _ => 2,
        }
    }

    /// Where memory is not short, everybody has a place within a few plans.
    pub(crate) fn plan_made(&mut self, watch: &PlanWatch, live: &BTreeMap<SequenceId, Expected>) {
        let mut running = BTreeMap::<u64, u32>::new();
        for (id, expected) in live {
            let count = running.entry(expected.arrival.tenant).or_default();
            *count += u32::from(watch.after.contains(id));
        }
        let crowded = running.values().any(|&count| count > 1);
        self.without_place
            .retain(|tenant, _| crowded && running.get(tenant) == Some(&0));
        for (tenant, _) in running
            .into_iter()
            .filter(|&(_, count)| crowded && count == 0)
        {
            let plans = self.without_place.entry(tenant).or_default();
            *plans += 1;
            assert!(
                !self.roomy || *plans <= PLANS_PER_TENANT * self.tenants,
                "a tenant waits for a place although another one has several"
            );
        }
    }
}
