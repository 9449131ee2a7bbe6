//! Which token prefixes have blocks with computed keys and values.
//!
//! The index is a tree. A node stands for one block's worth of tokens after everything on the
//! path from its root, and there is one root for each salt. A hash table finds the children of a
//! node, but a node is the one looked for only if its parent is and its tokens are equal. So a
//! hash collision costs a comparison and never returns another prompt's block. A node's hash goes
//! on from its parent's, and that of a root from its salt: where salts are secret, nobody can
//! choose prompts that fall into one bucket and make every look-up walk along it.

use std::hash::{DefaultHasher, Hash, Hasher};

use backstop_types::{BlockId, TokenId};

use crate::fault::{Fault, planted};

/// End of a bucket's list.
const NONE: u32 = u32::MAX;

/// Index of a node. Handed on to another node only when nothing refers to the first any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeId(u32);

/// What a node continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parent {
    /// The beginning of all sequences with this salt.
    Root(u64),
    /// Another node.
    Node(NodeId),
}

#[derive(Clone, Debug)]
struct Node {
    parent: Parent,
    /// Of parent and tokens.
    hash: u64,
    /// Next node in the same bucket.
    next: u32,
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
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    /// `block_size` tokens for each node.
    tokens: Vec<TokenId>,
    /// `num_groups` blocks for each node.
    blocks: Vec<Option<BlockId>>,
    /// First node of each bucket of the hash table. Never grows, so that no step has to wait for
    /// that. Its length is a power of two.
    buckets: Vec<u32>,
}

impl PrefixIndex {
    /// An index of at most `capacity` nodes.
    pub(crate) fn new(block_size: u32, num_groups: usize, capacity: usize) -> Self {
        assert!(capacity < NONE as usize, "nodes are numbered with 32 bits");
        Self {
            block_size: block_size as usize,
            num_groups,
            capacity,
            nodes: Vec::with_capacity(capacity),
            free: Vec::new(),
            tokens: Vec::with_capacity(capacity * block_size as usize),
            blocks: Vec::with_capacity(capacity * num_groups),
            buckets: vec![NONE; capacity.next_power_of_two()],
        }
    }

    /// The node for `tokens` after `parent`.
    pub(crate) fn find(&self, parent: Parent, tokens: &[TokenId]) -> Option<NodeId> {
        let parent = effective(parent);
        self.find_hashed(parent, tokens, self.hash(parent, tokens))
    }

    fn find_hashed(&self, parent: Parent, tokens: &[TokenId], hash: u64) -> Option<NodeId> {
        let mut current = self.buckets[self.bucket_of(hash)];
        while current != NONE {
            let node = &self.nodes[current as usize];
            let id = NodeId(current);
            if node.hash == hash && node.parent == parent {
                let same = self.tokens_of(id) == tokens || planted(Fault::TokensNotCompared);
                if same {
                    return Some(id);
                }
            }
            current = node.next;
        }
        None
    }

