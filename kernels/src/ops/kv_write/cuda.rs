//! Keys and values into the paged cache on the device, queries and keys normed and rotated on the
//! way. Launch
//! of `kernels/cuda/rope_cache.cu`.
#![expect(unsafe_code, reason = "launches are outside the compiler's view")]

use std::sync::Arc;

use super::KvWriteCase;
use crate::backend::{AttentionShape, RopePairing};
use crate::catalog::{Case, DeviceResult, DeviceRun, Tolerance};
use crate::cpu::kv_cache::KvShape;
use crate::cuda::pack::{RowSource, RowSourceArgs, int};
use crate::cuda::{
    Device, DeviceBuffer, DeviceError, DevicePointer, Grid, KernelArgs, PoisonedBuffer, Stream,
};
use crate::element::{Element, narrow_bf16, widen_bf16};

const THREADS: u32 = 128;

/// One layer's keys and values, and how they are found.
#[derive(Clone, Copy, Debug)]
pub struct PagedCache {
    /// `[block][kv_head]`, and for each of these the keys `[block_size, head_dim]`, then the values
    /// `[block_size, head_dim]`.
    pub memory: DevicePointer,
    /// BF16 or E4M3.
    pub element: Element,
    /// Positions in a block, a multiple of 16.
    pub block_size: usize,
    /// u32 `[slots][table_stride]`: the block of positions `i * block_size ..`.
    pub tables: DevicePointer,
    /// Entries of a slot's table.
    pub table_stride: usize,
}

impl PagedCache {
    /// Whether kernels can work with such a cache.
    pub fn supports(element: Element, block_size: usize, head_dim: usize) -> bool {
        element != Element::F32
            && block_size.is_multiple_of(16)
            && block_size > 0
            && [32, 64, 128].contains(&head_dim)
    }

