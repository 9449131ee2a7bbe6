//! `(a + b) * scale` on the device. Launch of `kernels/cuda/add_scaled.cu`.

use crate::pack::{RowSource, RowSourceArgs, int};
use crate::{Device, DeviceError, DevicePointer, Grid, KernelArgs, Stream};

const THREADS: usize = 128;

/// `out = (a + b) * scale`.
#[derive(Clone, Copy, Debug)]
pub struct AddScaled {
    /// First addend.
    pub a: RowSource,
    /// Second addend.
    pub b: RowSource,
    /// Factor on the sum.
    pub scale: f32,
    /// f32 `[rows, columns]`; may be where one of the addends is, if that is such a matrix too.
    pub out: DevicePointer,
    /// Rows.
    pub rows: usize,
    /// Numbers of a row.
    pub columns: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Args {
    a: RowSourceArgs,
    b: RowSourceArgs,
    out: DevicePointer,
    scale: f32,
    columns: i32,
}

const _: () = assert!(size_of::<Args>() == 112);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for Args {}

impl AddScaled {
    /// Queues it.
    ///
    /// # Safety
    ///
    /// All pointers are valid for the sizes given.
    pub unsafe fn launch(&self, device: &dyn Device, stream: Stream) -> Result<(), DeviceError> {
        if self.rows == 0 {
            return Ok(());
        }
        let args = Args {
            a: self.a.args(),
            b: self.b.args(),
            out: self.out,
            scale: self.scale,
            columns: int(self.columns),
        };
        let pieces = self.columns.div_ceil(8 * THREADS);
        let grid = Grid::new([self.rows, pieces, 1], THREADS as u32);
        // SAFETY: the caller's promise; the struct is the kernel's.
        unsafe { device.launch(stream, "add_scaled", grid, &args) }
    }
}
