//! The states that a server passes through, shared by everything that must know whether to send
//! traffic.

use std::fmt;
use std::time::Instant;

use backstop_types::SleepLevel;
use tokio::sync::watch;

use crate::timeline::Timeline;

/// Where in its life the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LifecycleState {
    /// Weights are being read.
    Loading {
        /// Bytes read so far.
        bytes_done: u64,
        /// Bytes to read; 0 while unknown.
        bytes_total: u64,
    },
    /// Real generations run to prove the model before any client may use it.
    Warming,
    /// Requests are answered.
    Ready,
    /// Memory was given back, until the server is woken; requests are refused, or wake it.
    Sleeping {
        /// What was given back.
        level: SleepLevel,
        /// Seconds that waking is expected to take.
        wake_s: u32,
    },
    /// The model gave another answer than it must; the text says which. Requests are refused until it
    /// gives the right one.
    Suspect(String),
    /// No new request is admitted; the running ones finish.
    Draining,
    /// Everything ended as asked.
    Stopped,
    /// The engine cannot run; the text says why.
    Failed(String),
}

impl LifecycleState {
    /// The names of all states.
    pub const NAMES: [&str; 8] = [
        "loading", "warming", "ready", "sleeping", "suspect", "draining", "stopped", "failed",
    ];

    /// Whether waiting helps: it sleeps, or is about to be ready.
    pub fn is_on_its_way(&self) -> bool {
        matches!(
            self,
            Self::Loading { .. } | Self::Warming | Self::Sleeping { .. }
        )
    }

    /// One lower-case word for logs, health answers and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Loading { .. } => "loading",
            Self::Warming => "warming",
            Self::Ready => "ready",
            Self::Sleeping { .. } => "sleeping",
            Self::Suspect(_) => "suspect",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Failed(_) => "failed",
        }
    }
}

impl fmt::Display for LifecycleState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suspect(reason) => write!(formatter, "suspect: {reason}"),
            Self::Failed(reason) => write!(formatter, "failed: {reason}"),
            state => formatter.write_str(state.name()),
        }
    }
}

/// Shared, observable [`LifecycleState`].
#[derive(Clone, Debug)]
pub struct Lifecycle {
    sender: watch::Sender<LifecycleState>,
    timeline: Timeline,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::since(Instant::now())
    }
}

impl Lifecycle {
    /// A life that begins with loading.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same of a process that began at this moment.
    pub fn since(began: Instant) -> Self {
        let (sender, _) = watch::channel(LifecycleState::Loading {
            bytes_done: 0,
            bytes_total: 0,
        });
        Self {
            sender,
            timeline: Timeline::since(began),
        }
    }

    /// What became of the time until it was ready.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// The present state.
    pub fn state(&self) -> LifecycleState {
        self.sender.borrow().clone()
    }

    /// Whether requests are admitted.
    pub fn is_ready(&self) -> bool {
        *self.sender.borrow() == LifecycleState::Ready
    }

    /// Moves to `next`, unless the life is already over: nothing follows `Stopped` or `Failed`,
    /// and a draining server never becomes ready again.
    pub fn advance(&self, next: LifecycleState) {
        if !matches!(
            next,
            LifecycleState::Loading { .. } | LifecycleState::Warming
        ) {
            self.timeline.end();
        }
        self.sender.send_if_modified(|state| {
            let allowed = match state {
                LifecycleState::Stopped | LifecycleState::Failed(_) => false,
                LifecycleState::Draining => {
                    matches!(next, LifecycleState::Stopped | LifecycleState::Failed(_))
                }
                _ => true,
            };
            if allowed && *state != next {
                *state = next;
                return true;
            }
            false
        });
    }

    /// Waits until `condition` holds.
    pub async fn wait_for(&self, condition: impl FnMut(&LifecycleState) -> bool) -> LifecycleState {
        let mut receiver = self.sender.subscribe();
        match receiver.wait_for(condition).await {
            Ok(state) => state.clone(),
            Err(_) => unreachable!("self holds the sender"),
        }
    }

    /// Waits until the life ends as failed, if it ever does.
    pub async fn failed(&self) {
        self.wait_for(|state| matches!(state, LifecycleState::Failed(_)))
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draining_server_never_becomes_ready_again() {
        let lifecycle = Lifecycle::new();
        lifecycle.advance(LifecycleState::Ready);
        lifecycle.advance(LifecycleState::Draining);
        lifecycle.advance(LifecycleState::Ready);
        assert_eq!(lifecycle.state(), LifecycleState::Draining);
        lifecycle.advance(LifecycleState::Stopped);
        lifecycle.advance(LifecycleState::Failed("late".into()));
        assert_eq!(lifecycle.state(), LifecycleState::Stopped);
    }
}
