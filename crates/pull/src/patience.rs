//! How long to wait for a hub, and how often to ask again.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long to wait for a hub, and how often to ask again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection, with its names and its encryption.
    pub connect: Duration,
    /// For the next bytes, once connected.
    pub silence: Duration,
    /// For one request in all: what came until then is kept, and the rest asked for anew.
    pub request: Duration,
    /// Requests in a row that may fail before the pull does.
    pub attempts: u32,
    /// Before the second request; doubles each time.
    pub first_wait: Duration,
    /// The longest wait of these.
    pub wait_max: Duration,
    /// The longest wait that a server may ask for.
    pub asked_wait_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            silence: Duration::from_secs(60),
            request: Duration::from_secs(15 * 60),
            attempts: 10,
            first_wait: Duration::from_secs(1),
            wait_max: Duration::from_secs(60),
            asked_wait_max: Duration::from_secs(5 * 60),
        }
    }
}

/// Whether a request that failed is worth repeating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    Never,
    Soon,
    /// The server named a time.
    After(Duration),
}

/// A request that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) again: Again,
}

impl Failure {
    pub(crate) fn never(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            again: Again::Never,
        }
    }

    pub(crate) fn soon(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            again: Again::Soon,
        }
    }
}

/// Counts failures in a row.
#[derive(Debug)]
pub(crate) struct Failures<'a> {
    patience: &'a Patience,
    count: u32,
}

impl<'a> Failures<'a> {
    pub(crate) fn new(patience: &'a Patience) -> Self {
        Self { patience, count: 0 }
    }

    /// Something came: what fails from now on is another row.
    pub(crate) fn forget(&mut self) {
        self.count = 0;
    }

    /// How long to wait after one more failure; `None` if that was the last.
    pub(crate) fn wait(&mut self, again: Again) -> Option<Duration> {
        self.count += 1;
        if self.count >= self.patience.attempts || again == Again::Never {
            return None;
        }
        if let Again::After(asked) = again {
            return Some(asked.min(self.patience.asked_wait_max));
        }
        let doublings = (self.count - 1).min(16);
        let wait = self.patience.first_wait.saturating_mul(1 << doublings);
        Some(wait.min(self.patience.wait_max))
    }
}

/// Ends all threads' waiting when one has failed.
#[derive(Debug, Default)]
pub(crate) struct Halt {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Halt {
    pub(crate) fn set(&self) {
        *self.is_set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_set(&self) -> bool {
        *self.is_set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, unless it is set; true if it is.
    pub(crate) fn wait(&self, duration: Duration) -> bool {
        let is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(is_set, duration, |is_set| !*is_set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_end() {
        let patience = Patience {
            attempts: 4,
            wait_max: Duration::from_secs(3),
            ..Patience::default()
        };
        let mut failures = Failures::new(&patience);
        let seconds = |wait: Option<Duration>| wait.map(|wait| wait.as_secs());
        assert_eq!(seconds(failures.wait(Again::Soon)), Some(1));
        assert_eq!(seconds(failures.wait(Again::Soon)), Some(2));
        failures.forget();
        assert_eq!(seconds(failures.wait(Again::Soon)), Some(1));
        assert_eq!(
            seconds(failures.wait(Again::After(Duration::from_secs(9999)))),
            Some(300)
        );
        assert_eq!(seconds(failures.wait(Again::Soon)), Some(3));
        assert_eq!(failures.wait(Again::Soon), None);
        assert_eq!(Failures::new(&patience).wait(Again::Never), None);
    }
}
