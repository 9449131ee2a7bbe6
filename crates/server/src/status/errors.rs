//! Answers that were errors, gathered by kind: a client that repeats itself adds to a count and pushes out nobody else's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::keys::Caller;

/// Kinds that are kept; the one that has not come for the longest time makes room.
const KINDS_MAX: usize = 50;

/// What errors of one kind have in common, beside whose requests they answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ErrorKind {
    pub(crate) route: &'static str,
    /// The status, or what it would have been.
    pub(crate) status: u16,
    pub(crate) code: Option<&'static str>,
    /// It came after a 200 had been sent.
    pub(crate) late: bool,
}

/// Errors of one kind, of one caller.
#[derive(Clone, Debug)]
pub(super) struct ErrorGroup {
    pub(super) kind: ErrorKind,
    /// Absent if no key let them in.
    pub(super) caller: Option<Caller>,
    pub(super) count: u64,
    pub(super) first_at: SystemTime,
    pub(super) last_at: SystemTime,
    /// The id of the latest request.
    pub(super) request_id: String,
}

impl ErrorGroup {
    fn is_of(&self, kind: ErrorKind, caller: Option<&Caller>) -> bool {
        let tenant = |caller: &Caller| caller.tenant().id;
        self.kind == kind && self.caller.as_ref().map(tenant) == caller.map(tenant)
    }
}

/// The latest kinds of errors.
#[derive(Debug, Default)]
pub(crate) struct ErrorLog {
    /// The latest last.
    groups: Mutex<Vec<ErrorGroup>>,
    total: AtomicU64,
}

impl ErrorLog {
    /// Takes note of an error that answered the request with this id, which has to be a clean one.
    pub(crate) fn record(&self, kind: ErrorKind, caller: Option<&Caller>, request_id: &str) {
        self.total.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now();
        let mut groups = self.lock();
        let known = groups.iter().position(|group| group.is_of(kind, caller));
        let group = match known {
            Some(place) => {
                let mut group = groups.remove(place);
                group.count += 1;
                group.last_at = now;
                request_id.clone_into(&mut group.request_id);
                group
            }
            None => ErrorGroup {
                kind,
                caller: caller.cloned(),
                count: 1,
                first_at: now,
                last_at: now,
                request_id: request_id.to_owned(),
            },
        };
        if groups.len() == KINDS_MAX {
            groups.remove(0);
        }
        groups.push(group);
    }

    /// Errors since the process began.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// The latest first.
    pub(super) fn latest(&self) -> Vec<ErrorGroup> {
        self.lock().iter().rev().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ErrorGroup>> {
        // Every change is complete before anything can panic.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: ErrorKind = ErrorKind {
        route: "/v1/chat/completions",
        status: 429,
        code: Some("queue_full"),
        late: false,
    };

    #[test]
    fn who_repeats_itself_pushes_out_nobody() {
        let log = ErrorLog::default();
        let caller = Caller::anybody();
        log.record(FULL, Some(&caller), "first");
        let stranger = ErrorKind {
            status: 401,
            code: None,
            ..FULL
        };
        (0..1000).for_each(|number| log.record(stranger, None, &number.to_string()));
        let groups = log.latest();
        let told: Vec<_> = groups
            .iter()
            .map(|group| (group.kind.status, group.count, group.request_id.as_str()))
            .collect();
        assert_eq!(told, [(401, 1000, "999"), (429, 1, "first")]);
        assert_eq!(log.total(), 1001);
    }

    #[test]
    fn callers_are_told_apart_and_kinds_are_bounded() {
        let log = ErrorLog::default();
        (0..60).for_each(|_| log.record(FULL, Some(&Caller::anybody()), "id"));
        assert_eq!(log.latest().len(), KINDS_MAX);
        // The latest one stays, and one that comes again makes nobody leave.
        let latest = log.latest()[0].caller.clone();
        log.record(FULL, latest.as_ref(), "again");
        assert_eq!((log.latest().len(), log.latest()[0].count), (KINDS_MAX, 2));
    }
}
