//! The choice of experts on the device. Launch of `kernels/cuda/router.cu`.

use backstop_kernels::backend::{RouterRule, RouterScoring};

use crate::group::EXPERTS_MAX;
use crate::pack::{RowSource, RowSourceArgs, int};
use crate::{Device, DeviceError, DevicePointer, Grid, KernelArgs, Stream};

/// Largest number of experts of a token.
pub const TOP_K_MAX: usize = 32;

const THREADS: usize = 128;

/// Chooses experts from router logits.
#[derive(Clone, Copy, Debug)]
pub struct Choose {
    /// [`RowSource::Parts`], `[parts][part_rows][num_experts]`.
    pub logits: RowSource,
    /// u32 `[rows]`: `NONE` for rows that only fill up the batch, which get no experts. Null if
    /// there are no such rows.
    pub slots: DevicePointer,
    /// u32 `[rows, top_k]`: the choice, best first, or `NONE`.
    pub experts: DevicePointer,
    /// f32 `[rows, top_k]`.
    pub weights: DevicePointer,
    /// Tokens.
    pub rows: usize,
    /// Experts to choose from.
    pub num_experts: usize,
    /// How logits become weights.
    pub rule: RouterRule,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct RouterArgs {
    logits: RowSourceArgs,
    slots: DevicePointer,
    experts: DevicePointer,
    weights: DevicePointer,
    rows: i32,
    num_experts: i32,
    top_k: i32,
    softmax: i32,
    renormalise: i32,
    unused: i32,
}

const _: () = assert!(size_of::<RouterArgs>() == 96);

// SAFETY: numbers and pointers, without padding.
unsafe impl KernelArgs for RouterArgs {}

impl Choose {
    /// Queues it.
    ///
    /// # Safety
    ///
    /// All pointers are valid for the sizes given.
    pub unsafe fn launch(&self, device: &dyn Device, stream: Stream) -> Result<(), DeviceError> {
        let top_k = self.rule.top_k as usize;
        assert!(
            (1..=TOP_K_MAX.min(self.num_experts)).contains(&top_k),
            "top_k of router"
        );
        assert!(
            matches!(self.logits, RowSource::Parts { rounded: false, .. }),
            "router logits are f32"
        );
        if self.rows == 0 {
            return Ok(());
        }
        let kernel = match self.num_experts {
            0..=128 => "router_128",
            129..=512 => "router_512",
            513..=EXPERTS_MAX => "router_1024",
            experts => panic!("a router has at most {EXPERTS_MAX} experts, not {experts}"),
        };
        let args = RouterArgs {
            logits: self.logits.args(),
            slots: self.slots,
            experts: self.experts,
            weights: self.weights,
            rows: int(self.rows),
            num_experts: int(self.num_experts),
            top_k: int(top_k),
            softmax: i32::from(self.rule.scoring == RouterScoring::Softmax),
            renormalise: i32::from(self.rule.renormalise),
            unused: 0,
        };
        let grid = Grid::line(self.rows.div_ceil(THREADS / 32), THREADS as u32);
        // SAFETY: the caller's promise; the struct is the kernel's.
        unsafe { device.launch(stream, kernel, grid, &args) }
    }
}
