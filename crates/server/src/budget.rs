//! Memory for the bodies that are read and not yet turned into tokens, over all requests.
//!
//! Where there are several tenants, each may hold as much as it leaves free: so a tenant alone has
//! half of it, two have a third each, and whoever comes next always finds room. Bodies that come
//! in slowly give way to those for which there is none left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::gate::TenantId;
use crate::turns::Asker;

/// The budget is counted in units of this many bytes.
pub(crate) const BUDGET_UNIT_BYTES: usize = 1024;
/// A body of which less than [`PACE_UNITS`] have come in this time is a slow one.
const PACE_TIME: Duration = Duration::from_secs(2);
const PACE_UNITS: usize = 16;

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// What there is, and who holds how much of it.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    books: Mutex<Books>,
}

#[derive(Debug)]
struct Books {
    free: usize,
    next_number: u64,
    tenants: BTreeMap<TenantId, usize>,
    bodies: BTreeMap<u64, Body>,
}

#[derive(Debug)]
struct Body {
    tenant: TenantId,
    units: usize,
    paced: Pace,
    /// It is still coming in.
    open: bool,
    gave_way: Arc<Notify>,
}

/// When a body was last seen to keep pace, and how much of it there was.
#[derive(Debug)]
struct Pace {
    at: Instant,
    units: usize,
}

impl Pace {
    fn now(units: usize) -> Self {
        Self {
            at: Instant::now(),
            units,
        }
    }
}

impl BodyBudget {
    /// A budget of so many units.
    pub(crate) fn new(units: usize) -> Arc<Self> {
        Arc::new(Self {
            books: Mutex::new(Books {
                free: units,
                next_number: 0,
                tenants: BTreeMap::new(),
                bodies: BTreeMap::new(),
            }),
        })
    }

    /// Room for a body that begins to come in.
    pub(crate) fn open(self: &Arc<Self>, asker: Asker) -> Result<BodyClaim, NoRoom> {
        let gave_way = Arc::new(Notify::new());
        let mut books = self.books();
        let number = books.next_number;
        books.next_number += 1;
        let body = Body {
            tenant: asker.tenant,
            units: 0,
            paced: Pace::now(0),
            open: true,
            gave_way: Arc::clone(&gave_way),
        };
        books.bodies.insert(number, body);
        drop(books);
        let claim = BodyClaim {
            budget: Arc::clone(self),
            number,
            shared: asker.shared,
            gave_way,
        };
        claim.grow_to(1)?;
        Ok(claim)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Every change is complete before anything can panic.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn take(&mut self, number: u64, more: usize) {
        let Some(body) = self.bodies.get_mut(&number) else {
            return;
        };
        body.units += more;
        if body.units - body.paced.units >= PACE_UNITS {
            body.paced = Pace::now(body.units);
        }
        *self.tenants.entry(body.tenant).or_default() += more;
        self.free -= more;
    }

    /// Gives back all that a body holds.
    fn remove(&mut self, number: u64) -> Option<Body> {
        let body = self.bodies.remove(&number)?;
        self.free += body.units;
        if let Some(held) = self.tenants.get_mut(&body.tenant) {
            *held -= body.units;
            if *held == 0 {
                self.tenants.remove(&body.tenant);
            }
        }
        Some(body)
    }

    fn held(&self, tenant: TenantId) -> usize {
        self.tenants.get(&tenant).copied().unwrap_or(0)
    }

    /// Ends the largest slow body: one of this tenant's, or if there is none given, one of whoever
    /// holds most. Whether there was one.
    fn end_a_slow_one(&mut self, now: Instant, except: u64, of: Option<TenantId>) -> bool {
        let slow = self.bodies.iter().filter(|&(&number, body)| {
            number != except
                && body.open
                && now.saturating_duration_since(body.paced.at) > PACE_TIME
                && of.is_none_or(|tenant| tenant == body.tenant)
        });
        let largest = slow.max_by_key(|(_, body)| (self.held(body.tenant), body.units));
        let Some((&number, _)) = largest else {
            return false;
        };
        if let Some(body) = self.remove(number) {
            body.gave_way.notify_one();
        }
        true
    }
}

/// What one body holds of the budget, until it is dropped.
#[derive(Debug)]
pub(crate) struct BodyClaim {
    budget: Arc<BodyBudget>,
    number: u64,
    shared: bool,
    gave_way: Arc<Notify>,
}

impl BodyClaim {
    /// Takes what is missing to `units`.
    pub(crate) fn grow_to(&self, units: usize) -> Result<(), NoRoom> {
        let mut books = self.budget.books();
        loop {
            let Some(body) = books.bodies.get(&self.number) else {
                return Err(NoRoom);
            };
            let (tenant, more) = (body.tenant, units.saturating_sub(body.units));
            if more == 0 {
                return Ok(());
            }
            let held = books.held(tenant);
            let left = books.free.checked_sub(more);
            let share_used = self.shared && left.is_some_and(|left| held + more > left);
            if left.is_some() && !share_used {
                books.take(self.number, more);
                return Ok(());
            }
            let of = share_used.then_some(tenant);
            if !books.end_a_slow_one(Instant::now(), self.number, of) {
                return Err(NoRoom);
            }
        }
    }

