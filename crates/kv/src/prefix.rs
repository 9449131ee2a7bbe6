//! Which token prefixes have blocks with computed keys and values.
//!
//! The index is a tree. A node stands for one block's worth of tokens after everything on the
//! path from its root, and there is one root for each salt. A hash only finds a node quickly; a
//! node is the one looked for when its parent is and its tokens are equal. So a hash collision
//! costs a missed hit and never returns another prompt's block.

use std::collections::BTreeMap;

use backstop_types::{BlockId, TokenId};

use crate::fault::{Fault, planted};

/// Index of a node. Handed on to another node only when nothing refers to the first any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(u32);

/// What a node continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Parent {
    /// The beginning of all sequences with this salt.
    Root(u64),
    /// Another node.
    Node(NodeId),
}

#[derive(Clone, Debug)]
struct Node {
    parent: Parent,
    hash: u64,
    /// Nodes that continue this one.
    children: u32,
    /// Sequences whose last published block this is.
    pins: u32,
    /// Groups that have a block for this node.
    num_blocks: u32,
    live: bool,
}

/// The tree of known prefixes.
#[derive(Clone, Debug)]
pub(crate) struct PrefixIndex {
    block_size: usize,
    num_groups: usize,
    capacity: usize,
    hash: fn(&[TokenId]) -> u64,
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    /// `block_size` tokens for each node.
    tokens: Vec<TokenId>,
    /// `num_groups` blocks for each node.
    blocks: Vec<Option<BlockId>>,
    by_key: BTreeMap<(Parent, u64), NodeId>,
}

impl PrefixIndex {
    /// An index of at most `capacity` nodes. It grows as it is used.
    pub(crate) fn new(block_size: u32, num_groups: usize, capacity: usize) -> Self {
        assert!(
            u32::try_from(capacity).is_ok(),
            "nodes are numbered with 32 bits"
        );
        Self {
            block_size: block_size as usize,
            num_groups,
            capacity,
            hash: hash_tokens,
            nodes: Vec::new(),
            free: Vec::new(),
            tokens: Vec::new(),
            blocks: Vec::new(),
            by_key: BTreeMap::new(),
        }
    }

    /// The node for `tokens` after `parent`.
    pub(crate) fn find(&self, parent: Parent, tokens: &[TokenId]) -> Option<NodeId> {
        let key = self.key(parent, tokens);
        let node = *self.by_key.get(&key)?;
        (self.tokens_of(node) == tokens || planted(Fault::TokensNotCompared)).then_some(node)
    }

    /// The node for `tokens` after `parent`, made if need be. `None` when the index is full or
    /// another node has the same hash.
    pub(crate) fn find_or_insert(&mut self, parent: Parent, tokens: &[TokenId]) -> Option<NodeId> {
        assert_eq!(
            tokens.len(),
            self.block_size,
            "a node stands for a whole block"
        );
        let key = self.key(parent, tokens);
        if let Some(&node) = self.by_key.get(&key) {
            let same = self.tokens_of(node) == tokens || planted(Fault::TokensNotCompared);
            return same.then_some(node);
        }
        let node = self.new_node(key)?;
        let start = node.0 as usize * self.block_size;
        self.tokens[start..start + self.block_size].copy_from_slice(tokens);
        if let Parent::Node(parent) = key.0 {
            self.node_mut(parent).children += 1;
        }
        self.by_key.insert(key, node);
        Some(node)
    }

    /// Keeps a node while a sequence stands on it.
    pub(crate) fn pin(&mut self, node: NodeId) {
        self.node_mut(node).pins += 1;
    }

    /// Undoes [`pin`](Self::pin).
    pub(crate) fn unpin(&mut self, node: NodeId) {
        let pins = &mut self.node_mut(node).pins;
        *pins = pins
            .checked_sub(1)
            .expect("a node is unpinned as often as it was pinned");
        self.prune(node);
    }

    /// The block of a group that holds this node's keys and values.
    pub(crate) fn block(&self, node: NodeId, group: usize) -> Option<BlockId> {
        self.blocks[node.0 as usize * self.num_groups + group]
    }

    /// Gives the node a block in a group where it has none.
    pub(crate) fn set_block(&mut self, node: NodeId, group: usize, block: BlockId) {
        let seat = &mut self.blocks[node.0 as usize * self.num_groups + group];
        assert!(seat.is_none(), "the node has a block already");
        *seat = Some(block);
        self.node_mut(node).num_blocks += 1;
    }

    /// Takes a block, which is being evicted, from its node.
    pub(crate) fn clear_block(&mut self, node: NodeId, group: usize, block: BlockId) {
        let seat = &mut self.blocks[node.0 as usize * self.num_groups + group];
        assert_eq!(*seat, Some(block), "the evicted block belongs to its node");
        *seat = None;
        self.node_mut(node).num_blocks -= 1;
        self.prune(node);
    }

    /// Removes a node that nothing needs, and then its ancestors for which it was the last need.
    fn prune(&mut self, node: NodeId) {
        let mut candidate = Parent::Node(node);
        while let Parent::Node(id) = candidate {
            let node = self.node_mut(id);
            if node.children > 0 || node.pins > 0 || node.num_blocks > 0 {
                return;
            }
            node.live = false;
            let key = (node.parent, node.hash);
            self.free.push(id);
            let removed = self.by_key.remove(&key);
            assert_eq!(removed, Some(id), "the index finds every live node");
            candidate = key.0;
            if let Parent::Node(parent) = candidate {
                self.node_mut(parent).children -= 1;
            }
        }
    }

