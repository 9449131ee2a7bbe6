//! What a simulation did.

use std::fmt;

/// Counts over a simulation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Turns: one event, or one plan asked for or executed.
    pub steps: u64,
    /// Random configurations.
    pub episodes: u64,
    /// Plans made.
    pub plans: u64,
    /// Plans that failed.
    pub failed_plans: u64,
    /// Sequences that came in.
    pub arrivals: u64,
    /// Sequences that were refused.
    pub rejections: u64,
    /// Sequences that were aborted.
    pub aborts: u64,
    /// Sequences that waited too long.
    pub expirations: u64,
    /// Tokens handed out.
    pub tokens: u64,
    /// Prompt tokens rated.
    pub rated_tokens: u64,
    /// Preemptions.
    pub preemptions: u64,
    /// Prompt tokens found in the prefix cache.
    pub cached_tokens: u64,
    /// Times at which the device lost its cache, as in sleep.
    pub cache_losses: u64,
    /// Hash over all plans and notices.
    pub trace_hash: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} steps, {} episodes, {} plans ({} failed), {} arrivals ({} refused, {} aborted, \
             {} expired), {} tokens, {} rated, {} preemptions, {} cached tokens, {} losses of the cache, trace {:016x}",
            self.steps,
            self.episodes,
            self.plans,
            self.failed_plans,
            self.arrivals,
            self.rejections,
            self.aborts,
            self.expirations,
            self.tokens,
            self.rated_tokens,
            self.preemptions,
            self.cached_tokens,
            self.cache_losses,
            self.trace_hash
        )
    }
}
