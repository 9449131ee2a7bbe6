//! Weights from the order of checkpoints into tiles, on the device. Launches of
//! `kernels/cuda/repack.cu`; [`TiledMatrix::pack`] is the same on the host.

use std::ops::Range;

use super::device::{Device, DeviceError, DevicePointer, Grid, KernelArgs, Stream};
use super::layout::TiledMatrix;
use super::pack::int;

/// `TiledShape` of `tiles.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TiledShapeArgs {
    rows: i32,
    columns: i32,
    element_bytes: i32,
    width: i32,
}

impl From<TiledMatrix> for TiledShapeArgs {
    fn from(matrix: TiledMatrix) -> Self {
        Self {
            rows: int(matrix.rows),
            columns: int(matrix.columns),
            element_bytes: int(matrix.element.bytes()),
            width: int(if matrix.gate_up { matrix.width() } else { 0 }),
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct RepackArgs {
    source: DevicePointer,
    out: DevicePointer,
    shape: TiledShapeArgs,
    first_row: i32,
    rows: i32,
}

const _: () = assert!(size_of::<RepackArgs>() == 40);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for RepackArgs {}

#[repr(C)]
#[derive(Clone, Copy)]
struct RepackScalesArgs {
    source: DevicePointer,
    out: DevicePointer,
    shape: TiledShapeArgs,
}

const _: () = assert!(size_of::<RepackScalesArgs>() == 32);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for RepackScalesArgs {}

const THREADS: usize = 256;

impl TiledMatrix {
    /// Queues the zeroing of padding rows, which [`repack`](Self::repack) leaves alone: to be done
    /// before it. It may zero the other rows as well.
    ///
    /// # Safety
    ///
    /// `out` has [`bytes`](Self::bytes) bytes.
    pub unsafe fn clear(
        &self,
        device: &dyn Device,
        stream: Stream,
        out: DevicePointer,
    ) -> Result<(), DeviceError> {
        if self.padded_rows() == self.rows {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { device.fill(stream, out, 0, self.bytes()) }
    }

    /// Queues the copy of some rows of the checkpoint, which `source` holds one after the other,
    /// to their places in the matrix at `out`.
    ///
    /// # Safety
    ///
    /// `source` has the bytes of these rows, and `out` has [`bytes`](Self::bytes) bytes.
    pub unsafe fn repack(
        &self,
        device: &dyn Device,
        stream: Stream,
        [source, out]: [DevicePointer; 2],
        rows: Range<usize>,
    ) -> Result<(), DeviceError> {
        assert!(rows.end <= self.rows, "rows of a weight matrix");
        assert!(self.element.bytes() <= 2, "weights of 8 or 16 bits");
        if rows.is_empty() {
            return Ok(());
        }
        let args = RepackArgs {
            source,
            out,
            shape: (*self).into(),
            first_row: int(rows.start),
            rows: int(rows.len()),
        };
        let grid = Grid::line(rows.len(), THREADS as u32);
        // SAFETY: the caller's promise; the struct is the kernel's.
        unsafe { device.launch(stream, "repack", grid, &args) }
    }

    /// Queues the copy of all rows' scales, f32, to their rows' places; padding becomes zero.
    ///
    /// # Safety
    ///
    /// `source` has a number for each row, and `out` one for each padded row.
    pub unsafe fn repack_scales(
        &self,
        device: &dyn Device,
        stream: Stream,
        [source, out]: [DevicePointer; 2],
    ) -> Result<(), DeviceError> {
        let args = RepackScalesArgs {
            source,
            out,
            shape: (*self).into(),
        };
        let grid = Grid::line(self.padded_rows().div_ceil(THREADS), THREADS as u32);
        // SAFETY: the caller's promise; the struct is the kernel's.
        unsafe { device.launch(stream, "repack_scales", grid, &args) }
    }
}
