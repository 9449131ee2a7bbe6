//! Brings what a step needs to the device.

use super::{Runner, STEPS_IN_FLIGHT, StepWork, UPDATE_BLOCKS_MAX, UPDATES_MAX};
use crate::batch::{TableUpdate, UpdateTables};
use crate::device::{DeviceError, Stream};
use crate::ops::sample::SampleStep;
use crate::pinned::Pinned;
use crate::step::StepShape;

/// A header with their number, the updates, their blocks.
pub(super) const UPDATE_BYTES: usize =
    HEADER_BYTES + UPDATES_MAX * size_of::<TableUpdate>() + UPDATE_BLOCKS_MAX * 4;
const HEADER_BYTES: usize = 16;
const BLOCKS_START: usize = HEADER_BYTES + UPDATES_MAX * size_of::<TableUpdate>();

impl Runner {
    /// Queues all uploads that a step's operations need.
    pub(super) fn upload(
        &mut self,
        work: &StepWork<'_>,
        shape: &StepShape,
    ) -> Result<(), DeviceError> {
        self.update_tables(work)?;
        self.start_histories(work)?;
        let staging = &mut self.staging[self.steps % STEPS_IN_FLIGHT];
        self.backend
            .plan(&work.batch.sequences, &mut staging.plans)?;
        let memory = if self.decode_memory.holds(shape) {
            &self.decode_memory
        } else {
            &self.mixed_memory
        };
        memory.upload(work.batch, shape, &mut staging.inputs)
    }

    /// Queues the upload of how a step is sampled.
    pub(super) fn upload_samples(&mut self, samples: &SampleStep) -> Result<(), DeviceError> {
        let staging = &mut self.staging[self.steps % STEPS_IN_FLIGHT].samples;
        let pieces = samples.write(staging.as_mut_slice());
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            // SAFETY: the workspace has room for a step, of which this is a piece, and the staging
            // memory stays as it is until the step is done.
            unsafe {
                let from = staging.pointer().add(piece.start);
                let to = self.sampler.step().offset(piece.start);
                self.device.upload(Stream::Main, to, from, piece.len())?;
            }
        }
        Ok(())
    }

    /// Block tables change. Nearly always all changes fit into one upload.
    fn update_tables(&mut self, work: &StepWork<'_>) -> Result<(), DeviceError> {
        let pieces = cut_updates(work.updates);
        for (index, updates) in pieces.iter().enumerate() {
            let staging = if index == 0 {
                &mut self.staging[self.steps % STEPS_IN_FLIGHT].updates
            } else {
                // The memory of an earlier piece may still be read.
                self.device.synchronize(Stream::Main)?;
                &mut self.rare
            };
            let bytes = write_updates(updates, work.blocks, staging);
            let memory = self.update_memory.pointer();
            // SAFETY: the memory has room for a piece, and the staging memory stays as it is until
            // it has been read.
            unsafe {
                let from = staging.pointer();
                self.device.upload(Stream::Main, memory, from, bytes)?;
                UpdateTables {
                    tables: self.tables.clone(),
                    slots: self.limits.sequences as u32,
                    updates: memory.offset(HEADER_BYTES),
                    num_updates: memory,
                    blocks: memory.offset(BLOCKS_START),
                }
                .launch(&*self.device, Stream::Main)?;
            }
        }
        if pieces.len() > 1 {
            self.device.synchronize(Stream::Main)?;
        }
        Ok(())
    }

    /// Sequences with penalties enter their slots, which is rare enough to wait for.
    fn start_histories(&mut self, work: &StepWork<'_>) -> Result<(), DeviceError> {
        for history in work.histories {
            let tokens = history.tokens;
            assert!(tokens.len() <= self.limits.positions, "tokens of a history");
            for (token, room) in tokens
                .iter()
                .zip(self.rare.as_mut_slice().chunks_exact_mut(4))
            {
                room.copy_from_slice(&token.to_ne_bytes());
            }
            let memory = self.history_memory.pointer();
            // SAFETY: both memories have room for the tokens, and the wait below ends their use.
            unsafe {
                let from = self.rare.pointer();
                self.device
                    .upload(Stream::Main, memory, from, size_of_val(tokens))?;
                self.sampler.start_history(
                    Stream::Main,
                    history.slot,
                    memory,
                    history.prompt_len,
                    tokens.len(),
                )?;
            }
            self.device.synchronize(Stream::Main)?;
        }
        Ok(())
    }
}