    fn new_node(&mut self, (parent, hash): (Parent, u64)) -> Option<NodeId> {
        let node = Node {
            parent,
            hash,
            children: 0,
            pins: 0,
            num_blocks: 0,
            live: true,
        };
        if let Some(id) = self.free.pop() {
            self.nodes[id.0 as usize] = node;
            return Some(id);
        }
        if self.nodes.len() == self.capacity {
            return None;
        }
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(node);
        self.tokens.resize(self.tokens.len() + self.block_size, 0);
        self.blocks
            .resize(self.blocks.len() + self.num_groups, None);
        Some(id)
    }

    fn key(&self, parent: Parent, tokens: &[TokenId]) -> (Parent, u64) {
        let hash = (self.hash)(tokens);
        let hash = if planted(Fault::TokensNotCompared) {
            hash & 1
        } else {
            hash
        };
        match parent {
            Parent::Root(_) if planted(Fault::SaltIgnored) => (Parent::Root(0), hash),
            Parent::Node(_) if planted(Fault::ParentIgnored) => (Parent::Root(0), hash),
            _ => (parent, hash),
        }
    }

    fn tokens_of(&self, node: NodeId) -> &[TokenId] {
        let start = node.0 as usize * self.block_size;
        &self.tokens[start..start + self.block_size]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        let node = &mut self.nodes[id.0 as usize];
        assert!(node.live, "a node is used after its removal");
        node
    }

    /// Checks the tree. `pins` yields every node on which a sequence stands, `owner` tells which
    /// node a block claims to belong to. O(nodes).
    pub(crate) fn audit(
        &self,
        pins: impl Iterator<Item = NodeId>,
        owner: impl Fn(usize, BlockId) -> Option<NodeId>,
    ) {
        let mut expected_pins = vec![0; self.nodes.len()];
        for node in pins {
            expected_pins[node.0 as usize] += 1;
        }
        let mut children = vec![0; self.nodes.len()];
        let mut live = 0;
        for (number, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.live) {
            live += 1;
            let id = NodeId(number as u32);
            assert_eq!(
                self.by_key.get(&(node.parent, node.hash)),
                Some(&id),
                "lost node"
            );
            if let Parent::Node(parent) = node.parent {
                children[parent.0 as usize] += 1;
                assert!(
                    self.nodes[parent.0 as usize].live,
                    "an orphan in the prefix index"
                );
            }
            assert_eq!(node.pins, expected_pins[number], "pins of node {number}");
            let blocks = (0..self.num_groups).filter_map(|group| {
                let block = self.block(id, group)?;
                assert_eq!(
                    owner(group, block),
                    Some(id),
                    "block {} has another node",
                    block.0
                );
                Some(block)
            });
            assert_eq!(
                node.num_blocks as usize,
                blocks.count(),
                "blocks of node {number}"
            );
        }
        for (number, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.live) {
            assert_eq!(node.children, children[number], "children of node {number}");
            let needed = node.children + node.pins + node.num_blocks;
            assert!(needed > 0, "node {number} outlives its use");
        }
        assert_eq!(self.by_key.len(), live, "the index knows a dead node");
        assert_eq!(self.free.len() + live, self.nodes.len(), "a node is lost");
    }

    /// Blocks that stand in the index, over all groups.
    pub(crate) fn count_blocks(&self, group: usize) -> u32 {
        let live = self.nodes.iter().enumerate().filter(|(_, node)| node.live);
        live.filter(|(number, _)| self.block(NodeId(*number as u32), group).is_some())
            .count() as u32
    }
}

/// Mixes a block's tokens into 64 bits. It need not be secure: see the module's first lines.
fn hash_tokens(tokens: &[TokenId]) -> u64 {
    tokens.iter().fold(0x9e37_79b9_7f4a_7c15, |hash, &token| {
        let mixed = (hash ^ u64::from(token)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 29)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_collision_is_a_miss_and_never_a_wrong_hit() {
        let mut index = PrefixIndex::new(2, 1, 8);
        index.hash = |_| 7;
        let root = Parent::Root(0);
        let first = index.find_or_insert(root, &[1, 2]).unwrap();
        assert_eq!(index.find(root, &[1, 2]), Some(first));
        assert_eq!(index.find(root, &[3, 4]), None);
        assert_eq!(index.find_or_insert(root, &[3, 4]), None);
    }

    #[test]
    fn equal_tokens_after_different_prefixes_are_different_nodes() {
        let mut index = PrefixIndex::new(1, 1, 8);
        let one = index.find_or_insert(Parent::Root(0), &[1]).unwrap();
        let two = index.find_or_insert(Parent::Root(0), &[2]).unwrap();
        let salted = index.find_or_insert(Parent::Root(1), &[1]).unwrap();
        let after_one = index.find_or_insert(Parent::Node(one), &[5]).unwrap();
        assert_eq!(index.find(Parent::Node(two), &[5]), None);
        assert_eq!(index.find(Parent::Node(one), &[5]), Some(after_one));
        assert_ne!(salted, one);
    }

    #[test]
    fn a_full_index_takes_no_more_nodes_until_one_is_removed() {
        let mut index = PrefixIndex::new(1, 1, 2);
        let one = index.find_or_insert(Parent::Root(0), &[1]).unwrap();
        let two = index.find_or_insert(Parent::Node(one), &[2]).unwrap();
        assert_eq!(index.find_or_insert(Parent::Root(0), &[3]), None);
        index.pin(two);
        // The whole path goes with its last use.
        index.unpin(two);
        assert_eq!(index.find(Parent::Root(0), &[1]), None);
        assert!(index.find_or_insert(Parent::Root(0), &[3]).is_some());
        index.pin(index.find(Parent::Root(0), &[3]).unwrap());
        index.audit([NodeId(0)].into_iter(), |_, _| None);
    }
}
