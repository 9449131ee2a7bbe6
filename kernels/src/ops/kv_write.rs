//! Writes a step's keys and values into the paged cache.
#![expect(
    unsafe_code,
    reason = "threads write the interleaved places of different heads"
)]

use crate::backend::AttentionShape;
use crate::cpu::kv_cache::KvShape;
use crate::element::{Element, encode_f8, narrow_bf16};
use crate::parallel::{self, SharedOutput};

/// Rows of one sequence and where its positions lie in the cache.
#[derive(Clone, Copy, Debug)]
pub struct SequenceRows<'a> {
    /// First row in the batch.
    pub first_row: usize,
    /// Number of rows.
    pub rows: usize,
    /// Position of the first row.
    pub first_position: usize,
    /// Block of positions `i * block_size .. (i + 1) * block_size`. Entries that no visible
    /// position needs may hold anything.
    pub table: &'a [u32],
}

/// Arguments: the last two thirds of `qkv`, `[rows, (heads + 2 * kv_heads) * head_dim]`, go to
/// the cache.
#[derive(Debug)]
pub struct KvWriteArgs<'a> {
    /// Queries, keys and values.
    pub qkv: &'a [f32],
    /// Head counts.
    pub shape: AttentionShape,
    /// The sequences of the batch.
    pub sequences: &'a [SequenceRows<'a>],
    /// Where things lie in `cache`.
    pub layout: KvShape,
    /// The memory of one layer.
    pub cache: &'a mut [u8],
}

impl KvWriteArgs<'_> {
    /// Numbers in a row: queries, keys and values.
    pub fn columns(&self) -> usize {
        (self.shape.heads + 2 * self.shape.kv_heads) as usize * self.shape.head_dim as usize
    }

    /// Panics unless the parts agree.
    pub fn check(&self) {
        assert_eq!(
            self.layout.kv_heads, self.shape.kv_heads as usize,
            "kv_heads of the cache"
        );
        assert_eq!(
            self.layout.head_dim, self.shape.head_dim as usize,
            "head_dim of the cache"
        );
        let rows: usize = self.sequences.iter().map(|sequence| sequence.rows).sum();
        assert_eq!(self.qkv.len(), rows * self.columns(), "inputs of kv_write");
    }

    /// The writes, one task for each sequence and head.
    pub fn run(self) {
        self.check();
        let (layout, columns) = (self.layout, self.columns());
        let cache = SharedOutput::new(self.cache);
        let tasks = self.sequences.len() * layout.kv_heads;
        parallel::for_each(tasks, self.qkv.len(), |task| {
            let sequence = &self.sequences[task / layout.kv_heads];
            let kv_head = task % layout.kv_heads;
            for row in 0..sequence.rows {
                let position = sequence.first_position + row;
                let block = sequence.table[position / layout.block_size];
                let values = &self.qkv[(sequence.first_row + row) * columns..][..columns];
                let start = layout.keys_start(block, kv_head);
                // SAFETY: a block that is written belongs to one sequence alone, and each of its
                // heads to one task.
                let memory = unsafe { cache.range(start..start + 2 * layout.half_bytes()) };
                let first = (self.shape.heads as usize + kv_head) * layout.head_dim;
                let key = &values[first..][..layout.head_dim];
                let value = &values[first + layout.kv_heads * layout.head_dim..];
                let value = &value[..layout.head_dim];
                write_position(layout, position % layout.block_size, [key, value], memory);
            }
        });
    }
}

/// One position's key and value.
fn write_position(layout: KvShape, offset: usize, numbers: [&[f32]; 2], memory: &mut [u8]) {
    match layout.element {
        Element::F32 => write_as(layout, offset, numbers, memory, f32::to_le_bytes),
        Element::BF16 => {
            let convert = |number| narrow_bf16(number).to_le_bytes();
            write_as(layout, offset, numbers, memory, convert);
        }
        Element::F8E4M3 => {
            let convert = |number| [encode_f8(number)];
            write_as(layout, offset, numbers, memory, convert);
        }
    }
}

#[inline(always)]
fn write_as<const BYTES: usize>(
    layout: KvShape,
    offset: usize,
    [key, value]: [&[f32]; 2],
    memory: &mut [u8],
    convert: impl Fn(f32) -> [u8; BYTES],
) {
    let (keys, values) = memory.split_at_mut(layout.half_bytes());
    let (keys, values) = (keys.as_chunks_mut().0, values.as_chunks_mut().0);
    for (dimension, &number) in key.iter().enumerate() {
        keys[dimension * layout.block_size + offset] = convert(number);
    }
    let row = &mut values[offset * layout.head_dim..][..layout.head_dim];
    for (place, &number) in row.iter_mut().zip(value) {
        *place = convert(number);
    }
}
