//! Memory of the paged KV cache on the device.
//!
//! For each layer of each group `[block][kv_head]`, and for each of these first the keys
//! `[block_size, head_dim]`, then the values `[block_size, head_dim]`.

use std::sync::Arc;

use backstop_kernels::backend::KvLayer;
use backstop_kernels::{Element, KvGroupLayout};

use super::buffer::DeviceBuffer;
use super::device::{Device, DeviceError, DevicePointer};

/// The cache of all groups.
pub struct CudaKvCache {
    block_size: u32,
    element: Element,
    groups: Vec<(KvGroupLayout, DeviceBuffer)>,
}

impl CudaKvCache {
    /// Memory for all blocks, with undefined contents.
    pub fn new(
        device: &Arc<dyn Device>,
        groups: &[KvGroupLayout],
        block_size: u32,
        element: Element,
    ) -> Result<Self, DeviceError> {
        assert!(
            element != Element::F32,
            "keys and values are BF16 or E4M3 on the device"
        );
        let group = |layout: &KvGroupLayout| {
            let bytes = layout.bytes_per_block(block_size, element) * layout.num_blocks as usize;
            Ok((layout.clone(), DeviceBuffer::new(device, bytes)?))
        };
        Ok(Self {
            block_size,
            element,
            groups: groups.iter().map(group).collect::<Result<_, _>>()?,
        })
    }

    /// Positions in one block.
    pub fn block_size(&self) -> u32 {
        self.block_size
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
        &self.groups[group].0
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> usize {
        self.groups.iter().map(|(_, memory)| memory.bytes()).sum()
    }

    /// Where a layer's blocks lie.
    pub fn layer(&self, layer: KvLayer) -> DevicePointer {
        let (layout, memory) = &self.groups[layer.group as usize];
        let bytes = memory.bytes() / layout.num_layers as usize;
        memory
            .pointer()
            .offset(bytes * layer.layer_in_group as usize)
    }
}
