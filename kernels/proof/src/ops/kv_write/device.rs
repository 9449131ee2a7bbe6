//! The same on a device.

use std::sync::Arc;

use backstop_card::ops::kv_write::{HeadNorm, PagedCache, RopeCache, device_index};
use backstop_card::pack::RowSource;
use backstop_card::{Device, DeviceBuffer, DeviceError, DevicePointer, Stream};
use backstop_kernels::backend::{AttentionShape, RopePairing};
use backstop_kernels::{KvShape, narrow_bf16, widen_bf16};

use super::KvWriteCase;
use crate::PoisonedBuffer;
use crate::catalog::{Case, DeviceResult, DeviceRun, Tolerance};

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
        shape: AttentionShape,
        layout: KvShape,
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
        paged.shape,
        paged.layout(),
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
        expected: Box::new(move || case.run_with(&rounded, 0..case.rows(), super::reference)),
        tolerance: Tolerance::EXACT,
    })
}
