//! Tells the service manager that started this process how it is, as systemd's `sd_notify` does: when it is ready, what it
//! is doing, and that it is alive.
//!
//! The socket is opened before the process gives up connections (crates/sandbox), and is kept: libraries open one for each
//! message, which would be refused.

mod report;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use backstop_engine::{Lifecycle, LifecycleState};
use backstop_server::Server;

use self::report::Report;
use self::socket::Socket;

/// Longest time between two looks at how the server is.
const INTERVAL: Duration = Duration::from_secs(5);

/// Whoever started this process, if that is somebody who wants to be told. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ServiceManager {
    socket: Option<Arc<Socket>>,
    /// The process is taken for dead after so long without a sign of life.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that the environment names, by `NOTIFY_SOCKET` and `WATCHDOG_USEC`.
    pub(crate) fn from_environment() -> Self {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = name.and_then(|name| {
            let opened = Socket::open(&name);
            opened
                .inspect_err(|error| {
                    tracing::warn!("the service manager is told nothing: {name:?}: {error}");
                })
                .ok()
        });
        let variable = |name: &str| std::env::var(name).ok();
        Self {
            socket: socket.map(Arc::new),
            watchdog: watchdog(
                variable("WATCHDOG_USEC").as_deref(),
                variable("WATCHDOG_PID").as_deref(),
            ),
        }
    }

    /// Whether there is one.
    pub(crate) fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Reports on the server until its life is over. A server whose requests have no turn any more has none for this
    /// either, so the watchdog sees that as well.
    pub(crate) async fn follow(self, server: Server) {
        if !self.is_there() {
            return;
        }
        let interval = self
            .watchdog
            .map_or(INTERVAL, |period| INTERVAL.min(period / 2));
        let mut report = Report::new(self.watchdog.is_some(), server.config().drain_timeout);
        loop {
            let condition = server.condition();
            self.tell(&report.next(&condition, server.requests_in_flight()));
            if is_over(&condition.state) {
                return;
            }
            let name = condition.state.name();
            let another = server.lifecycle().wait_for(|state| state.name() != name);
            // Whichever comes first.
            let _ignored = tokio::time::timeout(interval, another).await;
        }
    }

    /// Runs what reads settings again. The manager takes the service for ready before and after it.
    pub(crate) fn while_reloading<T>(&self, lifecycle: &Lifecycle, read: impl FnOnce() -> T) -> T {
        // What loads must not be announced as ready by the end of this.
        if !lifecycle.is_ready() {
            return read();
        }
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_us()));
        let outcome = read();
        self.tell("READY=1");
        outcome
    }

    /// Sends lines of `NAME=VALUE`, if there are any.
    fn tell(&self, lines: &str) {
        let Some(socket) = self.socket.as_ref().filter(|_| !lines.is_empty()) else {
            return;
        };
        if let Err(error) = socket.send(lines) {
            tracing::warn!(%error, "cannot tell the service manager");
        }
    }
}

fn is_over(state: &LifecycleState) -> bool {
    matches!(state, LifecycleState::Stopped | LifecycleState::Failed(_))
}

/// How long a process may give no sign of life, in microseconds, if that is meant for this one.
fn watchdog(period_us: Option<&str>, process: Option<&str>) -> Option<Duration> {
    let another = process.is_some_and(|id| id != std::process::id().to_string());
    let period_us = period_us?.parse().ok().filter(|us| *us > 0 && !another)?;
    Some(Duration::from_micros(period_us))
}

/// Microseconds of the clock that messages are ordered by.
#[cfg(unix)]
fn monotonic_us() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

/// There is no service manager here.
#[cfg(not(unix))]
fn monotonic_us() -> i64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_counts_if_it_watches_this_process() {
        let own = std::process::id().to_string();
        let minute = Some(Duration::from_secs(60));
        assert_eq!(watchdog(Some("60000000"), None), minute);
        assert_eq!(watchdog(Some("60000000"), Some(&own)), minute);
        assert_eq!(watchdog(Some("60000000"), Some("1")), None);
        for nothing in [None, Some("0"), Some("-1"), Some("soon")] {
            assert_eq!(watchdog(nothing, None), None);
        }
    }
}
