//! Layers that attend to the same positions share a group of the KV cache.

use backstop_kernels::backend::{AttentionShape, KvLayer};
use backstop_types::AttentionSpan;

use crate::KvGroup;

/// Assignment of layers to KV groups: full attention first, then sliding; none is empty.
#[derive(Debug)]
pub(crate) struct KvGroups {
    pub(crate) layers: Vec<KvLayer>,
    pub(crate) groups: Vec<KvGroup>,
}

impl KvGroups {
    /// For layers that see so many keys, or all. The windows of a model have one size.
    pub(crate) fn new(visible_keys: &[Option<u32>], shape: AttentionShape) -> Self {
        let mut groups: Vec<KvGroup> = Vec::new();
        let full = visible_keys.contains(&None).then_some(AttentionSpan::Full);
        let window = visible_keys.iter().flatten().next();
        let sliding = window.map(|&visible_keys| AttentionSpan::Sliding { visible_keys });
        for span in full.into_iter().chain(sliding) {
            groups.push(KvGroup {
                span,
                num_layers: 0,
                kv_heads: shape.kv_heads,
                head_dim: shape.head_dim,
            });
        }
        let place = |window: &Option<u32>| {
            let index = if window.is_none() {
                0
            } else {
                groups.len() - 1
            };
            let group = &mut groups[index];
            group.num_layers += 1;
            KvLayer {
                group: index as u32,
                layer_in_group: group.num_layers - 1,
            }
        };
        let layers = visible_keys.iter().map(place).collect();
        Self { layers, groups }
    }
}
