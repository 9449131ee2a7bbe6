//! A few places for probes, so that a full queue does not make a working server look dead.
//!
//! Gateways do not ask `/health`: LiteLLM sends a chat of one short line with `max_tokens` 16 and
//! takes a 429, or no answer within a minute, for a deployment that is down. Under load, when the
//! last link of a chain is needed most, that would take it out of the chain. A probe costs about as
//! much as one step of the others, so it may go to the head of the queue and past its bound. That
//! anybody can write such a request is why both the places and the pace are small: who imitates
//! probes gains one short answer a second.

use std::time::Instant;

use crate::keys::TokenBucket;

/// Longest answer that a probe asks for.
const PROBE_ANSWER_TOKENS: u32 = 16;
/// Longest prompt of a probe.
const PROBE_PROMPT_TOKENS: u32 = 256;
/// Probes that wait at once.
pub(super) const PROBE_PLACES: u32 = 8;
/// Probes in a minute, after a burst of [`PROBE_PLACES`].
const PROBES_PER_MINUTE: u32 = 60;

/// Who may go to the head of the queue.
#[derive(Debug, Default)]
pub(super) struct ProbeReserve {
    waiting: u32,
    pace: TokenBucket,
}

impl ProbeReserve {
    /// Whether a request looks like a probe.
    pub(super) fn is_probe(prompt_tokens: &[u32], max_tokens: u32) -> bool {
        matches!(prompt_tokens, [tokens] if *tokens <= PROBE_PROMPT_TOKENS)
            && max_tokens <= PROBE_ANSWER_TOKENS
    }

    /// Takes a place, if there is one.
    pub(super) fn enter(&mut self, now: Instant) -> bool {
        let free = self.waiting < PROBE_PLACES
            && self
                .pace
                .take(now, 1, PROBES_PER_MINUTE, PROBE_PLACES)
                .is_ok();
        self.waiting += u32::from(free);
        free
    }

    /// Gives a place back.
    pub(super) fn leave(&mut self) {
        self.waiting -= 1;
    }
}
