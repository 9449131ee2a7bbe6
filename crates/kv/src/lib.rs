//! Host-side accounting of paged KV blocks and the prefix index.
//!
//! [`KvCache`] decides which block of which pool belongs to which sequence. It never touches the
//! keys and values themselves: those live with the executor, which follows the block tables.
//!
//! Each attention group has its own pool. A block is *free* (holds nothing of use), *cached*
//! (nobody uses it, but the prefix index knows what it holds) or *referenced* (it stands in the
//! block table of one or more sequences). Cached blocks are evicted, least recently used first,
//! when the free ones run out.
//!
//! Invariant: no clock, no randomness, no hash tables, no locks. The same calls in the same order
//! give the same blocks.

mod audit;
mod cache;
pub mod fault;
mod pool;
mod prefix;
mod table;

pub use cache::{GroupUsage, KvCache};
pub use table::{GroupTable, SequenceBlocks};
