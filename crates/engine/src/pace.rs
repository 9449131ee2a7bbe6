//! How long steps take, so that a long one is not taken for one that hangs.

use std::time::Duration;

/// A step of fewer tokens takes about as long as one of so many: the weights are read for one as for several.
const TOKENS_MIN: u32 = 16;
/// What is left of a slow step's pace with every faster one behind it.
const DECAY: f64 = 0.9;
/// A step may take so many times as long as its tokens took before.
const MARGIN: f64 = 4.0;
/// The longest that is granted, whatever was measured: a week.
const GRANTED_SECONDS_MAX: f64 = 7.0 * 24.0 * 3600.0;

/// The pace of the last steps: that of the slowest, which is forgotten over the next ones.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    seconds_per_token: f64,
}

impl Pace {
    /// Takes in a step that has ended.
    pub(crate) fn learn(&mut self, took: Duration, tokens: u32) {
        let latest = took.as_secs_f64() / counted(tokens);
        self.seconds_per_token = latest.max(self.seconds_per_token * DECAY);
    }

    /// What a step may take at this pace. Zero before any has ended, and for no step.
    pub(crate) fn grants(&self, tokens: u32) -> Duration {
        if tokens == 0 {
            return Duration::ZERO;
        }
        let seconds = MARGIN * self.seconds_per_token * counted(tokens);
        Duration::from_secs_f64(seconds.min(GRANTED_SECONDS_MAX))
    }
}

fn counted(tokens: u32) -> f64 {
    f64::from(tokens.max(TOKENS_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_steps_are_granted_what_their_tokens_took_before() {
        let mut pace = Pace::default();
        assert_eq!(pace.grants(512), Duration::ZERO);
        pace.learn(Duration::from_secs(2), 1);
        assert_eq!(pace.grants(0), Duration::ZERO);
        assert_eq!(pace.grants(1), Duration::from_secs(8));
        assert_eq!(pace.grants(512), Duration::from_secs(8 * 32));
    }

    #[test]
    fn a_slow_step_is_forgotten_and_no_number_is_too_large() {
        let mut pace = Pace::default();
        pace.learn(Duration::from_secs(1000), 1);
        for _ in 0..100 {
            pace.learn(Duration::from_millis(10), 1);
        }
        assert!(pace.grants(1) < Duration::from_secs(1));
        pace.learn(Duration::MAX, 1);
        assert_eq!(pace.grants(u32::MAX).as_secs_f64(), GRANTED_SECONDS_MAX);
    }
}
