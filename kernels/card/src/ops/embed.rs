//! The embedding on the device. Launch of `kernels/cuda/embed.cu`.

use crate::pack::int;
use crate::{Device, DeviceError, DevicePointer, Grid, KernelArgs, Stream};

/// Flag of a token id that is the number of a slot instead, whose last sampled token is meant.
pub const FEEDBACK: u32 = 1 << 31;

const THREADS: usize = 128;

/// Rows of the embedding table become the residual stream.
#[derive(Clone, Copy, Debug)]
pub struct Embed {
    /// BF16 `[vocabulary, columns]`, tiled.
    pub table: DevicePointer,
    /// u32 `[rows]`: token ids, or slots with [`FEEDBACK`]. What is in neither range is token 0.
    pub tokens: DevicePointer,
    /// u32 `[slots]`: the token that each slot sampled last.
    pub last_token: DevicePointer,
    /// f32 `[rows, columns]`.
    pub out: DevicePointer,
    /// Tokens.
    pub rows: usize,
    /// Numbers of a row.
    pub columns: usize,
    /// Rows of the table.
    pub vocabulary: usize,
    /// Slots.
    pub slots: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct EmbedArgs {
    table: DevicePointer,
    tokens: DevicePointer,
    last_token: DevicePointer,
    out: DevicePointer,
    vocabulary: i32,
    columns: i32,
    slots: i32,
    unused: i32,
}

const _: () = assert!(size_of::<EmbedArgs>() == 48);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for EmbedArgs {}

impl Embed {
    /// Queues it.
    ///
    /// # Safety
    ///
    /// All pointers are valid for the sizes given; `last_token` may be null without slots.
    pub unsafe fn launch(&self, device: &dyn Device, stream: Stream) -> Result<(), DeviceError> {
        assert!(self.vocabulary >= 1, "a vocabulary has a token");
        if self.rows == 0 {
            return Ok(());
        }
        let args = EmbedArgs {
            table: self.table,
            tokens: self.tokens,
            last_token: self.last_token,
            out: self.out,
            vocabulary: int(self.vocabulary),
            columns: int(self.columns),
            slots: int(self.slots),
            unused: 0,
        };
        let pieces = self.columns.div_ceil(8 * THREADS);
        let grid = Grid::new([self.rows, pieces, 1], THREADS as u32);
        // SAFETY: the caller's promise; the struct is the kernel's.
        unsafe { device.launch(stream, "embed", grid, &args) }
    }
}
