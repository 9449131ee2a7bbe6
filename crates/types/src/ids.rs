//! Identifiers. Each is a distinct type so that a block can never be passed for a sequence.

/// Index of a token in the model's vocabulary.
pub type TokenId = u32;

/// One sequence for the whole life of the process; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// One step plan; plans are numbered in the order in which they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanId(pub u64);

/// One block of a KV pool. Each attention group has its own pool and numbers its blocks from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// Row of the executor's per-sequence tables, below `max_num_seqs`. A sequence holds one slot
/// while it runs; the slot is handed on when the sequence finishes or is preempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceSlot(pub u32);