    /// The node for `tokens` after `parent`, made if need be. `None` when the index is full.
    pub(crate) fn find_or_insert(&mut self, parent: Parent, tokens: &[TokenId]) -> Option<NodeId> {
        assert_eq!(
            tokens.len(),
            self.block_size,
            "a node stands for a whole block"
        );
        let parent = effective(parent);
        let hash = self.hash(parent, tokens);
        if let Some(node) = self.find_hashed(parent, tokens, hash) {
            return Some(node);
        }
        let id = self.new_node(parent, hash)?;
        let start = id.0 as usize * self.block_size;
        self.tokens[start..start + self.block_size].copy_from_slice(tokens);
        if let Parent::Node(parent) = parent {
            self.node_mut(parent).children += 1;
        }
        Some(id)
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
            candidate = node.parent;
            self.unlink(id);
            self.free.push(id);
            if let Parent::Node(parent) = candidate {
                self.node_mut(parent).children -= 1;
            }
        }
    }

    /// A node in its bucket, without tokens, blocks and uses.
    fn new_node(&mut self, parent: Parent, hash: u64) -> Option<NodeId> {
        if self.free.is_empty() && self.nodes.len() == self.capacity {
            return None;
        }
        let bucket = self.bucket_of(hash);
        let node = Node {
            parent,
            hash,
            next: self.buckets[bucket],
            children: 0,
            pins: 0,
            num_blocks: 0,
            live: true,
        };
        let id = if let Some(id) = self.free.pop() {
            self.nodes[id.0 as usize] = node;
            id
        } else {
            self.nodes.push(node);
            self.tokens.resize(self.tokens.len() + self.block_size, 0);
            self.blocks
                .resize(self.blocks.len() + self.num_groups, None);
            NodeId(self.nodes.len() as u32 - 1)
        };
        self.buckets[bucket] = id.0;
        Some(id)
    }

    /// Takes a node out of its bucket.
    fn unlink(&mut self, id: NodeId) {
        let Node { hash, next, .. } = self.nodes[id.0 as usize];
        let bucket = self.bucket_of(hash);
        let mut current = self.buckets[bucket];
        if current == id.0 {
            self.buckets[bucket] = next;
            return;
        }
        while self.nodes[current as usize].next != id.0 {
            current = self.nodes[current as usize].next;
        }
        self.nodes[current as usize].next = next;
    }

    /// Mixes what a block continues and its tokens.
    fn hash(&self, parent: Parent, tokens: &[TokenId]) -> u64 {
        let before = match parent {
            Parent::Root(salt) => salt,
            Parent::Node(node) => self.nodes[node.0 as usize].hash,
        };
        let mut hasher = DefaultHasher::new();
        (before, tokens).hash(&mut hasher);
        let hash = hasher.finish();
        if cfg!(test) || planted(Fault::TokensNotCompared) {
            // Few buckets and many collisions.
            return hash & 1;
        }
        hash
    }

    fn bucket_of(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
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
            assert!(self.is_listed(id), "node {number} is not in its bucket");
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
        assert_eq!(self.free.len() + live, self.nodes.len(), "a node is lost");
    }

    fn is_listed(&self, id: NodeId) -> bool {
        let mut current = self.buckets[self.bucket_of(self.nodes[id.0 as usize].hash)];
        while current != NONE && current != id.0 {
            assert!(self.nodes[current as usize].live, "a dead node is listed");
            current = self.nodes[current as usize].next;
        }
        current == id.0
    }

    /// Blocks of a group that stand in the index.
    pub(crate) fn count_blocks(&self, group: usize) -> u32 {
        let live = self.nodes.iter().enumerate().filter(|(_, node)| node.live);
        live.filter(|(number, _)| self.block(NodeId(*number as u32), group).is_some())
            .count() as u32
    }
}

/// The parent as the index sees it.
fn effective(parent: Parent) -> Parent {
    match parent {
        Parent::Root(_) if planted(Fault::SaltIgnored) => Parent::Root(0),
        Parent::Node(_) if planted(Fault::ParentIgnored) => Parent::Root(0),
        _ => parent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_with_equal_hashes_are_told_apart() {
        let mut index = PrefixIndex::new(2, 1, 8);
        let root = Parent::Root(0);
        let mut insert = |first| index.find_or_insert(root, &[first, 5]).unwrap();
        let nodes = [0, 1, 2, 3, 4].map(&mut insert);
        for (first, node) in (0..).zip(nodes) {
            assert_eq!(index.find(root, &[first, 5]), Some(node));
        }
        assert_eq!(index.find(root, &[5, 5]), None);
        // Removal finds its way through the shared buckets.
        for removed in [nodes[2], nodes[0], nodes[4]] {
            index.pin(removed);
            index.unpin(removed);
        }
        let found = [0, 1, 2, 3, 4].map(|first| index.find(root, &[first, 5]).is_some());
        assert_eq!(found, [false, true, false, true, false]);
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
