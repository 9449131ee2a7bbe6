//! Memory of the paged KV cache.
//!
//! One allocation for each layer of each group, `[block][kv_head]`, and for each of these first
//! the keys `[head_dim, block_size]`, then the values `[block_size, head_dim]`. Keys are stored
//! transposed so that attention computes the scores of neighbouring positions in the lanes of
//! one register, without sums across lanes. Groups of index keys have no values.

use backstop_types::AttentionSpan;

use crate::aligned::AlignedBytes;
use crate::backend::KvLayer;
use crate::element::Element;

/// Shape of one attention group's share of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvGroupLayout {
    /// What the layers of this group attend to.
    pub span: AttentionSpan,
    /// Blocks in the group's pool.
    pub num_blocks: u32,
    /// Layers in the group.
    pub num_layers: u32,
    /// Key-value heads of each layer.
    pub kv_heads: u32,
    /// Elements of one head.
    pub head_dim: u32,
    /// There are values beside the keys.
    pub has_values: bool,
}

impl KvGroupLayout {
    /// Bytes that one block takes, summed over the group's layers, keys and values together.
    pub fn bytes_per_block(&self, block_size: u32, element: Element) -> usize {
        let halves = 1 + usize::from(self.has_values);
        let numbers = self.kv_heads as usize * self.head_dim as usize * block_size as usize;
        halves * numbers * self.num_layers as usize * element.bytes()
    }
}

/// The cache of all groups. Values are undefined until written.
#[derive(Debug)]
pub struct CpuKvCache {
    block_size: usize,
    element: Element,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    layout: KvGroupLayout,
    layers: Vec<AlignedBytes>,
}

impl CpuKvCache {
    /// Reserves memory for all blocks; the operating system hands it out as blocks are written.
    pub fn new(groups: &[KvGroupLayout], block_size: u32, element: Element) -> Self {
        assert!(block_size > 0, "a block has at least one position");
        let groups = groups.iter().map(|layout| {
            let layer = KvGroupLayout {
                num_layers: 1,
                ..layout.clone()
            };
            let bytes = layer.bytes_per_block(block_size, element) * layout.num_blocks as usize;
            let layers = (0..layout.num_layers)
                .map(|_| AlignedBytes::zeroed(bytes))
                .collect();
            Group {
                layout: layout.clone(),
                layers,
            }
        });
        Self {
            block_size: block_size as usize,
            element,
            groups: groups.collect(),
        }
    }

    /// Positions in one block.
    pub fn block_size(&self) -> u32 {
        self.block_size as u32
    }

    /// Number format of keys and values.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Number of groups.
    pub fn num_groups(&self) -> usize {
        self.groups.len()
    }

    /// Shape of a group.
    pub fn layout(&self, group: usize) -> &KvGroupLayout {
        &self.groups[group].layout
    }

    /// Bytes that the whole cache takes once every block has been written.
    pub fn bytes(&self) -> usize {
        self.groups
            .iter()
            .flat_map(|group| &group.layers)
            .map(AlignedBytes::len)
            .sum()
    }

    /// What a layer's attention reads.
    pub fn view(&self, layer: KvLayer) -> KvView<'_> {
        let group = &self.groups[layer.group as usize];
        KvView {
            shape: self.shape(group),
            bytes: group.layers[layer.layer_in_group as usize].as_slice(),
        }
    }

    /// The layout and the bytes of a layer's keys and values.
    pub fn view_mut(&mut self, layer: KvLayer) -> (KvShape, &mut [u8]) {
        let shape = self.shape(&self.groups[layer.group as usize]);
        let group = &mut self.groups[layer.group as usize];
        (
            shape,
            group.layers[layer.layer_in_group as usize].as_mut_slice(),
        )
    }

    fn shape(&self, group: &Group) -> KvShape {
        KvShape {
            element: self.element,
            block_size: self.block_size,
            kv_heads: group.layout.kv_heads as usize,
            head_dim: group.layout.head_dim as usize,
            has_values: group.layout.has_values,
        }
    }
}

/// Where keys and values lie in the memory of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Number format.
    pub element: Element,
    /// Positions in one block.
    pub block_size: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// There are values beside the keys.
    pub has_values: bool,
}

impl KvShape {
    /// Bytes of the keys, or of the values, of one block and head.
    pub fn half_bytes(&self) -> usize {
        self.head_dim * self.block_size * self.element.bytes()
    }

    /// Bytes of one block and head.
    pub fn head_bytes(&self) -> usize {
        (1 + usize::from(self.has_values)) * self.half_bytes()
    }

    /// First byte of the keys `[head_dim, block_size]` of a block and head; the values
    /// `[block_size, head_dim]`, if there are any, follow them.
    pub fn keys_start(&self, block: u32, kv_head: usize) -> usize {
        (block as usize * self.kv_heads + kv_head) * self.head_bytes()
    }

    /// Index, in numbers from `keys_start`, of a key's element.
    pub fn key_index(&self, offset: usize, dimension: usize) -> usize {
        dimension * self.block_size + offset
    }

    /// Index, in numbers from `keys_start`, of a value's element.
    pub fn value_index(&self, offset: usize, dimension: usize) -> usize {
        (self.block_size + offset) * self.head_dim + dimension
    }
}

/// Keys and values of one layer.
#[derive(Clone, Copy, Debug)]
pub struct KvView<'a> {
    /// Where things lie.
    pub shape: KvShape,
    /// The memory of all blocks.
    pub bytes: &'a [u8],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_sum_of_all_blocks() {
        let groups = [
            KvGroupLayout {
                span: AttentionSpan::Full,
                num_blocks: 5,
                num_layers: 3,
                kv_heads: 2,
                head_dim: 16,
                has_values: true,
            },
            KvGroupLayout {
                span: AttentionSpan::Sliding { visible_keys: 9 },
                num_blocks: 2,
                num_layers: 1,
                kv_heads: 4,
                head_dim: 8,
                has_values: true,
            },
            KvGroupLayout {
                span: AttentionSpan::Full,
                num_blocks: 5,
                num_layers: 2,
                kv_heads: 1,
                head_dim: 12,
                has_values: false,
            },
        ];
        for element in [Element::F32, Element::BF16, Element::F8E4M3] {
            let cache = CpuKvCache::new(&groups, 16, element);
            let expected: usize = groups
                .iter()
                .map(|group| group.bytes_per_block(16, element) * group.num_blocks as usize)
                .sum();
            assert_eq!(cache.bytes(), expected);
            for (group, layer_in_group) in [(0, 2), (2, 1)] {
                let view = cache.view(KvLayer {
                    group,
                    layer_in_group,
                });
                assert_eq!(view.shape.keys_start(5, 0), view.bytes.len());
            }
        }
    }
}
