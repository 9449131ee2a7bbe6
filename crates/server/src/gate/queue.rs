//! What the gate counts: who waits, who runs, and how far each key's virtual clock is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::probes::ProbeReserve;
use super::{AdmissionProfile, Ask, Refusal, TenantId};
use crate::lane::Lane;

/// How long a key counts as one that wants in after its last request, refused ones included. It
/// must outlast the time after which a refused client comes back.
pub(super) const REMEMBERED: Duration = Duration::from_secs(60);
/// What an answer is taken to cost when a request comes in; what it costs beyond that is added
/// when it ends. An estimate that is too high could let a key's later request overtake an earlier
/// one.
const EXPECTED_ANSWER_TOKENS: u64 = 256;
/// One part in so many of what may wait is left to keys that have nothing in the server.
const KEPT_PART: u32 = 8;
/// Virtual time is counted in tokens and handed to the scheduler in units of this many, so that
/// its range of 32 bits outlasts weeks in which the queue is never empty. After that the order is
/// that of arrival, until it is.
const PRIORITY_UNIT_TOKENS: u64 = 64;

/// What a request is measured against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) profile: AdmissionProfile,
    /// Sequences that can run.
    pub(super) capacity: u32,
    /// Whether somebody waits already.
    pub(super) queued: bool,
    /// Sequences that may wait.
    pub(super) max_waiting: u32,
    /// Prompt tokens that may wait.
    pub(super) max_tokens: Option<u64>,
}

impl Bounds {
    fn places(&self) -> u32 {
        self.capacity.saturating_add(self.max_waiting)
    }

    /// Of what may wait, the part that is left to keys that have nothing in the server.
    fn kept(&self) -> u32 {
        (self.max_waiting / KEPT_PART).max(1)
    }

    /// Sequences that one of `active` keys, of `tenants` that there are, may have in the server.
    fn share(&self, active: usize, tenants: usize) -> u32 {
        let part = |keys: usize| self.places() / u32::try_from(keys.max(1)).unwrap_or(u32::MAX);
        let share = match self.profile {
            // Twice its part, so that nothing is left unused by those who want less.
            AdmissionProfile::Normal => part(active).saturating_mul(2),
            // Its part and no more, and a part is kept for a key that has not come yet.
            AdmissionProfile::Outage => part((active + 1).min(tenants)),
        };
        share.max(1)
    }

    /// Whether a key's share matters yet.
    fn contended(&self, sequences: u32) -> bool {
        match self.profile {
            AdmissionProfile::Normal => sequences >= self.capacity + self.max_waiting / 2,
            AdmissionProfile::Outage => true,
        }
    }
}

/// One sequence's mark of entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    tenant: TenantId,
    lane: Lane,
    pub(super) prompt_tokens: u32,
    /// Virtual time at which it would end; `None` goes first.
    finish: Option<u64>,
}

impl Stamp {
    pub(super) fn priority(&self) -> i32 {
        let Some(finish) = self.finish else {
            return i32::MIN;
        };
        let units = (finish / PRIORITY_UNIT_TOKENS).min(u64::from(u32::MAX) - 1) as i64;
        // Within bounds: one above the least to the highest.
        i32::try_from(i64::from(i32::MIN) + 1 + units).unwrap_or(i32::MAX)
    }
}

#[derive(Debug)]
struct Share {
    /// Sequences in the server.
    sequences: u32,
    /// Virtual time at which its last request would end.
    finish: u64,
    seen: Instant,
}

/// All sequences that were let in, and the keys that want in.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// In the queue or in the engine.
    sequences: u32,
    waiting_tokens: u64,
    probes: ProbeReserve,
    /// The stamp that left the queue last.
    clock: u64,
    tenants: BTreeMap<TenantId, Share>,
    forgot: Option<Instant>,
}

impl Queue {
    pub(super) fn waiting_tokens(&self) -> u64 {
        self.waiting_tokens
    }

    /// Stamps for all sequences of a request.
    pub(super) fn enter(
        &mut self,
        ask: &Ask,
        bounds: &Bounds,
        now: Instant,
    ) -> Result<Vec<Stamp>, Refusal> {
        self.forget(now);
        let clock = self.clock;
        let share = self.tenants.entry(ask.tenant).or_insert(Share {
            sequences: 0,
            finish: clock,
            seen: now,
        });
        share.seen = now;
        let probe = bounds.queued
            && ProbeReserve::is_probe(&ask.prompt_tokens, ask.max_tokens)
            && self.probes.enter(now);
        if !probe {
            self.check(ask, bounds)?;
        }
        let prompts = ask.prompt_tokens.iter();
        Ok(prompts
            .map(|&prompt_tokens| self.stamp(ask, prompt_tokens, probe))
            .collect())
    }

