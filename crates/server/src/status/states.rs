//! When the server came into which state of its life.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::ring::Ring;
use crate::server::Server;

/// A life has six states at most, of which none but loading and ready comes again.
const CHANGES_MAX: usize = 32;

/// A state, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct StateChange {
    pub(super) name: &'static str,
    pub(super) at: SystemTime,
}

/// The latest changes of the life-cycle.
#[derive(Debug, Default)]
pub(super) struct StateHistory {
    changes: Mutex<Ring<StateChange, CHANGES_MAX>>,
}

impl StateHistory {
    /// Takes note of the present state, unless it is the latest one.
    fn record(&self, name: &'static str) {
        let mut changes = self.lock();
        if changes.iter().next_back().map(|change| change.name) != Some(name) {
            let at = SystemTime::now();
            changes.push(StateChange { name, at });
        }
    }

    /// Oldest first.
    pub(super) fn changes(&self) -> Vec<StateChange> {
        self.lock().iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Ring<StateChange, CHANGES_MAX>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes note of every state from here on.
pub(super) async fn follow(server: &Server) {
    let lifecycle = server.lifecycle();
    let mut present = lifecycle.state().name();
    loop {
        server.records().states.record(present);
        let next = lifecycle.wait_for(|state| state.name() != present).await;
        present = next.name();
    }
}
