//! `(a + b) * scale` on the device. Launch of `kernels/cuda/add_scaled.cu`.

use std::sync::Arc;

use super::{AddScaledArgs, AddScaledCase};
use crate::catalog::{Case, DeviceResult, DeviceRun, Tolerance};
use crate::cuda::pack::{RowSource, RowSourceArgs, int};
use crate::cuda::{
    Device, DeviceBuffer, DeviceError, DevicePointer, Grid, KernelArgs, PoisonedBuffer, Stream,
};
use crate::element::{narrow_bf16, widen_bf16};

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

/// The first addend comes as BF16, the second as f32.
pub(super) fn device<'a>(case: &'a AddScaledCase, device: &'a Arc<dyn Device>) -> DeviceResult<'a> {
    let bf16: Vec<u16> = case.a.iter().map(|&value| narrow_bf16(value)).collect();
    let a = DeviceBuffer::from_slice(device, &bf16)?;
    let b = DeviceBuffer::from_slice(device, &case.b)?;
    let out = Arc::new(PoisonedBuffer::new(device, case.b.len() * 4)?);
    let add = AddScaled {
        a: RowSource::Bf16 {
            values: a.pointer(),
        },
        b: RowSource::f32(b.pointer()),
        scale: case.scale,
        out: out.pointer(),
        rows: case.rows(),
        columns: case.columns,
    };
    let inputs = [a, b];
    Ok(DeviceRun {
        launch: Box::new({
            let out = Arc::clone(&out);
            move || {
                let _owned = (&inputs, &out);
                // SAFETY: the buffers have these sizes and live as long as the closure.
                unsafe { add.launch(device.as_ref(), Stream::Main) }
            }
        }),
        read: Box::new(move || out.read()),
        expected: Box::new(move || {
            let a: Vec<f32> = bf16.iter().map(|&bits| widen_bf16(bits)).collect();
            let mut out = vec![0.0; a.len()];
            AddScaledArgs {
                a: &a,
                b: &case.b,
                scale: case.scale,
            }
            .reference(&mut out);
            out
        }),
        tolerance: Tolerance::EXACT,
    })
}
