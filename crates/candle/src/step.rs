//! What a step's operations share: tokens, angles, and where keys and values are written and read.

use backstop_kernels::{Batch, KvGroupLayout, Rope};
use candle_core::{Result, Tensor};

use crate::attention::{Piece, pieces};
use crate::device::CandleDevice;
use crate::kv_cache::{CandleKvCache, width};
use crate::rotation::Rotation;

/// The batch of a step on a device.
#[derive(Debug)]
pub(crate) struct Step {
    /// Token of each row.
    pub(crate) tokens: Tensor,
    /// Rows whose logits are wanted; `None` if there are none.
    pub(crate) logit_rows: Option<Tensor>,
    /// By number of the group.
    pub(crate) groups: Vec<GroupStep>,
    positions: Vec<u32>,
    rotations: Vec<Rotation>,
}

/// A step's part in a group of layers.
#[derive(Debug)]
pub(crate) struct GroupStep {
    /// `[rows, width]`: the slot of each row, once for each of its numbers.
    pub(crate) written: Tensor,
    /// What is attended to.
    pub(crate) pieces: Vec<Piece>,
}

impl Step {
    /// `tables[group][slot]` is the block table of a slot.
    pub(crate) fn new(
        batch: &Batch,
        tables: &[impl AsRef<[Vec<u32>]>],
        cache: &CandleKvCache,
        device: &CandleDevice,
    ) -> Result<Self> {
        batch.check();
        let groups = cache.layouts().zip(tables).map(|(layout, tables)| {
            let slots = SlotTables {
                tables: tables.as_ref(),
                block_size: cache.block_size(),
            };
            GroupStep::new(batch, &slots, layout, device)
        });
        let rows = &batch.logit_rows;
        let logit_rows = (!rows.is_empty()).then(|| Tensor::new(rows.as_slice(), device.inner()));
        Ok(Self {
            tokens: Tensor::new(batch.tokens.as_slice(), device.inner())?,
            logit_rows: logit_rows.transpose()?,
            groups: groups.collect::<Result<_>>()?,
            positions: batch.positions.clone(),
            rotations: Vec::new(),
        })
    }

    /// The batch's angles, computed when first asked for.
    pub(crate) fn rotation(&mut self, rope: Rope, device: &CandleDevice) -> Result<&Rotation> {
        let known = self.rotations.iter().position(|known| known.rope == rope);
        let index = match known {
            Some(index) => index,
            None => {
                let rotation = Rotation::new(&self.positions, rope, device.inner())?;
                self.rotations.push(rotation);
                self.rotations.len() - 1
            }
        };
        Ok(&self.rotations[index])
    }
}

impl GroupStep {
    fn new(
        batch: &Batch,
        slots: &SlotTables<'_>,
        layout: &KvGroupLayout,
        device: &CandleDevice,
    ) -> Result<Self> {
        let written = batch.sequences.iter().flat_map(|sequence| {
            let positions = sequence.first_position..sequence.end_position();
            positions.map(|position| slots.slot(sequence.slot, position))
        });
        let written: Vec<u32> = written.collect();
        let (rows, width) = (written.len(), width(layout));
        let written = Tensor::from_vec(written, (rows, 1), device.inner())?;
        Ok(Self {
            written: written.broadcast_as((rows, width))?.contiguous()?,
            pieces: pieces(batch, slots, layout, device)?,
        })
    }
}

/// Where positions lie in the cache of a group.
pub(crate) struct SlotTables<'a> {
    tables: &'a [Vec<u32>],
    block_size: usize,
}

impl SlotTables<'_> {
    /// Positions of a block.
    pub(crate) fn block_size(&self) -> usize {
        self.block_size
    }

    /// Of a position of the sequence with this slot of the batch.
    pub(crate) fn slot(&self, sequence: u32, position: u32) -> u32 {
        let position = position as usize;
        let block = self.tables[sequence as usize][position / self.block_size];
        block * self.block_size as u32 + (position % self.block_size) as u32
    }
}
