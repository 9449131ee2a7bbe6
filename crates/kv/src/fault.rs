//! Faults that the simulator plants in the scheduler and in this crate to prove that it would
//! notice them.
//!
//! Without the feature `faults` the question [`planted`] is a constant `false` and costs nothing.
//! Only the simulator's tests switch the feature on.

/// A fault that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A preempted sequence still counts as computed.
    StaleComputedAfterPreemption,
    /// A block is freed although other sequences use it.
    SharedBlockFreed,
    /// The executor is not told of a sequence's last new block.
    TableOneBlockShort,
    /// Blocks enter the prefix index before their step is done.
    PublishAtPlanTime,
    /// A sliding group gives up one block that is still visible.
    WindowReleasedEarly,
    /// The slot of an ended sequence is handed on while a plan uses it.
    SlotReusedInFlight,
    /// The blocks of an ended sequence are handed on while a plan uses them.
    BlocksReusedInFlight,
    /// Sequences share blocks although their salts differ.
    SaltIgnored,
    /// The prefix index looks at a block's own tokens only.
    ParentIgnored,
    /// The prefix index trusts a weak hash without comparing tokens.
    TokensNotCompared,
    /// A failed step counts as computed.
    NoRollbackOnFailure,
    /// A failed sequence goes on in its slot without a fresh start.
    NoStartAfterFailure,
    /// One failure is counted for every plan that it took down.
    FailureCountedPerPlan,
    /// The abort of a running sequence is forgotten.
    LostAbort,
    /// A prefix hit does not raise the reference count.
    HitNotReferenced,
    /// A prefix hit leaves its blocks in the eviction order.
    HitStaysEvictable,
    /// A prefix hit covers the whole prompt, so that nothing is left to sample from.
    WholePromptHit,
    /// A prefix hit does not ask for the last window of the sliding groups.
    HitForgetsWindow,
    /// A sequence generates one token too many.
    LengthOffByOne,
    /// Stop tokens end a sequence before its minimum length.
    MinTokensIgnored,
    /// A sequence stands in a plan twice.
    SequenceTwiceInPlan,
    /// A preempted sequence never comes back.
    PreemptedLost,
    /// The token of a sequence that has ended is handed out.
    TokenAfterEnd,
    /// Prefills ignore the token budget.
    BudgetIgnored,
    /// The youngest sequence is admitted first.
    YoungestFirst,
    /// A sequence whose prompt is to be rated begins with a prefix hit.
    RatedPrefixAdopted,
    /// A preempted sequence has its prompt rated again.
    RatedTwice,
    /// Rated prompts ignore the budget of logit rows.
    LogitRowsIgnored,
    /// Guesses reach past a sequence's end.
    DraftPastEnd,
    /// The position of a wrong guess counts as computed.
    RejectedDraftComputed,
    /// A tenant without a running sequence waits like everybody else.
    PlaceNotKept,
    /// Nobody gives up a slot for a tenant without a running sequence.
    RoomNotMade,
    /// The only running sequence of a tenant is preempted for those who have several.
    LonePreempted,
    /// Prefixes are found that the device has lost.
    LostCacheKept,
}

impl Fault {
    /// Every fault, for the test that plants them one by one.
    pub const ALL: [Self; 34] = [
        Self::StaleComputedAfterPreemption,
        Self::SharedBlockFreed,
        Self::TableOneBlockShort,
        Self::PublishAtPlanTime,
        Self::WindowReleasedEarly,
        Self::SlotReusedInFlight,
        Self::BlocksReusedInFlight,
        Self::SaltIgnored,
        Self::ParentIgnored,
        Self::TokensNotCompared,
        Self::NoRollbackOnFailure,
        Self::NoStartAfterFailure,
        Self::FailureCountedPerPlan,
        Self::LostAbort,
        Self::HitNotReferenced,
        Self::HitStaysEvictable,
        Self::WholePromptHit,
        Self::HitForgetsWindow,
        Self::LengthOffByOne,
        Self::MinTokensIgnored,
        Self::SequenceTwiceInPlan,
        Self::PreemptedLost,
        Self::TokenAfterEnd,
        Self::BudgetIgnored,
        Self::YoungestFirst,
        Self::RatedPrefixAdopted,
        Self::RatedTwice,
        Self::LogitRowsIgnored,
        Self::DraftPastEnd,
        Self::RejectedDraftComputed,
        Self::PlaceNotKept,
        Self::RoomNotMade,
        Self::LonePreempted,
        Self::LostCacheKept,
    ];
}

#[cfg(feature = "faults")]
std::thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Plants a fault in everything that runs on this thread, or removes it.
#[cfg(feature = "faults")]
pub fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

/// Whether this fault is planted.
#[cfg(feature = "faults")]
pub fn planted(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

/// Whether this fault is planted: never, in this build.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub const fn planted(_fault: Fault) -> bool {
    false
}
