//! The blocks of one attention group: reference counts, free list and eviction order.

use backstop_types::BlockId;

use crate::fault::{Fault, planted};
use crate::prefix::NodeId;

/// End of the linked list.
const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Block {
    /// Block tables in which the block stands.
    references: u32,
    /// What the block holds, if the prefix index knows it.
    node: Option<NodeId>,
    /// Neighbours in the eviction order; meaningful while the block is cached.
    previous: u32,
    next: u32,
}

/// The pool of one attention group.
#[derive(Clone, Debug)]
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    /// Blocks that hold nothing of use; the last one is taken next.
    free: Vec<BlockId>,
    /// Cached blocks, least recently used first.
    oldest: u32,
    newest: u32,
    cached: u32,
}

impl BlockPool {
    pub(crate) fn new(num_blocks: u32) -> Self {
        assert!(
            num_blocks < NONE,
            "block numbers must leave room for the end marker"
        );
        let block = Block {
            references: 0,
            node: None,
            previous: NONE,
            next: NONE,
        };
        Self {
            blocks: vec![block; num_blocks as usize],
            free: (0..num_blocks).rev().map(BlockId).collect(),
            oldest: NONE,
            newest: NONE,
            cached: 0,
        }
    }

    pub(crate) fn total(&self) -> u32 {
        self.blocks.len() as u32
    }

    pub(crate) fn free(&self) -> u32 {
        self.free.len() as u32
    }

    pub(crate) fn cached(&self) -> u32 {
        self.cached
    }

    /// Blocks that [`allocate`](Self::allocate) can hand out.
    pub(crate) fn available(&self) -> u32 {
        self.free() + self.cached
    }

    pub(crate) fn node(&self, block: BlockId) -> Option<NodeId> {
        self.blocks[block.0 as usize].node
    }

    /// Takes a free block, or else evicts the least recently used cached one. In that case the
    /// node that lost its block comes along. The block is referenced once.
    pub(crate) fn allocate(&mut self) -> Option<(BlockId, Option<NodeId>)> {
        if let Some(block) = self.free.pop() {
            let state = &mut self.blocks[block.0 as usize];
            assert!(
                state.references == 0 && state.node.is_none(),
                "a free block is in use"
            );
            state.references = 1;
            return Some((block, None));
        }
        if self.oldest == NONE {
            return None;
        }
        let block = BlockId(self.oldest);
        self.unlink(block);
        let state = &mut self.blocks[block.0 as usize];
        assert_eq!(state.references, 0, "a cached block is in use");
        state.references = 1;
        Some((block, state.node.take()))
    }

    /// Adds a reference to a block that is referenced or cached.
    pub(crate) fn retain(&mut self, block: BlockId) {
        let state = &self.blocks[block.0 as usize];
        assert!(
            state.references > 0 || state.node.is_some(),
            "nobody knows what the block holds"
        );
        if state.references == 0 && !planted(Fault::HitStaysEvictable) {
            self.unlink(block);
        }
        if !planted(Fault::HitNotReferenced) {
            self.blocks[block.0 as usize].references += 1;
        }
    }

    /// Drops a reference. With the last one the block becomes cached, if the prefix index knows
    /// it, or free.
    pub(crate) fn release(&mut self, block: BlockId) {
        let state = &mut self.blocks[block.0 as usize];
        assert!(
            state.references > 0,
            "a block is released more often than it was taken"
        );
        state.references -= 1;
        if planted(Fault::SharedBlockFreed) {
            state.references = 0;
        }
        if state.references > 0 {
            return;
        }
        if state.node.is_some() {
            self.link_newest(block);
        } else {
            self.free.push(block);
        }
    }

    /// Notes that the prefix index knows what a referenced block holds.
    pub(crate) fn attach(&mut self, block: BlockId, node: NodeId) {
        let state = &mut self.blocks[block.0 as usize];
        assert!(state.references > 0, "only a block in use can be published");
        assert!(state.node.is_none(), "the block is published already");
        state.node = Some(node);
    }

    fn link_newest(&mut self, block: BlockId) {
        let previous = self.newest;
        let state = &mut self.blocks[block.0 as usize];
        state.previous = previous;
        state.next = NONE;
        if previous == NONE {
            self.oldest = block.0;
        } else {
            self.blocks[previous as usize].next = block.0;
        }
        self.newest = block.0;
        self.cached += 1;
    }

    fn unlink(&mut self, block: BlockId) {
        let Block { previous, next, .. } = self.blocks[block.0 as usize];
        if previous == NONE {
            self.oldest = next;
        } else {
            self.blocks[previous as usize].next = next;
        }
        if next == NONE {
            self.newest = previous;
        } else {
            self.blocks[next as usize].previous = previous;
        }
        self.cached -= 1;
    }

    /// Checks the pool against the number of table entries of each block. O(blocks).
    pub(crate) fn audit(&self, table_entries: &[u32]) {
        let total = self.blocks.len();
        assert_eq!(table_entries.len(), total, "one count for each block");
        let mut idle = vec![false; total];
        for block in &self.free {
            let seat = &mut idle[block.0 as usize];
            assert!(!*seat, "block {} is free twice", block.0);
            *seat = true;
            assert!(
                self.node(*block).is_none(),
                "free block {} is published",
                block.0
            );
        }
        let mut cached = 0;
        let (mut previous, mut current) = (NONE, self.oldest);
        while current != NONE {
            let seat = &mut idle[current as usize];
            assert!(!*seat, "block {current} is cached twice, or free as well");
            *seat = true;
            let block = &self.blocks[current as usize];
            assert!(
                block.node.is_some(),
                "cached block {current} is not published"
            );
            assert_eq!(
                block.previous, previous,
                "the eviction order is broken at {current}"
            );
            (previous, current) = (current, block.next);
            cached += 1;
        }
        assert_eq!(self.newest, previous, "the eviction order ends elsewhere");
        assert_eq!(self.cached, cached, "the count of cached blocks is wrong");
        for (number, block) in self.blocks.iter().enumerate() {
            assert_eq!(
                block.references, table_entries[number],
                "references of block {number} against its table entries"
            );
            assert_eq!(
                block.references == 0,
                idle[number],
                "block {number} is lost or used twice"
            );
        }
    }
}