    /// All of the body has come: it gives way to nobody from now on.
    pub(crate) fn close(&self) {
        if let Some(body) = self.budget.books().bodies.get_mut(&self.number) {
            body.open = false;
        }
    }

    /// Waits until the body has to give way.
    pub(crate) async fn gave_way(&self) {
        self.gave_way.notified().await;
    }
}

impl Drop for BodyClaim {
    fn drop(&mut self) {
        self.budget.books().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn asker(tenant: TenantId, shared: bool) -> Asker {
        Asker { tenant, shared }
    }

    /// Claims of 10 units for one tenant, as many as it gets.
    fn fill(budget: &Arc<BodyBudget>, asker: Asker) -> Vec<BodyClaim> {
        let claim = || {
            let claim = budget.open(asker).ok()?;
            claim.grow_to(10).ok().map(|()| claim)
        };
        std::iter::from_fn(claim).collect()
    }

    /// Lets time pass for all bodies.
    fn age(budget: &BodyBudget) {
        for body in budget.books().bodies.values_mut() {
            body.paced.at = body.paced.at.checked_sub(2 * PACE_TIME).unwrap();
        }
    }

    #[test]
    fn every_tenant_leaves_room_for_the_next_one() {
        let budget = BodyBudget::new(1000);
        let shares: Vec<_> = (0..5)
            .map(|tenant| fill(&budget, asker(tenant, true)))
            .collect();
        let counts: Vec<usize> = shares.iter().map(Vec::len).collect();
        assert_eq!(counts, [50, 25, 12, 6, 3]);
        drop(shares);
        let alone = fill(&budget, asker(7, false));
        assert_eq!(alone.len(), 100);
        drop(alone);
        let books = budget.books();
        assert_eq!(
            (books.free, books.tenants.len(), books.bodies.len()),
            (1000, 0, 0)
        );
    }

    #[test]
    fn slow_bodies_give_way_and_others_do_not() {
        let budget = BodyBudget::new(100);
        let mut first = fill(&budget, asker(1, false));
        assert_eq!(first.len(), 10);
        assert_eq!(budget.open(asker(1, false)).unwrap_err(), NoRoom);
        first[0].close();
        age(&budget);
        // One keeps pace, and one has been read.
        budget
            .books()
            .bodies
            .get_mut(&first[1].number)
            .unwrap()
            .paced
            .at = Instant::now();
        let second = fill(&budget, asker(1, false));
        assert_eq!(second.len(), 8);
        let gave_way = |claim: &BodyClaim| claim.gave_way().now_or_never().is_some();
        let ended: Vec<bool> = first.iter().map(gave_way).collect();
        assert_eq!(ended, [vec![false; 2], vec![true; 8]].concat());
        assert_eq!(first[9].grow_to(11), Err(NoRoom));
        first.truncate(2);
        drop((first, second));
        assert_eq!(budget.books().free, 100);
    }

    #[test]
    fn who_has_used_its_share_ends_its_own_slow_bodies_alone() {
        let budget = BodyBudget::new(120);
        let other = fill(&budget, asker(2, true));
        let own = fill(&budget, asker(1, true));
        assert_eq!((other.len(), own.len()), (6, 3));
        age(&budget);
        let more = budget.open(asker(1, true)).unwrap();
        more.grow_to(10).unwrap();
        let gave_way = |claim: &BodyClaim| claim.gave_way().now_or_never().is_some();
        assert_eq!(own.iter().filter(|claim| gave_way(claim)).count(), 1);
        assert!(!other.iter().any(gave_way));
    }
}
