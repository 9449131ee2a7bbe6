//! The KV cache of all groups: what a sequence may hold, share, publish and give back.

use backstop_types::{AttentionSpan, KvSpec, TokenId};

use crate::SequenceBlocks;
use crate::fault::{Fault, planted};
use crate::pool::BlockPool;
use crate::prefix::{NodeId, Parent, PrefixIndex};

/// The blocks of one group, by use. The three add up to the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupUsage {
    /// Blocks in the tables of sequences.
    pub referenced: u32,
    /// Blocks that only the prefix index knows.
    pub cached: u32,
    /// Blocks that hold nothing of use.
    pub free: u32,
}

impl GroupUsage {
    /// Blocks in the pool.
    pub fn total(&self) -> u32 {
        self.referenced + self.cached + self.free
    }
}

/// Block pools and prefix index of one executor.
#[derive(Clone, Debug)]
pub struct KvCache {
    pub(crate) block_size: u32,
    pub(crate) spans: Vec<AttentionSpan>,
    pub(crate) pools: Vec<BlockPool>,
    pub(crate) index: PrefixIndex,
    prefix_caching: bool,
    /// Nodes of the prefix under way in [`adopt_prefix`](Self::adopt_prefix), kept for its
    /// allocation.
    path: Vec<NodeId>,
    /// For each group, the blocks in a row that end at the current node of the path.
    runs: Vec<u32>,
}

impl KvCache {
    /// A cache of this shape, all free. `spec` must have a block size, at least one group, and at
    /// least one visible key in each group.
    pub fn new(spec: &KvSpec, prefix_caching: bool) -> Self {
        assert!(spec.block_size > 0, "a block holds at least one position");
        assert!(!spec.groups.is_empty(), "a KV cache has at least one group");
        let num_blocks: usize = spec
            .groups
            .iter()
            .map(|group| group.num_blocks as usize)
            .sum();
        Self {
            block_size: spec.block_size,
            spans: spec.groups.iter().map(|group| group.span).collect(),
            pools: spec
                .groups
                .iter()
                .map(|group| BlockPool::new(group.num_blocks))
                .collect(),
            // Every block has at most one node. The rest is for nodes that have lost their blocks
            // and still connect others.
            index: PrefixIndex::new(spec.block_size, spec.groups.len(), 2 * num_blocks),
            prefix_caching,
            path: Vec::new(),
            runs: vec![0; spec.groups.len()],
        }
    }

    /// Positions in a block.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Number of attention groups.
    pub fn num_groups(&self) -> usize {
        self.pools.len()
    }

    /// Blocks of a group by use.
    pub fn usage(&self, group: usize) -> GroupUsage {
        let pool = &self.pools[group];
        GroupUsage {
            referenced: pool.total() - pool.available(),
            cached: pool.cached(),
            free: pool.free(),
        }
    }

    /// Blocks of a group that can be had now, evictions included.
    pub fn available(&self, group: usize) -> u32 {
        self.pools[group].available()
    }

    /// Blocks that a sequence of `num_positions` holds at most in a group when it computes them
    /// one by one. With fewer in the pool it can never finish.
    pub fn blocks_to_finish(&self, group: usize, num_positions: u32) -> u32 {
        let all = num_positions.div_ceil(self.block_size);
        match self.spans[group] {
            AttentionSpan::Full => all,
            AttentionSpan::Sliding { visible_keys } => all.min(self.window_blocks(visible_keys)),
        }
    }

    /// Blocks that a sequence, on its way to `end`, is going to hold in a group beyond those that
    /// it holds now. For sliding groups this takes chunks of a block.
    pub fn blocks_missing(&self, blocks: &SequenceBlocks, group: usize, end: u32) -> u32 {
        let table = &blocks.groups[group];
        let ahead = end
            .div_ceil(self.block_size)
            .saturating_sub(table.end_index());
        match self.spans[group] {
            AttentionSpan::Full => ahead,
            AttentionSpan::Sliding { visible_keys } => {
                let peak = self.window_blocks(visible_keys) + 1;
                ahead.min(peak.saturating_sub(table.blocks.len() as u32))
            }
        }
    }

    /// Most blocks that a window touches, wherever it lies.
    fn window_blocks(&self, visible_keys: u32) -> u32 {
        // The first block may contribute a single position.
        (visible_keys - 1).div_ceil(self.block_size) + 1
    }

    /// First position that the sequence could not reach with the blocks that it holds and those
    /// that are available.
    pub fn reachable_end(&self, blocks: &SequenceBlocks) -> u32 {
        let ends = blocks.groups.iter().zip(&self.pools).map(|(table, pool)| {
            (table.end_index() + pool.available()).saturating_mul(self.block_size)
        });
        ends.min().expect("a KV cache has at least one group")
    }

    /// Extends the sequence's table in a group so that it covers all positions before `end`,
    /// which [`reachable_end`](Self::reachable_end) must allow.
    pub fn extend(&mut self, blocks: &mut SequenceBlocks, group: usize, end: u32) {
        let table = &mut blocks.groups[group];
        while table.end_index() < end.div_ceil(self.block_size) {
            let (block, evicted) = self.pools[group]
                .allocate()
                .expect("the caller asked for reachable positions");
            if let Some(node) = evicted {
                self.index.clear_block(node, group, block);
            }
            table.blocks.push_back(block);
        }
    }