/// Pieces that fit into one upload each; updates with more blocks than fit are cut.
fn cut_updates(updates: &[TableUpdate]) -> Vec<Vec<TableUpdate>> {
    let mut pieces: Vec<Vec<TableUpdate>> = Vec::new();
    let mut blocks = 0;
    for update in updates {
        let mut rest = *update;
        while rest.count > 0 {
            if blocks == UPDATE_BLOCKS_MAX
                || pieces.last().is_none_or(|piece| piece.len() == UPDATES_MAX)
            {
                pieces.push(Vec::new());
                blocks = 0;
            }
            let count = (rest.count as usize).min(UPDATE_BLOCKS_MAX - blocks);
            let piece = pieces.last_mut().expect("pushed above");
            piece.push(TableUpdate {
                count: count as u32,
                ..rest
            });
            blocks += count;
            rest.first += count as u32;
            rest.offset += count as u32;
            rest.count -= count as u32;
        }
    }
    pieces
}

/// Writes updates, with their blocks one after the other; returns the bytes written.
fn write_updates(updates: &[TableUpdate], all_blocks: &[u32], staging: &mut Pinned) -> usize {
    let memory = staging.as_mut_slice();
    let put = |memory: &mut [u8], at: usize, words: &[u32]| {
        for (word, room) in words.iter().zip(memory[at..].chunks_exact_mut(4)) {
            room.copy_from_slice(&word.to_ne_bytes());
        }
    };
    put(memory, 0, &[updates.len() as u32]);
    let mut offset = 0;
    for (index, update) in updates.iter().enumerate() {
        let TableUpdate {
            table,
            slot,
            first,
            count,
            offset: source,
        } = *update;
        let at = HEADER_BYTES + index * size_of::<TableUpdate>();
        put(memory, at, &[table, slot, first, count, offset]);
        let blocks = &all_blocks[source as usize..(source + count) as usize];
        put(memory, BLOCKS_START + offset as usize * 4, blocks);
        offset += count;
    }
    BLOCKS_START + offset as usize * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_updates_are_cut_without_losing_a_block() {
        let update = |slot, count, offset| TableUpdate {
            table: 0,
            slot,
            first: 3,
            count,
            offset,
        };
        let long = UPDATE_BLOCKS_MAX as u32 + 10;
        let pieces = cut_updates(&[update(0, 20, 0), update(1, long, 20), update(2, 0, 0)]);
        assert_eq!(pieces.len(), 2);
        let of_slot = |slot| {
            let all = pieces.iter().flatten();
            all.filter(move |update| update.slot == slot)
        };
        assert_eq!(of_slot(1).map(|update| update.count).sum::<u32>(), long);
        let second = of_slot(1).nth(1).unwrap();
        assert_eq!(second.first, 3 + UPDATE_BLOCKS_MAX as u32 - 20);
        assert_eq!(second.offset, UPDATE_BLOCKS_MAX as u32);
        assert!(cut_updates(&[]).is_empty());
    }

    #[test]
    fn many_updates_are_cut_too() {
        let updates = vec![
            TableUpdate {
                count: 1,
                ..TableUpdate::default()
            };
            UPDATES_MAX + 1
        ];
        let lengths: Vec<usize> = cut_updates(&updates).iter().map(Vec::len).collect();
        assert_eq!(lengths, [UPDATES_MAX, 1]);
    }
}
