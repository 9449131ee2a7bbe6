//! Layers that attend to the same positions share a group of the KV cache.

use backstop_kernels::backend::{AttentionShape, KvLayer};
use backstop_types::AttentionSpan;

use crate::KvGroup;

/// Assignment of layers to KV groups: full attention first, then sliding, then index keys; none is
/// empty.
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
                has_values: true,
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

    /// A further group, of index keys of so many elements, for the layers that have some.
    pub(crate) fn add_index_keys(
        &mut self,
        has_keys: &[bool],
        head_dim: u32,
    ) -> Vec<Option<KvLayer>> {
        let group = self.groups.len() as u32;
        let mut num_layers = 0;
        let mut place = |&has_keys: &bool| {
            num_layers += u32::from(has_keys);
            has_keys.then(|| KvLayer {
                group,
                layer_in_group: num_layers - 1,
            })
        };
        let layers = has_keys.iter().map(&mut place).collect();
        if num_layers > 0 {
            self.groups.push(KvGroup {
                span: AttentionSpan::Full,
                num_layers,
                kv_heads: 1,
                head_dim,
                has_values: false,
            });
        }
        layers
    }
}
