//! What is done to one request.

use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::HeaderValue;

use super::wire::{self, Asked};
use crate::faults::{Act, Fault};

/// Longer than anybody waits.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);
/// What a provider that is well takes before its first text.
const WELL: Duration = Duration::from_millis(30);
/// Between two words.
const WORD: Duration = Duration::from_millis(5);
/// The first answer of a slow death.
const SLOW_FIRST: Duration = Duration::from_millis(250);
/// The last answer of a slow death takes so many times the first one's time; the next never comes.
const SLOW_DOUBLINGS_MAX: u32 = 6;

/// An answer, or what comes instead.
pub(super) struct Script {
    /// Before the head.
    pub(super) wait: Duration,
    pub(super) status: StatusCode,
    pub(super) content_type: HeaderValue,
    /// Seconds.
    pub(super) retry_after: Option<u16>,
    pub(super) steps: Vec<Step>,
}

pub(super) enum Step {
    Say(Bytes),
    Wait(Duration),
    /// The connection ends within the body.
    Break,
}

impl Script {
    /// `before` is the number of requests since the failure began.
    pub(super) fn write(fault: Option<&Fault>, asked: &Asked, before: u32) -> Self {
        let well = Self::well(asked);
        let Some(fault) = fault else {
            return well;
        };
        match fault.act {
            // These happen to connections. A client that comes without TLS is not touched by a certificate.
            Act::Refuse | Act::Reset | Act::Distrust => well,
            Act::Status(status, error) => Self::refusal(status, &error, None),
            Act::Busy(status, error, seconds) => Self::refusal(status, &error, Some(seconds)),
            Act::HangBeforeHead => Self {
                wait: FOR_EVER,
                ..well
            },
            Act::HangAfterHead => Self {
                steps: vec![Step::Wait(FOR_EVER)],
                ..well
            },
            Act::SlowDeath => Self {
                wait: slow(before),
                ..well
            },
            Act::BreakBeforeText => well.broken(vec![wire::role(asked)], Step::Break),
            Act::Break if asked.is_stream => well.broken(wire::half(asked), Step::Break),
            Act::Break => well.broken(vec![wire::half_of_whole(asked)], Step::Break),
            Act::EndEarly => well.broken(wire::half(asked), Step::Wait(Duration::ZERO)),
            Act::DoneEarly => well.broken(wire::half(asked), Step::Say(wire::done())),
            Act::Stall => well.broken(wire::half(asked), Step::Wait(FOR_EVER)),
            Act::Filter => well.saying(wire::filtered(asked)),
            Act::Garbage => well.saying(vec![wire::garbage(asked)]),
        }
    }

    fn well(asked: &Asked) -> Self {
        let kind = if asked.is_stream {
            "text/event-stream"
        } else {
            "application/json"
        };
        let script = Self {
            wait: Duration::ZERO,
            status: StatusCode::OK,
            content_type: HeaderValue::from_static(kind),
            retry_after: None,
            steps: Vec::new(),
        };
        script.saying(wire::complete(asked))
    }

    fn saying(self, pieces: Vec<Bytes>) -> Self {
        let mut steps = vec![Step::Wait(WELL)];
        for piece in pieces {
            steps.extend([Step::Say(piece), Step::Wait(WORD)]);
        }
        Self { steps, ..self }
    }

    /// Says something, and then this happens.
    fn broken(self, pieces: Vec<Bytes>, end: Step) -> Self {
        let mut script = self.saying(pieces);
        script.steps.push(end);
        script
    }

    fn refusal(status: u16, error: &crate::faults::Error, retry_after: Option<u16>) -> Self {
        let (kind, body) = wire::error(error);
        Self {
            wait: Duration::ZERO,
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            content_type: HeaderValue::from_static(kind),
            retry_after,
            steps: vec![Step::Say(body)],
        }
    }
}

fn slow(before: u32) -> Duration {
    if before > SLOW_DOUBLINGS_MAX {
        FOR_EVER
    } else {
        SLOW_FIRST * (1 << before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_death_doubles_until_it_hangs() {
        assert_eq!(slow(0), Duration::from_millis(250));
        assert_eq!(slow(6), Duration::from_secs(16));
        assert_eq!(slow(7), FOR_EVER);
        assert_eq!(slow(u32::MAX), FOR_EVER);
    }
}
