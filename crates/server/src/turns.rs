//! Turns at something of which there is a fixed number, shared by tenants.
//!
//! Who holds fewest turns is served first, and among equals whoever has used the least time. Where
//! there are several turns and several tenants, nobody gets the last one as a second one: so
//! whoever holds none does not wait for the end of another tenant's long work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::gate::TenantId;

/// Requests that wait for a turn at once. With several tenants, each may have as many as there
/// are places left.
const MAX_WAITING: usize = 1024;

/// Why there is no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoTurn {
    /// Too many wait already.
    Full,
    /// None came in time.
    TimedOut,
}

/// A number of turns, and those who wait for one.
#[derive(Debug)]
pub(crate) struct Turns {
    total: usize,
    lines: Mutex<Lines>,
}

#[derive(Debug)]
struct Lines {
    free: usize,
    waiting: usize,
    next_number: u64,
    /// Those who hold or want a turn.
    by_tenant: BTreeMap<TenantId, Line>,
}

#[derive(Debug, Default)]
struct Line {
    /// In order of arrival.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
    held: usize,
    used: Duration,
}

/// Who asks for a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) tenant: TenantId,
    /// Others could ask as well.
    pub(crate) shared: bool,
}

impl Turns {
    /// So many turns, at least one.
    pub(crate) fn new(total: usize) -> Arc<Self> {
        let total = total.max(1);
        let lines = Lines {
            free: total,
            waiting: 0,
            next_number: 0,
            by_tenant: BTreeMap::new(),
        };
        Arc::new(Self {
            total,
            lines: Mutex::new(lines),
        })
    }

    /// Waits for a turn. Who stops waiting leaves the line.
    pub(crate) async fn take(
        self: &Arc<Self>,
        asker: Asker,
        patience: Duration,
    ) -> Result<Turn, NoTurn> {
        let mut waiting = self.join(asker)?;
        match tokio::time::timeout(patience, &mut waiting.granted).await {
            Ok(Ok(())) => {
                waiting.over = true;
                Ok(Turn {
                    turns: Arc::clone(self),
                    asker,
                    since: Instant::now(),
                })
            }
            _ => Err(NoTurn::TimedOut),
        }
    }

    fn join(self: &Arc<Self>, asker: Asker) -> Result<Waiting, NoTurn> {
        let (sender, granted) = oneshot::channel();
        let mut lines = self.lines();
        let number = lines.next_number;
        let least_used = lines.by_tenant.values().map(|line| line.used).min();
        let left = MAX_WAITING - lines.waiting;
        let own = lines.by_tenant.get(&asker.tenant);
        let own = own.map_or(0, |line| line.waiting.len());
        if left == 0 || (asker.shared && own >= left) {
            return Err(NoTurn::Full);
        }
        lines.next_number += 1;
        lines.waiting += 1;
        let line = lines.by_tenant.entry(asker.tenant).or_insert_with(|| Line {
            used: least_used.unwrap_or_default(),
            ..Line::default()
        });
        line.waiting.insert(number, sender);
        lines.grant(self.kept(asker));
        Ok(Waiting {
            turns: Arc::clone(self),
            asker,
            number,
            granted,
            over: false,
        })
    }

    /// Turns that nobody gets who has one.
    fn kept(&self, asker: Asker) -> usize {
        usize::from(asker.shared && self.total > 1)
    }

    fn give_back(&self, asker: Asker, used: Duration) {
        let mut lines = self.lines();
        lines.free += 1;
        if let Some(line) = lines.by_tenant.get_mut(&asker.tenant) {
            line.held -= 1;
            line.used += used;
        }
        lines.forget(asker.tenant);
        lines.grant(self.kept(asker));
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // Every change is complete before anything can panic.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    /// Hands out what is free.
    fn grant(&mut self, kept: usize) {
        while self.free > 0 {
            let last_kept = self.free <= kept;
            let lines = self.by_tenant.iter_mut();
            let eligible = lines
                .filter(|(_, line)| !line.waiting.is_empty() && (line.held == 0 || !last_kept));
            let next = eligible.min_by_key(|(_, line)| {
                (line.held, line.used, line.waiting.keys().next().copied())
            });
            let Some((_, line)) = next else { return };
            let Some((_, granted)) = line.waiting.pop_first() else {
                return;
            };
            line.held += 1;
            self.free -= 1;
            self.waiting -= 1;
            // Who has just stopped waiting gives it back.
            let _ignored = granted.send(());
        }
    }

    /// Forgets a tenant that holds nothing and wants nothing.
    fn forget(&mut self, tenant: TenantId) {
        let over = |line: &Line| line.held == 0 && line.waiting.is_empty();
        if self.by_tenant.get(&tenant).is_some_and(over) {
            self.by_tenant.remove(&tenant);
        }
    }
}

/// A place in a line.
#[derive(Debug)]
struct Waiting {
    turns: Arc<Turns>,
    asker: Asker,
    number: u64,
    granted: oneshot::Receiver<()>,
    /// The turn was taken.
    over: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let tenant = self.asker.tenant;
        let mut lines = self.turns.lines();
        let line = lines.by_tenant.get_mut(&tenant);
        let waited = line.is_some_and(|line| line.waiting.remove(&self.number).is_some());
        if waited {
            lines.waiting -= 1;
            lines.forget(tenant);
            return;
        }
        drop(lines);
        self.turns.give_back(self.asker, Duration::ZERO);
    }
}

/// One turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    asker: Asker,
    since: Instant,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.give_back(self.asker, self.since.elapsed());
    }
}

#[cfg(test)]
mod tests;