    fn check(&self, ask: &Ask, bounds: &Bounds) -> Result<(), Refusal> {
        if bounds.profile == AdmissionProfile::Outage && ask.lane == Lane::Batch {
            return Err(Refusal::Lane);
        }
        let asked = u32::try_from(ask.prompt_tokens.len()).unwrap_or(u32::MAX);
        let sequences = self.sequences.saturating_add(asked);
        if sequences > bounds.places() {
            return Err(Refusal::Requests);
        }
        let held = self.tenants.get(&ask.tenant).map_or(0, |s| s.sequences);
        let leaves_room = held > 0 && ask.tenants > 1;
        if leaves_room && sequences > bounds.places().saturating_sub(bounds.kept()) {
            return Err(Refusal::Share);
        }
        let tokens: u64 = ask
            .prompt_tokens
            .iter()
            .map(|&count| u64::from(count))
            .sum();
        // A prompt that is longer than the bound can wait alone; else it could never be served.
        let part = u64::from(KEPT_PART);
        if let Some(most) = bounds.max_tokens
            && self.waiting_tokens > 0
            && self.waiting_tokens + tokens > most - u64::from(leaves_room) * (most / part)
        {
            return Err(Refusal::Tokens);
        }
        let share = bounds.share(self.tenants.len(), ask.tenants);
        if bounds.contended(sequences) && held > 0 && held.saturating_add(asked) > share {
            return Err(Refusal::Share);
        }
        Ok(())
    }

    fn stamp(&mut self, ask: &Ask, prompt_tokens: u32, probe: bool) -> Stamp {
        self.sequences += 1;
        self.waiting_tokens += u64::from(prompt_tokens);
        let clock = self.clock;
        let finish = self.tenants.get_mut(&ask.tenant).map_or(clock, |share| {
            share.sequences += 1;
            if !probe {
                let cost = u64::from(prompt_tokens) + EXPECTED_ANSWER_TOKENS;
                share.finish = share
                    .finish
                    .max(clock)
                    .saturating_add(cost * ask.lane.cost());
            }
            share.finish
        });
        Stamp {
            tenant: ask.tenant,
            lane: ask.lane,
            prompt_tokens,
            finish: (!probe).then_some(finish),
        }
    }

    /// A sequence went from the queue to the engine.
    pub(super) fn admitted(&mut self, stamp: &Stamp) {
        self.leave_queue(stamp);
        if let Some(finish) = stamp.finish {
            self.clock = self.clock.max(finish);
        }
    }

    /// A sequence is gone.
    pub(super) fn left(&mut self, stamp: &Stamp, waiting: bool, generated: u64) {
        if waiting {
            self.leave_queue(stamp);
        }
        self.sequences -= 1;
        if let Some(share) = self.tenants.get_mut(&stamp.tenant) {
            share.sequences -= 1;
            if stamp.finish.is_some() {
                let more = generated.saturating_sub(EXPECTED_ANSWER_TOKENS);
                share.finish = share.finish.saturating_add(more * stamp.lane.cost());
            }
        }
        if self.sequences == 0 {
            // Nobody is ahead of anybody.
            self.clock = 0;
            self.tenants.values_mut().for_each(|share| share.finish = 0);
        }
    }

    fn leave_queue(&mut self, stamp: &Stamp) {
        self.waiting_tokens -= u64::from(stamp.prompt_tokens);
        if stamp.finish.is_none() {
            self.probes.leave();
        }
    }

    /// Forgets the keys that have nothing here and did not ask lately.
    fn forget(&mut self, now: Instant) {
        let due = |at: Instant, after| now.saturating_duration_since(at) > after;
        if self.forgot.is_none_or(|at| due(at, REMEMBERED / 60)) {
            self.forgot = Some(now);
            self.tenants
                .retain(|_, share| share.sequences > 0 || !due(share.seen, REMEMBERED));
        }
    }
}

#[cfg(test)]
mod tests;
