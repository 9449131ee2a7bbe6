//! Keys and values into the paged cache on the device, queries and keys normed and rotated on the
//! way. Launch
//! of `kernels/cuda/rope_cache.cu`.

use backstop_kernels::backend::{AttentionShape, RopePairing};
use backstop_kernels::{Element, KvShape};

use crate::pack::{RowSource, RowSourceArgs, int};
use crate::{Device, DeviceError, DevicePointer, Grid, KernelArgs, Stream};

const THREADS: u32 = 128;
/// Elements of a head.
pub const HEAD_DIMS: &[u32] = &[32, 64, 128];
/// Number formats of caches.
pub const ELEMENTS: &[Element] = &[Element::BF16, Element::F8E4M3];
/// Positions in a block are a multiple of this.
pub const BLOCK_STEP: u32 = 16;

/// One layer's keys and values, and how they are found.
#[derive(Clone, Copy, Debug)]
pub struct PagedCache {
    /// `[block][kv_head]`, and for each of these the keys `[block_size, head_dim]`, then the values
    /// `[block_size, head_dim]`.
    pub memory: DevicePointer,
    /// BF16 or E4M3.
    pub element: Element,
    /// Positions in a block, a multiple of [`BLOCK_STEP`].
    pub block_size: usize,
    /// u32 `[slots][table_stride]`: the block of positions `i * block_size ..`.
    pub tables: DevicePointer,
    /// Entries of a slot's table.
    pub table_stride: usize,
}

impl PagedCache {
    /// Whether kernels can work with such a cache.
    pub fn supports(element: Element, block_size: usize, head_dim: usize) -> bool {
        ELEMENTS.contains(&element)
            && block_size.is_multiple_of(BLOCK_STEP as usize)
            && block_size > 0
            && HEAD_DIMS.contains(&(head_dim as u32))
    }

    /// Panics if kernels cannot work with the cache.
    pub fn check(&self, head_dim: u32) {
        assert!(
            Self::supports(self.element, self.block_size, head_dim as usize),
            "heads of {head_dim} elements with a cache in {:?} and blocks of {}",
            self.element,
            self.block_size
        );
    }
}

/// RMSNorm of each head.
#[derive(Clone, Copy, Debug)]
pub struct HeadNorm {
    /// f32 `[head_dim]`: what normed queries are multiplied with.
    pub query_gain: DevicePointer,
    /// f32 `[head_dim]`: what normed keys are multiplied with.
    pub key_gain: DevicePointer,
    /// Added to the mean square.
    pub epsilon: f32,
}

/// Norms and rotates the queries and keys of `qkv`, and writes keys and values into the cache.
#[derive(Clone, Copy, Debug)]
pub struct RopeCache {
    /// `[rows, (heads + 2 * kv_heads) * head_dim]`, in parts or in BF16.
    pub qkv: RowSource,
    /// Head counts.
    pub shape: AttentionShape,
    /// f32 `[positions, head_dim / 2, 2]`, cosine and sine
    /// ([`rotations`](crate::ops::rope::rotations)), and how elements are paired.
    pub rope: Option<(DevicePointer, RopePairing)>,
    /// What happens before.
    pub norm: Option<HeadNorm>,
    /// BF16 `[rows, heads * head_dim]`: the queries.
    pub queries: DevicePointer,
    /// Where keys and values go.
    pub cache: PagedCache,
    /// u32 `[rows]`.
    pub positions: DevicePointer,
    /// u32 `[rows]`, [`NONE`](crate::layout::NONE) for rows that are none.
    pub slots: DevicePointer,
    /// Rows.
    pub rows: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct RopeCacheArgs {
    qkv: RowSourceArgs,
    queries: DevicePointer,
    cache: DevicePointer,
    rotations: DevicePointer,
    query_gain: DevicePointer,
    key_gain: DevicePointer,
    positions: DevicePointer,
    slots: DevicePointer,
    tables: DevicePointer,
    rows: i32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    block_size: i32,
    table_stride: i32,
    halves: i32,
    e4m3: i32,
    epsilon: f32,
    unused: i32,
}

const _: () = assert!(size_of::<RopeCacheArgs>() == 152);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for RopeCacheArgs {}

impl RopeCache {
    /// Queues it.
    ///
    /// # Safety
    ///
    /// All pointers are valid for the sizes given, and the tables of all slots name blocks of the
    /// cache at all positions.
    pub unsafe fn launch(&self, device: &dyn Device, stream: Stream) -> Result<(), DeviceError> {
        let (shape, cache) = (self.shape, self.cache);
        cache.check(shape.head_dim);
        assert!(
            matches!(self.qkv, RowSource::Parts { .. } | RowSource::Bf16 { .. }),
            "queries, keys and values in parts or in BF16"
        );
        if self.rows == 0 {
            return Ok(());
        }
        let (rotations, pairing) = self
            .rope
            .unwrap_or((DevicePointer::NULL, RopePairing::Halves));
        let norm = self.norm.unwrap_or(HeadNorm {
            query_gain: DevicePointer::NULL,
            key_gain: DevicePointer::NULL,
            epsilon: 0.0,
        });
        let args = RopeCacheArgs {
            qkv: self.qkv.args(),
            queries: self.queries,
            cache: cache.memory,
            rotations,
            query_gain: norm.query_gain,
            key_gain: norm.key_gain,
            positions: self.positions,
            slots: self.slots,
            tables: cache.tables,
            rows: int(self.rows),
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            block_size: int(cache.block_size),
            table_stride: int(cache.table_stride),
            halves: i32::from(pairing == RopePairing::Halves),
            e4m3: i32::from(cache.element == Element::F8E4M3),
            epsilon: norm.epsilon,
            unused: 0,
        };
        let heads = (shape.heads + 2 * shape.kv_heads) as usize;
        let threads = self.rows * heads * shape.head_dim as usize / 16;
        let grid = Grid::line(threads.div_ceil(THREADS as usize), THREADS);
        // SAFETY: the caller's promise; the struct is the kernel's.
        unsafe { device.launch(stream, "rope_cache", grid, &args) }
    }
}

/// Index, in numbers, of the first of a key's or value's elements in the device's cache.
pub fn device_index(
    layout: KvShape,
    block: u32,
    kv_head: usize,
    values: bool,
    offset: usize,
) -> usize {
    let piece = (block as usize * layout.kv_heads + kv_head) * 2 + usize::from(values);
    (piece * layout.block_size + offset) * layout.head_dim
}
