//! A limit per minute, kept as a bucket that fills steadily.

use std::time::{Duration, Instant};

/// What is left of a limit. It does not know the limit itself, which may change while it is in
/// use. It begins full, and a debt is allowed: what a request turns out to have used is taken
/// whether or not it was there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TokenBucket {
    /// Used and not yet filled up again, as of `at`; below 0 never.
    used: f64,
    at: Option<Instant>,
}

/// What a limit would be asked for again after.
pub(crate) type Wait = Duration;

impl TokenBucket {
    /// Takes `amount`, if it is there; else says when it is going to be. What is larger than the
    /// bucket is let through when the bucket is full, for it never would be otherwise.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        amount: u32,
        per_minute: u32,
        capacity: u32,
    ) -> Result<(), Wait> {
        self.fill(now, per_minute);
        let needed = f64::from(amount.min(capacity));
        let missing = needed + self.used - f64::from(capacity);
        if missing > f64::EPSILON {
            return Err(time_for(missing, per_minute));
        }
        self.used += f64::from(amount);
        Ok(())
    }

    /// Takes what has been used already.
    pub(crate) fn charge(&mut self, amount: u64) {
        self.used += amount as f64;
    }

    /// Puts back what was taken and not used.
    pub(crate) fn refund(&mut self, amount: u32) {
        self.used = (self.used - f64::from(amount)).max(0.0);
    }

    /// What is left, and how long until the bucket is full.
    pub(crate) fn state(&mut self, now: Instant, per_minute: u32) -> (u32, Duration) {
        self.fill(now, per_minute);
        let left = (f64::from(per_minute) - self.used).max(0.0);
        (left as u32, time_for(self.used, per_minute))
    }

    fn fill(&mut self, now: Instant, per_minute: u32) {
        if let Some(at) = self.at {
            let seconds = now.saturating_duration_since(at).as_secs_f64();
            self.used = (self.used - seconds * f64::from(per_minute) / 60.0).max(0.0);
        }
        self.at = Some(now);
    }
}

fn time_for(amount: f64, per_minute: u32) -> Duration {
    let seconds = amount * 60.0 / f64::from(per_minute.max(1));
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_used_comes_back_steadily() {
        let begin = Instant::now();
        let mut bucket = TokenBucket::default();
        for _ in 0..60 {
            assert_eq!(bucket.take(begin, 1, 60, 60), Ok(()));
        }
        assert_eq!(bucket.take(begin, 1, 60, 60), Err(MINUTE / 60));
        assert_eq!(bucket.state(begin, 60), (0, MINUTE));
        let later = begin + Duration::from_secs(2);
        assert_eq!(bucket.take(later, 2, 60, 60), Ok(()));
        assert!(bucket.take(later, 1, 60, 60).is_err());
        assert_eq!(bucket.state(later + 10 * MINUTE, 60), (60, Duration::ZERO));
    }

    #[test]
    fn a_debt_is_paid_before_anything_is_let_through() {
        let begin = Instant::now();
        let mut bucket = TokenBucket::default();
        assert_eq!(bucket.take(begin, 10, 60, 60), Ok(()));
        bucket.charge(110);
        assert_eq!(bucket.take(begin, 1, 60, 60), Err(Duration::from_secs(61)));
        bucket.refund(200);
        assert_eq!(bucket.state(begin, 60), (60, Duration::ZERO));
    }

    #[test]
    fn what_is_larger_than_the_limit_needs_a_full_bucket() {
        let begin = Instant::now();
        let mut bucket = TokenBucket::default();
        assert_eq!(bucket.take(begin, 1000, 60, 60), Ok(()));
        assert!(bucket.take(begin, 1, 60, 60).is_err());
        assert!(bucket.take(begin, 1000, 60, 60).is_err());
        assert_eq!(bucket.take(begin + 17 * MINUTE, 1000, 60, 60), Ok(()));
    }

    #[test]
    fn a_limit_may_change_between_two_requests() {
        let begin = Instant::now();
        let mut bucket = TokenBucket::default();
        assert_eq!(bucket.take(begin, 50, 60, 60), Ok(()));
        assert!(bucket.take(begin, 1, 10, 10).is_err());
        assert_eq!(bucket.take(begin, 1, 600, 600), Ok(()));
    }
}
