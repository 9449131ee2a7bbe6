//! The shape of the paged KV cache, as the scheduler needs to know it.

/// Which earlier positions the layers of a group attend to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionSpan {
    /// Every position up to and including the query's own.
    Full,
    /// The last `visible_keys` positions, the query's own included.
    Sliding {
        /// Number of keys that a query sees at most; at least 1.
        visible_keys: u32,
    },
}

impl AttentionSpan {
    /// Whether it holds every position that `other` holds.
    pub fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::Full, _) => true,
            (Self::Sliding { .. }, Self::Full) => false,
            (
                Self::Sliding { visible_keys },
                Self::Sliding {
                    visible_keys: others,
                },
            ) => visible_keys >= others,
        }
    }

    /// First position that the query at `position` attends to.
    pub fn first_visible(self, position: u32) -> u32 {
        match self {
            Self::Full => 0,
            Self::Sliding { visible_keys } => (position + 1).saturating_sub(visible_keys),
        }
    }
}

/// Layers that share one block table, because they attend to the same positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvGroupSpec {
    /// What the layers of this group attend to.
    pub span: AttentionSpan,
    /// Blocks in this group's pool.
    pub num_blocks: u32,
}

/// The whole KV cache: one pool of blocks for each attention group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvSpec {
    /// Token positions in one block, the same for all groups.
    pub block_size: u32,
    /// The attention groups; their order is the order of all per-group tables.
    pub groups: Vec<KvGroupSpec>,
}
