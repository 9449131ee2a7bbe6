//! The blocks that one sequence holds.

use std::collections::VecDeque;

use backstop_types::BlockId;

use crate::prefix::{NodeId, Parent};

/// A sequence's block table in one group, as far as it is held: a run of consecutive entries.
#[derive(Clone, Debug, Default)]
pub struct GroupTable {
    /// Table index of the first held block. More than 0 only in sliding groups.
    pub(crate) first_index: u32,
    pub(crate) blocks: VecDeque<BlockId>,
}

impl GroupTable {
    /// Table index of the first held block.
    pub fn first_index(&self) -> u32 {
        self.first_index
    }

    /// Table index after the last held block.
    pub fn end_index(&self) -> u32 {
        self.first_index + self.blocks.len() as u32
    }

    /// Number of held blocks.
    pub fn len(&self) -> u32 {
        self.blocks.len() as u32
    }

    /// Whether no block is held.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The held blocks with table indices from `first_index` on.
    pub fn blocks_from(&self, first_index: u32) -> Vec<BlockId> {
        let skip = (first_index - self.first_index) as usize;
        self.blocks.range(skip..).copied().collect()
    }

    pub(crate) fn get(&self, index: u32) -> Option<BlockId> {
        self.blocks
            .get(index.checked_sub(self.first_index)? as usize)
            .copied()
    }
}

/// All blocks that one sequence holds, and how much of it the prefix index knows.
///
/// Blocks enter and leave only through [`KvCache`](crate::KvCache). A value that still holds
/// blocks must be handed to [`KvCache::release_all`](crate::KvCache::release_all) before it is
/// dropped.
#[derive(Clone, Debug)]
pub struct SequenceBlocks {
    pub(crate) salt: u64,
    pub(crate) groups: Vec<GroupTable>,
    /// Node of the last published block. The sequence pins it.
    pub(crate) cursor: Option<NodeId>,
    /// Leading blocks that are published.
    pub(crate) published: u32,
    /// False once the index has refused a block: what follows would hang in the air.
    pub(crate) publishing: bool,
}

impl SequenceBlocks {
    /// A sequence without blocks. Sequences share blocks only under the same salt.
    pub fn new(num_groups: usize, salt: u64) -> Self {
        Self {
            salt,
            groups: vec![GroupTable::default(); num_groups],
            cursor: None,
            published: 0,
            publishing: true,
        }
    }

    /// One table for each group.
    pub fn tables(&self) -> &[GroupTable] {
        &self.groups
    }

    /// Blocks held in all groups.
    pub fn count(&self) -> u32 {
        self.groups
            .iter()
            .map(|table| table.blocks.len() as u32)
            .sum()
    }

    /// Whether any block is held.
    pub fn is_empty(&self) -> bool {
        self.groups.iter().all(|table| table.blocks.is_empty())
    }

    pub(crate) fn parent(&self) -> Parent {
        self.cursor.map_or(Parent::Root(self.salt), Parent::Node)
    }
}
