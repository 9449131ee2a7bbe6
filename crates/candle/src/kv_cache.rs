//! Memory of the paged KV cache: for each layer `[slots + 1, 2, kv_heads, head_dim]`, where a slot is a position of a
//! block, and the last one stays zero, for what pads short sequences.

use backstop_kernels::{Element, KvGroupLayout, KvLayer};
use candle_core::{Result, Tensor};

use crate::device::{CandleDevice, kv_type};

/// The cache of all groups.
#[derive(Debug)]
pub struct CandleKvCache {
    block_size: usize,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    layout: KvGroupLayout,
    layers: Vec<Tensor>,
}

impl CandleKvCache {
    /// Takes the memory of all blocks. Fails if the device has less.
    pub fn new(
        groups: &[KvGroupLayout],
        block_size: u32,
        element: Element,
        device: &CandleDevice,
    ) -> Result<Self> {
        let groups = groups.iter().map(|layout| {
            let slots = layout.num_blocks as usize * block_size as usize;
            let shape = (slots + 1, width(layout));
            let layers = (0..layout.num_layers)
                .map(|_| Tensor::zeros(shape, kv_type(element), device.inner()));
            Ok(Group {
                layers: layers.collect::<Result<_>>()?,
                layout: layout.clone(),
            })
        });
        Ok(Self {
            block_size: block_size as usize,
            groups: groups.collect::<Result<_>>()?,
        })
    }

    pub(crate) fn block_size(&self) -> usize {
        self.block_size
    }

    pub(crate) fn layouts(&self) -> impl Iterator<Item = &KvGroupLayout> {
        self.groups.iter().map(|group| &group.layout)
    }

    /// Keys and values of a layer, `[slots + 1, 2 * kv_heads * head_dim]`.
    pub(crate) fn layer(&self, layer: KvLayer) -> &Tensor {
        &self.groups[layer.group as usize].layers[layer.layer_in_group as usize]
    }
}

/// Numbers of a position: keys, then values.
pub(crate) fn width(layout: &KvGroupLayout) -> usize {
    2 * layout.kv_heads as usize * layout.head_dim as usize
}
