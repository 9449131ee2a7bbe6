//! What changed in the block tables since the last step. Launch of `kernels/cuda/batch.cu`.

use super::buffer::Plain;
use super::device::{Device, DeviceError, DevicePointer, Grid, KernelArgs, Stream};

/// Largest number of groups of layers, each with a table.
pub const TABLES_MAX: usize = 8;

const BLOCKS: usize = 128;
const THREADS: u32 = 64;

/// Some consecutive new blocks of one slot. Updates of one step do not overlap.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableUpdate {
    /// Which table.
    pub table: u32,
    /// Which row of it.
    pub slot: u32,
    /// Place in the row of the first new block.
    pub first: u32,
    /// How many there are.
    pub count: u32,
    /// Where in the list of blocks they begin.
    pub offset: u32,
}

const _: () = assert!(size_of::<TableUpdate>() == 20);

// SAFETY: five numbers.
unsafe impl Plain for TableUpdate {}

/// The tables, and where the updates of a step are found.
#[derive(Clone, Debug)]
pub struct UpdateTables {
    /// u32 `[slots][blocks per slot]` each, with the blocks per slot.
    pub tables: Vec<(DevicePointer, u32)>,
    /// Rows of each table.
    pub slots: u32,
    /// [`TableUpdate`]s.
    pub updates: DevicePointer,
    /// One u32: how many updates there are.
    pub num_updates: DevicePointer,
    /// u32: the new blocks.
    pub blocks: DevicePointer,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct TableUpdateArgs {
    tables: [DevicePointer; TABLES_MAX],
    updates: DevicePointer,
    num_updates: DevicePointer,
    blocks: DevicePointer,
    blocks_per_slot: [u32; TABLES_MAX],
    slots: u32,
    num_tables: u32,
}

const _: () = assert!(size_of::<TableUpdateArgs>() == 128);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for TableUpdateArgs {}

impl UpdateTables {
    /// Queues the updates. What does not fit a table is not written.
    ///
    /// # Safety
    ///
    /// All pointers are valid for what they are said to hold when the kernel runs.
    pub unsafe fn launch(&self, device: &dyn Device, stream: Stream) -> Result<(), DeviceError> {
        assert!(self.tables.len() <= TABLES_MAX, "tables");
        let mut args = TableUpdateArgs {
            tables: [DevicePointer::NULL; TABLES_MAX],
            updates: self.updates,
            num_updates: self.num_updates,
            blocks: self.blocks,
            blocks_per_slot: [0; TABLES_MAX],
            slots: self.slots,
            num_tables: self.tables.len() as u32,
        };
        for (index, &(table, blocks_per_slot)) in self.tables.iter().enumerate() {
            args.tables[index] = table;
            args.blocks_per_slot[index] = blocks_per_slot;
        }
        // SAFETY: the caller's promise; the struct is the kernel's.
        unsafe { device.launch(stream, "update_tables", Grid::line(BLOCKS, THREADS), &args) }
    }
}
