//! Whether an encoder gets on with its work.

use std::time::Duration;

/// Tokens of a batch that one interval without progress is granted for. A long text on a slow machine takes
/// minutes, and is one piece of work.
const TOKENS_PER_INTERVAL: usize = 1024;

/// An encoder's queue at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EncoderLiveness {
    /// Requests of which something has been computed or is.
    pub(crate) running: u32,
    /// Requests of which nothing has been computed.
    pub(crate) waiting: u32,
    /// Requests that have begun, since the beginning.
    pub(crate) started: u64,
    /// Time since a batch began or ended, while there is work.
    pub(crate) since_progress: Duration,
    /// Tokens of the batch that is computed.
    pub(crate) batch_tokens: usize,
}

impl EncoderLiveness {
    /// Whether it makes progress, if `stall` is the longest interval without any.
    pub(crate) fn is_alive(self, stall: Duration) -> bool {
        let intervals = self.batch_tokens.div_ceil(TOKENS_PER_INTERVAL).max(1);
        let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
        self.since_progress <= stall.saturating_mul(intervals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_batches_are_granted_more_time() {
        let liveness = |seconds, batch_tokens| EncoderLiveness {
            since_progress: Duration::from_secs(seconds),
            batch_tokens,
            ..EncoderLiveness::default()
        };
        let stall = Duration::from_secs(60);
        assert!(liveness(60, 10).is_alive(stall));
        assert!(!liveness(61, 10).is_alive(stall));
        assert!(liveness(400, 8192).is_alive(stall));
        assert!(!liveness(481, 8192).is_alive(stall));
        assert!(!liveness(61, 0).is_alive(stall));
    }
}
