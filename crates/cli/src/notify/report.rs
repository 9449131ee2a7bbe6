//! What a service manager is told, and when.

use std::time::Duration;

use backstop_engine::LifecycleState;
use backstop_executor::format_bytes;
use backstop_server::Condition;

/// A start that reads weights may go on for so long after each look that saw more of them read.
const LOADING: Duration = Duration::from_secs(120);
/// What proves a model is a few answers, slow on a small processor, and nothing counts how far it is.
const WARMING: Duration = Duration::from_secs(900);
/// From the end of the longest drain to the end of the process.
const AFTER_DRAIN: Duration = Duration::from_secs(30);
/// Longest description, in characters.
const STATUS_CHARACTERS: usize = 200;

/// What has been told so far.
#[derive(Debug)]
pub(super) struct Report {
    has_watchdog: bool,
    drain_timeout: Duration,
    /// Name of the state.
    state: &'static str,
    bytes_done: u64,
    status: String,
}

impl Report {
    pub(super) fn new(has_watchdog: bool, drain_timeout: Duration) -> Self {
        Self {
            has_watchdog,
            drain_timeout,
            state: "",
            bytes_done: 0,
            status: String::new(),
        }
    }

    /// What is to be told now: lines of `NAME=VALUE`, or nothing.
    pub(super) fn next(&mut self, condition: &Condition, in_flight: usize) -> String {
        let mut lines = Vec::new();
        let state = condition.state.name();
        if state != self.state {
            lines.extend(self.arrival(&condition.state));
            self.state = state;
        }
        if let LifecycleState::Loading { bytes_done, .. } = condition.state
            && bytes_done > self.bytes_done
        {
            lines.push(extended(LOADING));
            self.bytes_done = bytes_done;
        }
        let status = status(condition, in_flight);
        if status != self.status {
            lines.push(format!("STATUS={status}"));
            self.status = status;
        }
        // Busy is not dead, and idle is not dead: `Condition` says what is.
        if self.has_watchdog && condition.healthy {
            lines.push("WATCHDOG=1".to_owned());
        }
        lines.join("\n")
    }

    /// What goes with a state that has just begun.
    fn arrival(&self, state: &LifecycleState) -> Vec<String> {
        match state {
            LifecycleState::Loading { .. }
            | LifecycleState::Sleeping { .. }
            | LifecycleState::Suspect(_) => Vec::new(),
            LifecycleState::Warming => vec![extended(WARMING)],
            LifecycleState::Ready => vec!["READY=1".to_owned()],
            LifecycleState::Draining => {
                vec![
                    "STOPPING=1".to_owned(),
                    extended(self.drain_timeout.saturating_add(AFTER_DRAIN)),
                ]
            }
            LifecycleState::Stopped | LifecycleState::Failed(_) => vec!["STOPPING=1".to_owned()],
        }
    }
}

/// Asks for time, from now on, for what is going on: a start or an end.
fn extended(by: Duration) -> String {
    format!("EXTEND_TIMEOUT_USEC={}", by.as_micros())
}

/// One line for people.
fn status(condition: &Condition, in_flight: usize) -> String {
    let text = match &condition.state {
        LifecycleState::Loading { bytes_total: 0, .. } => "loading".to_owned(),
        LifecycleState::Loading {
            bytes_done,
            bytes_total,
        } => format!(
            "loading, {} of {}",
            format_bytes(*bytes_done),
            format_bytes(*bytes_total)
        ),
        LifecycleState::Warming => "proving the model".to_owned(),
        _ if condition.stalled.is_some() => "stalled: there is work, and no progress".to_owned(),
        state @ (LifecycleState::Ready | LifecycleState::Draining) => {
            format!("{state}, {in_flight} requests in flight")
        }
        state => state.to_string(),
    };
    // A line break would begin another field.
    let visible = |character: char| match character.is_control() {
        true => ' ',
        false => character,
    };
    text.chars().map(visible).take(STATUS_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(state: LifecycleState) -> Condition {
        let serving = matches!(state, LifecycleState::Ready | LifecycleState::Draining);
        Condition {
            state,
            stalled: None,
            healthy: serving,
        }
    }

    fn loading(bytes_done: u64) -> Condition {
        condition(LifecycleState::Loading {
            bytes_done,
            bytes_total: 4 << 30,
        })
    }

    #[test]
    fn a_life_is_told_from_its_beginning_to_its_end() {
        let mut report = Report::new(true, Duration::from_secs(30));
        assert_eq!(
            report.next(&loading(0), 0),
            "STATUS=loading, 0 B of 4.0 GiB"
        );
        let begun = report.next(&loading(1 << 30), 0);
        assert!(
            begun.starts_with("EXTEND_TIMEOUT_USEC=120000000\nSTATUS=loading, 1.0 GiB of"),
            "{begun}"
        );
        let stuck = report.next(&loading(1 << 30), 0);
        assert_eq!(stuck, "", "a start without progress gets no more time");
        let warming = report.next(&condition(LifecycleState::Warming), 0);
        assert_eq!(
            warming,
            "EXTEND_TIMEOUT_USEC=900000000\nSTATUS=proving the model"
        );
        let ready = report.next(&condition(LifecycleState::Ready), 0);
        assert_eq!(
            ready,
            "READY=1\nSTATUS=ready, 0 requests in flight\nWATCHDOG=1"
        );
        assert_eq!(
            report.next(&condition(LifecycleState::Ready), 0),
            "WATCHDOG=1"
        );
        let draining = report.next(&condition(LifecycleState::Draining), 2);
        assert_eq!(
            draining,
            "STOPPING=1\nEXTEND_TIMEOUT_USEC=60000000\nSTATUS=draining, 2 requests in flight\nWATCHDOG=1"
        );
        let stopped = report.next(&condition(LifecycleState::Stopped), 0);
        assert_eq!(stopped, "STOPPING=1\nSTATUS=stopped");
    }

    #[test]
    fn a_stalled_server_gives_no_sign_of_life() {
        let mut report = Report::new(true, Duration::ZERO);
        report.next(&condition(LifecycleState::Ready), 1);
        let stalled = Condition {
            state: LifecycleState::Ready,
            stalled: Some("the engine hangs".to_owned()),
            healthy: false,
        };
        assert_eq!(
            report.next(&stalled, 1),
            "STATUS=stalled: there is work, and no progress"
        );
        assert_eq!(report.next(&stalled, 1), "");
        let again = report.next(&condition(LifecycleState::Ready), 1);
        assert_eq!(again, "STATUS=ready, 1 requests in flight\nWATCHDOG=1");
    }

    #[test]
    fn nobody_is_fed_who_did_not_ask_and_a_reason_stays_on_its_line() {
        let mut report = Report::new(false, Duration::ZERO);
        let ready = report.next(&condition(LifecycleState::Ready), 0);
        assert!(!ready.contains("WATCHDOG"), "{ready}");
        let failed = LifecycleState::Failed(format!("no\nWATCHDOG=1 {}", "x".repeat(1000)));
        let failed = report.next(&condition(failed), 0);
        let lines: Vec<&str> = failed.lines().collect();
        assert_eq!(lines[0], "STOPPING=1");
        assert!(
            lines[1].starts_with("STATUS=failed: no WATCHDOG=1 x"),
            "{failed}"
        );
        assert_eq!(
            (lines.len(), lines[1].len()),
            (2, "STATUS=".len() + STATUS_CHARACTERS)
        );
    }
}
