//! Writes a step's keys and values into the paged cache.

mod device;

use std::sync::Arc;

use backstop_card::Device;
use backstop_kernels::InstructionSet;
use backstop_kernels::ops::kv_write::KvWriteArgs;

use crate::catalog::{Case, CaseSpec, Cost, DeviceResult, Tolerance};
use crate::ops::attention::{Paged, shapes};

pub(crate) use device::{Places, Written, bf16_rows};

/// Naive writes.
pub fn reference(args: KvWriteArgs<'_>) {
    args.check();
    let (layout, head_dim, columns) = (args.layout, args.layout.head_dim, args.columns());
    for sequence in args.sequences {
        for row in 0..sequence.rows {
            let position = sequence.first_position + row;
            let block = sequence.table[position / layout.block_size];
            let offset = position % layout.block_size;
            let values = &args.qkv[(sequence.first_row + row) * columns..][..columns];
            let keys = &values[args.shape.heads as usize * head_dim..];
            for kv_head in 0..layout.kv_heads {
                let start = layout.keys_start(block, kv_head);
                let memory = &mut args.cache[start..][..2 * layout.half_bytes()];
                for dimension in 0..head_dim {
                    let key = keys[kv_head * head_dim + dimension];
                    let value = keys[(layout.kv_heads + kv_head) * head_dim + dimension];
                    layout
                        .element
                        .write(memory, layout.key_index(offset, dimension), key);
                    layout
                        .element
                        .write(memory, layout.value_index(offset, dimension), value);
                }
            }
        }
    }
}

struct KvWriteCase(Paged);

impl KvWriteCase {
    /// The places of each row in a cache that was zero, keys then values of each head.
    fn run(&self, rows: std::ops::Range<usize>, run: impl FnOnce(KvWriteArgs<'_>)) -> Vec<f32> {
        self.run_with(&self.0.batch(rows.clone()).qkv, rows, run)
    }

    /// The same with these queries, keys and values.
    fn run_with(
        &self,
        qkv: &[f32],
        rows: std::ops::Range<usize>,
        run: impl FnOnce(KvWriteArgs<'_>),
    ) -> Vec<f32> {
        let Self(paged) = self;
        let layout = paged.layout();
        let mut cache = paged.empty_cache();
        let sequences = paged.batch(rows.clone()).sequences();
        run(KvWriteArgs {
            qkv,
            shape: paged.shape,
            sequences: &sequences,
            layout,
            cache: cache.as_mut_slice(),
        });
        let mut out = Vec::new();
        for row in rows {
            let (table, position) = paged.place(row);
            let block = table[position / layout.block_size];
            let offset = position % layout.block_size;
            for kv_head in 0..layout.kv_heads {
                let memory = &cache.as_slice()[layout.keys_start(block, kv_head)..];
                let read = |index| layout.element.read(memory, index);
                let dimensions = 0..layout.head_dim;
                out.extend(
                    dimensions
                        .clone()
                        .map(|d| read(layout.key_index(offset, d))),
                );
                out.extend(dimensions.map(|d| read(layout.value_index(offset, d))));
            }
        }
        out
    }
}

impl Case for KvWriteCase {
    fn rows(&self) -> usize {
        self.0.rows()
    }

    fn reference(&self) -> Vec<f32> {
        self.run(0..self.rows(), reference)
    }

    fn cpu(&self, _: InstructionSet) -> Vec<f32> {
        self.run(0..self.rows(), |args| args.run())
    }

    fn cpu_row(&self, _: InstructionSet, row: usize) -> Vec<f32> {
        self.run(row..row + 1, |args| args.run())
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::EXACT
    }

    fn cost(&self) -> Cost {
        Cost {
            multiply_adds: 0,
            bytes: self.rows() * self.0.bytes_per_position(),
        }
    }

    fn device<'a>(&'a self, device: &'a Arc<dyn Device>) -> Option<DeviceResult<'a>> {
        device::device(self, device)
    }
}

/// The shapes of attention.
pub fn cases() -> Vec<CaseSpec> {
    let cases = shapes()
        .into_iter()
        .map(|shape| CaseSpec::new(shape.label(), move || KvWriteCase(Paged::new(&shape))));
    cases.collect()
}