    /// Panics if kernels cannot work with the cache.
    pub(crate) fn check(&self, head_dim: u32) {
        assert!(
            Self::supports(self.element, self.block_size, head_dim as usize),
            "no kernels for heads of {head_dim} elements (but 32, 64 and 128) with a cache in \
             {:?} (but BF16 and F8E4M3) and blocks of {} positions (but multiples of 16)",
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
    /// ([`rotations`](crate::ops::rope::cuda::rotations)), and how elements are paired.
    pub rope: Option<(DevicePointer, RopePairing)>,
    /// What happens before.
    pub norm: Option<HeadNorm>,
    /// BF16 `[rows, heads * head_dim]`: the queries.
    pub queries: DevicePointer,
    /// Where keys and values go.
    pub cache: PagedCache,
    /// u32 `[rows]`.
    pub positions: DevicePointer,
    /// u32 `[rows]`, [`NONE`](crate::cuda::layout::NONE) for rows that are none.
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
pub(crate) fn device_index(
    layout: KvShape,
    block: u32,
    kv_head: usize,
    values: bool,
    offset: usize,
) -> usize {
    let piece = (block as usize * layout.kv_heads + kv_head) * 2 + usize::from(values);
    (piece * layout.block_size + offset) * layout.head_dim
}

/// Where the rows of a case belong.
pub(crate) struct Places {
    /// Slot and position of each row.
    pub(crate) rows: Vec<(u32, u32)>,
    /// `[slots][table_stride]`
    pub(crate) tables: Vec<u32>,
    pub(crate) table_stride: usize,
    pub(crate) blocks: usize,
}

impl Places {
    /// Each row in a slot and a block of its own.
    pub(crate) fn one_each(positions: &[u32], block_size: usize) -> Self {
        let end = positions.iter().max().map_or(0, |&last| last as usize + 1);
        let table_stride = end.div_ceil(block_size);
        Self {
            rows: (0u32..).zip(positions.iter().copied()).collect(),
            tables: (0..positions.len() * table_stride)
                .map(|entry| (entry / table_stride) as u32)
                .collect(),
            table_stride,
            blocks: positions.len(),
        }
    }

    /// Block and place in it of a row.
    fn place(&self, row: usize, block_size: usize) -> (u32, usize) {
        let (slot, position) = self.rows[row];
        let (entry, offset) = (
            position as usize / block_size,
            position as usize % block_size,
        );
        (
            self.tables[slot as usize * self.table_stride + entry],
            offset,
        )
    }
}

/// A case's rows on the device, written to a cache that was poisoned.
pub(crate) struct Written {
    layout: KvShape,
    places: Places,
    queries: PoisonedBuffer,
    cache: PoisonedBuffer,
    _inputs: [DeviceBuffer; 3],
    launch: RopeCache,
}

impl Written {
    /// Sets up the writing of all rows of `qkv`.
    pub(crate) fn new(
        device: &Arc<dyn Device>,
        (shape, layout): (AttentionShape, KvShape),
        places: Places,
        qkv: RowSource,
    ) -> Result<Self, DeviceError> {
        let (slots, positions): (Vec<u32>, Vec<u32>) = places.rows.iter().copied().unzip();
        let inputs = [
            DeviceBuffer::from_slice(device, &places.tables)?,
            DeviceBuffer::from_slice(device, &positions)?,
            DeviceBuffer::from_slice(device, &slots)?,
        ];
        let columns = (shape.heads * shape.head_dim) as usize;
        let queries = PoisonedBuffer::new(device, slots.len() * columns * 2)?;
        let cache_bytes = places.blocks * layout.kv_heads * 2 * layout.half_bytes();
        let cache = PoisonedBuffer::new(device, cache_bytes)?;
        let launch = RopeCache {
            qkv,
            shape,
            rope: None,
            norm: None,
            queries: queries.pointer(),
            cache: PagedCache {
                memory: cache.pointer(),
                element: layout.element,
                block_size: layout.block_size,
                tables: inputs[0].pointer(),
                table_stride: places.table_stride,
            },
            positions: inputs[1].pointer(),
            slots: inputs[2].pointer(),
            rows: slots.len(),
        };
        Ok(Self {
            layout,
            places,
            queries,
            cache,
            _inputs: inputs,
            launch,
        })
    }

    /// The same, with the rotations or the norm of a case.
    pub(crate) fn with(
        mut self,
        rope: Option<(DevicePointer, RopePairing)>,
        norm: Option<HeadNorm>,
    ) -> Self {
        self.launch.rope = rope;
        self.launch.norm = norm;
        self
    }

    pub(crate) fn launch(&self, device: &dyn Device) -> Result<(), DeviceError> {
        // SAFETY: everything was set up with the sizes of the case.
        unsafe { self.launch.launch(device, Stream::Main) }
    }

    /// Queries, keys and values side by side, row after row.
    pub(crate) fn rows(&self) -> Result<Vec<f32>, DeviceError> {
        let shape = self.launch.shape;
        let columns = (shape.heads * shape.head_dim) as usize;
        let (queries, places) = (self.queries()?, self.keys_and_values()?);
        let rows = queries.chunks(columns);
        let rows = rows.zip(places.chunks(shape.kv_heads as usize));
        let mut out = Vec::new();
        for (queries, places) in rows {
            out.extend_from_slice(queries);
            for side in 0..2 {
                out.extend(places.iter().flat_map(|place| &place[side]));
            }
        }
        Ok(out)
    }

    /// The queries, row after row.
    pub(crate) fn queries(&self) -> Result<Vec<f32>, DeviceError> {
        let bits: Vec<u16> = self.queries.read()?;
        Ok(bits.into_iter().map(widen_bf16).collect())
    }

    /// For each row and key-value head, its key and its value.
    pub(crate) fn keys_and_values(&self) -> Result<Vec<[Vec<f32>; 2]>, DeviceError> {
        let bytes: Vec<u8> = self.cache.read()?;
        let layout = self.layout;
        let mut out = Vec::new();
        for row in 0..self.places.rows.len() {
            let (block, offset) = self.places.place(row, layout.block_size);
            for kv_head in 0..layout.kv_heads {
                out.push([false, true].map(|values| {
                    let first = device_index(layout, block, kv_head, values, offset);
                    let indices = first..first + layout.head_dim;
                    indices
                        .map(|index| layout.element.read(&bytes, index))
                        .collect()
                }));
            }
        }
        Ok(out)
    }
}

/// Rows as BF16, and what they stand for.
pub(crate) fn bf16_rows(values: &[f32]) -> (Vec<u16>, Vec<f32>) {
    let bits: Vec<u16> = values.iter().map(|&value| narrow_bf16(value)).collect();
    let widened = bits.iter().map(|&bits| widen_bf16(bits)).collect();
    (bits, widened)
}

pub(super) fn device<'a>(
    case: &'a KvWriteCase,
    device: &'a Arc<dyn Device>,
) -> Option<DeviceResult<'a>> {
    let layout = case.0.layout();
    PagedCache::supports(layout.element, layout.block_size, layout.head_dim)
        .then(|| set_up(case, device))
}

fn set_up<'a>(case: &'a KvWriteCase, device: &'a Arc<dyn Device>) -> DeviceResult<'a> {
    let paged = &case.0;
    let batch = paged.batch(0..paged.rows());
    let (bits, rounded) = bf16_rows(&batch.qkv);
    let values = DeviceBuffer::from_slice(device, &bits)?;
    let source = RowSource::Bf16 {
        values: values.pointer(),
    };
    let written = Arc::new(Written::new(
        device,
        (paged.shape, paged.layout()),
        paged.places(),
        source,
    )?);
    Ok(DeviceRun {
        launch: Box::new({
            let written = Arc::clone(&written);
            move || {
                let _owned = &values;
                written.launch(device.as_ref())
            }
        }),
        read: Box::new(move || Ok(written.keys_and_values()?.concat().concat())),
        expected: Box::new(move || {
            case.run_with(&rounded, 0..case.rows(), |args| args.reference())
        }),
        tolerance: Tolerance::EXACT,
    })
}
