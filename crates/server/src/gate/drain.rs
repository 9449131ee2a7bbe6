//! How fast the queue empties, and from that when a client that was turned away should come back.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use backstop_protocol::limits::MAX_RETRY_AFTER_S;

/// Pause between two looks at the engine's statistics.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);
/// What lies further back says nothing about the present load.
const WINDOW: Duration = Duration::from_secs(60);
/// Advice while nothing is known about the pace: no request has waited lately.
const FIRST_GUESS_S: f64 = 5.0;

/// The queue as the engine's statistics show it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueSample {
    pub(crate) at: Instant,
    /// Sequences that have left the queue to run, since the beginning.
    pub(crate) left: u64,
    /// Sequences in the queue.
    pub(crate) waiting: u32,
}

/// A time during which somebody waited.
#[derive(Clone, Copy, Debug)]
struct Span {
    end: Instant,
    seconds: f64,
    left: u64,
}

/// The pace of the queue over a sliding window. Only times during which somebody waited count: an
/// empty queue lets through what comes, which says nothing about what the engine could do.
#[derive(Debug, Default)]
pub(crate) struct DrainRate {
    last: Option<QueueSample>,
    /// Oldest first; at most one for each sample within the window.
    spans: VecDeque<Span>,
}

impl DrainRate {
    /// Takes in the queue's present state.
    pub(crate) fn sample(&mut self, sample: QueueSample) {
        if let Some(last) = self.last
            && last.waiting > 0
        {
            self.spans.push_back(Span {
                end: sample.at,
                seconds: sample.at.duration_since(last.at).as_secs_f64(),
                left: sample.left.saturating_sub(last.left),
            });
        }
        self.last = Some(sample);
        while let Some(oldest) = self.spans.front()
            && sample.at.duration_since(oldest.end) > WINDOW
        {
            self.spans.pop_front();
        }
    }

    /// Requests that leave the queue in a second while others wait; `None` while nothing is known.
    pub(crate) fn per_second(&self) -> Option<f64> {
        let (seconds, left) = self.totals();
        (left > 0 && seconds > 0.0).then(|| left as f64 / seconds)
    }

    /// Seconds until a queue of `waiting` sequences has been worked off at the present pace.
    ///
    /// If nobody has left the queue although some waited, the best guess is that it goes on for
    /// as long as it has been going on; if nobody has waited, a few seconds.
    pub(crate) fn retry_after_s(&self, waiting: u32) -> u32 {
        let seconds = match self.per_second() {
            Some(rate) => f64::from(waiting.max(1)) / rate,
            None => self.totals().0.max(FIRST_GUESS_S),
        };
        // The conversion saturates.
        (seconds.ceil() as u32).clamp(1, MAX_RETRY_AFTER_S)
    }

    fn totals(&self) -> (f64, u64) {
        let spans = self.spans.iter();
        spans.fold((0.0, 0), |(seconds, left), span| {
            (seconds + span.seconds, left + span.left)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples a second apart, each of what has left and what waits.
    fn rate(samples: &[(u64, u32)]) -> DrainRate {
        let begin = Instant::now();
        let mut rate = DrainRate::default();
        for (second, &(left, waiting)) in (0..).zip(samples) {
            rate.sample(QueueSample {
                at: begin + Duration::from_secs(second),
                left,
                waiting,
            });
        }
        rate
    }

    #[test]
    fn advice_is_the_queue_over_its_pace() {
        let rate = rate(&[(0, 10), (4, 10), (8, 10)]);
        assert_eq!(rate.per_second(), Some(4.0));
        assert_eq!(rate.retry_after_s(10), 3);
        assert_eq!(rate.retry_after_s(0), 1);
        assert_eq!(rate.retry_after_s(u32::MAX), MAX_RETRY_AFTER_S);
    }

    #[test]
    fn an_empty_queue_says_nothing_about_the_pace() {
        // One request a second came and went at once; then a queue was worked off at ten a second.
        let rate = rate(&[(0, 0), (1, 0), (2, 0), (3, 50), (13, 40), (23, 30)]);
        assert_eq!(rate.per_second(), Some(10.0));
    }

    #[test]
    fn without_a_pace_advice_is_a_guess_that_grows_with_the_wait() {
        assert_eq!(rate(&[]).retry_after_s(3), FIRST_GUESS_S as u32);
        assert_eq!(rate(&[(7, 1), (7, 1)]).retry_after_s(1), 5);
        let stuck: Vec<(u64, u32)> = vec![(7, 1); 21];
        assert_eq!(rate(&stuck).retry_after_s(1), 20);
    }

    #[test]
    fn the_window_slides() {
        let mut samples = vec![(0, 1), (1000, 1)];
        samples.extend((1..=70).map(|second| (1000 + second, 1)));
        let rate = rate(&samples);
        assert_eq!(rate.per_second(), Some(1.0));
        assert!(rate.spans.len() <= 61);
    }
}