    /// Gives an empty sequence the longest usable prefix of `tokens` that the index knows, and
    /// returns its length in tokens. At least one token is left to compute.
    ///
    /// A prefix is usable when the full groups have all its blocks and the sliding groups those
    /// that the first position after it still sees.
    pub fn adopt_prefix(&mut self, blocks: &mut SequenceBlocks, tokens: &[TokenId]) -> u32 {
        assert!(
            blocks.is_empty() && blocks.cursor.is_none(),
            "the sequence has begun"
        );
        if !self.prefix_caching {
            return 0;
        }
        let hit = self.longest_hit(blocks.salt, tokens);
        if hit == 0 {
            return 0;
        }
        let position = hit * self.block_size;
        for (group, table) in blocks.groups.iter_mut().enumerate() {
            table.first_index = self.spans[group].first_visible(position) / self.block_size;
            for &node in &self.path[table.first_index as usize..hit as usize] {
                let block = self.index.block(node, group);
                let block = block.expect("a hit has all blocks that it needs");
                self.pools[group].retain(block);
                table.blocks.push_back(block);
            }
        }
        let cursor = self.path[hit as usize - 1];
        self.index.pin(cursor);
        blocks.cursor = Some(cursor);
        blocks.published = hit;
        position
    }

    /// Length in blocks of the longest usable prefix. Leaves its nodes in `path`.
    fn longest_hit(&mut self, salt: u64, tokens: &[TokenId]) -> u32 {
        self.path.clear();
        self.runs.fill(0);
        let computable = if planted(Fault::WholePromptHit) {
            tokens.len()
        } else {
            tokens.len() - 1
        };
        let size = self.block_size as usize;
        let mut parent = Parent::Root(salt);
        let mut hit = 0;
        for chunk in tokens[..computable].chunks_exact(size) {
            let Some(node) = self.index.find(parent, chunk) else {
                break;
            };
            self.path.push(node);
            parent = Parent::Node(node);
            let length = self.path.len() as u32;
            let mut usable = true;
            for (group, run) in self.runs.iter_mut().enumerate() {
                *run = if self.index.block(node, group).is_some() {
                    *run + 1
                } else {
                    0
                };
                let first_needed =
                    self.spans[group].first_visible(length * self.block_size) / self.block_size;
                let sliding = self.spans[group] != AttentionSpan::Full;
                let forgotten = sliding && planted(Fault::HitForgetsWindow);
                usable &= *run >= length - first_needed || forgotten;
                if !sliding && *run < length {
                    return hit;
                }
            }
            if usable {
                hit = length;
            }
        }
        hit
    }

    /// Tells the index of all blocks whose positions before `computed` are complete. Only for
    /// positions whose keys and values have really been computed.
    pub fn publish(&mut self, blocks: &mut SequenceBlocks, tokens: &[TokenId], computed: u32) {
        if !self.prefix_caching {
            return;
        }
        while blocks.publishing && (blocks.published + 1) * self.block_size <= computed {
            let index = blocks.published;
            let start = (index * self.block_size) as usize;
            let chunk = &tokens[start..start + self.block_size as usize];
            let Some(node) = self.index.find_or_insert(blocks.parent(), chunk) else {
                blocks.publishing = false;
                return;
            };
            for (group, table) in blocks.groups.iter().enumerate() {
                let Some(block) = table.get(index) else {
                    continue;
                };
                // Another sequence may have published the same tokens first. Its block stays.
                if self.index.block(node, group).is_none() {
                    self.index.set_block(node, group, block);
                    self.pools[group].attach(block, node);
                }
            }
            self.index.pin(node);
            if let Some(previous) = blocks.cursor.replace(node) {
                self.index.unpin(previous);
            }
            blocks.published += 1;
        }
    }

    /// Gives back the blocks of sliding groups that no position from `next_position` on sees.
    pub fn release_passed(&mut self, blocks: &mut SequenceBlocks, next_position: u32) {
        for (group, table) in blocks.groups.iter_mut().enumerate() {
            let first_visible = self.spans[group].first_visible(next_position);
            let mut first_index = first_visible / self.block_size;
            if planted(Fault::WindowReleasedEarly) && first_visible > 0 {
                first_index = first_visible.div_ceil(self.block_size);
            }
            while table.first_index < first_index {
                let Some(block) = table.blocks.pop_front() else {
                    break;
                };
                table.first_index += 1;
                self.pools[group].release(block);
            }
        }
    }

    /// Gives back everything that the sequence holds. What it published stays cached.
    pub fn release_all(&mut self, blocks: &mut SequenceBlocks) {
        for (group, table) in blocks.groups.iter_mut().enumerate() {
            // Last block first: it is to be evicted before those that it needs for a hit.
            while let Some(block) = table.blocks.pop_back() {
                self.pools[group].release(block);
            }
            table.first_index = 0;
        }
        if let Some(cursor) = blocks.cursor.take() {
            self.index.unpin(cursor);
        }
        blocks.published = 0;
        blocks.publishing = true;
    }
}
