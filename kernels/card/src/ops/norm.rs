//! Residual additions and norms on the device. Launch of `kernels/cuda/norm.cu`.

use backstop_kernels::backend::Norm;

use crate::pack::{PanelOutput, PanelOutputArgs, RowSource, RowSourceArgs, int};
use crate::{Device, DeviceError, DevicePointer, Grid, KernelArgs, Stream};

/// Longest row.
pub const COLUMNS_MAX: usize = 16_384;

/// Rows up to this length have eight columns for each thread of a small block.
const SHORT_COLUMNS_MAX: usize = 2048;

/// `residual += addends`, one after the other, then `norm(residual) * weight` into panels.
#[derive(Clone, Copy, Debug)]
pub struct AddNorm {
    /// f32 `[rows, columns]`, updated in place.
    pub residual: DevicePointer,
    /// What is added.
    pub addends: [RowSource; 2],
    /// f32 `[columns]`.
    pub weight: DevicePointer,
    /// Which normalisation.
    pub norm: Norm,
    /// Where the norm goes. E4M3 is quantised from f32.
    pub out: PanelOutput,
    /// Rows.
    pub rows: usize,
    /// Numbers of a row.
    pub columns: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct NormArgs {
    residual: DevicePointer,
    weight: DevicePointer,
    addends: [RowSourceArgs; 2],
    out: PanelOutputArgs,
    epsilon: f32,
    centred: i32,
    rows: i32,
    columns: i32,
}

const _: () = assert!(size_of::<NormArgs>() == 160);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for NormArgs {}

impl AddNorm {
    /// Queues it.
    ///
    /// # Safety
    ///
    /// All pointers are valid for the sizes given.
    pub unsafe fn launch(&self, device: &dyn Device, stream: Stream) -> Result<(), DeviceError> {
        if self.rows == 0 {
            return Ok(());
        }
        assert!(
            (1..=COLUMNS_MAX).contains(&self.columns),
            "columns of a norm"
        );
        let (kernel, threads) = if self.columns <= SHORT_COLUMNS_MAX {
            ("norm_short", 256)
        } else {
            ("norm_long", 512)
        };
        let (centred, epsilon) = match self.norm {
            Norm::Rms { epsilon } => (0, epsilon),
            Norm::LayerWithoutBias { epsilon } => (1, epsilon),
        };
        let args = NormArgs {
            residual: self.residual,
            weight: self.weight,
            addends: self.addends.map(RowSource::args),
            out: self.out.args(self.rows),
            epsilon,
            centred,
            rows: int(self.rows),
            columns: int(self.columns),
        };
        // The row, the weight, and three reductions over warps.
        let shared_bytes = 2 * 4 * self.columns.next_multiple_of(8) + 3 * 4 * threads / 32;
        let grid = Grid::line(self.rows, threads as u32).shared(shared_bytes);
        // SAFETY: the caller's promise; the struct is the kernel's.
        unsafe { device.launch(stream, kernel, grid, &args) }
    }
}
